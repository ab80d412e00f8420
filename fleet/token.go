package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
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
	Expires time.Time
	Created time.Time
	By      string // access that made it
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
