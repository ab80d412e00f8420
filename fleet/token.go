package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Roles of API tokens, weakest first. A role may do what weaker ones may,
// except that publisher and operator stand beside each other.
const (
	RoleViewer    = "viewer"
	RoleOperator  = "operator"
	RolePublisher = "publisher"
	RoleAdmin     = "admin"
)

// Access is a token of a person or a program for the API; only the SHA-256 of
// its secret is stored.
type Access struct {
	ID      string
	Name    string
	Role    string
	Hash    [32]byte
	Created time.Time
	Expires time.Time // zero: never
}

// EnrolToken lets devices enrol.
type EnrolToken struct {
	ID      string // tok_…
	Hash    [32]byte
	Channel string
	Labels  map[string]string // given to each device that enrols with it
	Max     int               // devices; 1: single
	Used    int
	Hold    bool     // who enrols waits for an operator
	Serials []string // whose fact "serial" is not one of these is refused; empty: any
	// Replaces is the device whose place the one that enrols takes; empty: none's.
	Replaces string
	CA       []byte // fingerprint that its text names
	Expires  time.Time
	Created  time.Time
	By       string // access that made it
}

// TokenRequest is what an operator asks for.
type TokenRequest struct {
	Channel  string
	Labels   map[string]string
	Max      int           // devices, 1 to 100,000
	Expires  time.Duration // up to a year
	Hold     bool
	Serials  []string
	Replaces string // device whose channel and place it is for
}

// MaxSerials bounds the list of one token.
const MaxSerials = 10_000

// CheckSerials refuses lists that no device could be found in.
func CheckSerials(serials []string) error {
	if len(serials) > MaxSerials {
		return ErrBadRequest.With("at most %d serials in one token, not %d", MaxSerials, len(serials))
	}
	seen := map[string]bool{}
	for _, s := range serials {
		if s == "" || len(s) > 128 || strings.TrimSpace(s) != s || seen[s] {
			return ErrBadRequest.With("serial %q: 1 to 128 bytes without spaces around them wanted, each once", s)
		}
		seen[s] = true
	}
	return nil
}

// AccessPrefix begins the text of every API token.
const AccessPrefix = "dunlin_"

// NewAccess makes an API token; the text is nowhere else. A life of 0 is for ever.
func NewAccess(name, role string, life time.Duration, now time.Time) (*Access, string) {
	secret := make([]byte, 24)
	rand.Read(secret) // never fails
	text := AccessPrefix + hex.EncodeToString(secret)
	x := &Access{ID: NewID(PrefixAccess, now), Name: name, Role: role, Hash: sha256.Sum256([]byte(text)), Created: now}
	if life > 0 {
		x.Expires = now.Add(life)
	}
	return x, text
}
