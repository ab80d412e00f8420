package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// ErrSignpost is wrapped where a signpost is refused.
var ErrSignpost = errors.New("the signpost is refused")

// ErrNotThisServer is returned for a signpost that names no CA by which the server
// of this session is known: a device that believed it would stand alone. After
// another session it may be right.
var ErrNotThisServer = fmt.Errorf("%w: by its CAs the server of this session would not be known", ErrSignpost)

// post is signpost.json: what the newest signpost said, and what is kept beside it.
type post struct {
	Format    int            `json:"format"`
	Number    int64          `json:"number"`
	Mark      []byte         `json:"mark"`
	CAs       [][]byte       `json:"cas"`              // trusted, DER; the first issues
	Former    [][]byte       `json:"former,omitempty"` // no longer trusted; the own certificate may be of one
	Addresses []wire.Address `json:"addresses"`
	// Kept is the way back: the address that worked when the signpost came, if it is
	// none of Addresses, until one of those has worked.
	Kept  *wire.Address `json:"kept,omitempty"`
	Last  string        `json:"last"`  // MQTT address that worked last
	Since int64         `json:"since"` // trusted seconds
}

const (
	postFormat   = 1
	fileSignpost = "signpost.json"
	maxFormer    = 4
)

// ways are the addresses in the order to be tried.
func (p *post) ways() []wire.Address {
	if p.Kept == nil {
		return p.Addresses
	}
	return append(slices.Clone(p.Addresses), *p.Kept)
}

// readPost returns nil where there is none.
func readPost(fsys durable.FS, dir, device string) (*post, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, fileSignpost), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &post{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, err
	}
	if p.Format != postFormat {
		return nil, fmt.Errorf("format %d is not understood", p.Format)
	}
	if err := (&wire.Signpost{Device: device, Number: p.Number, CAs: p.CAs, Addresses: p.Addresses}).Check(); err != nil {
		return nil, err
	}
	if p.Kept != nil {
		if err := p.Kept.Check(); err != nil {
			return nil, err
		}
	}
	for _, c := range slices.Concat(p.CAs, p.Former) {
		if _, err := x509.ParseCertificate(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// parsed are certificates that readPost or Learn has read once.
func parsed(ders [][]byte) []*x509.Certificate {
	var out []*x509.Certificate
	for _, d := range ders {
		if c, err := x509.ParseCertificate(d); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// believe begins with what the disk holds.
func (id *Identity) believe(p *post) {
	id.post = p
	id.ways, id.trusted, id.issuers = []wire.Address{{Server: id.Server, MQTT: id.MQTT}}, []*x509.Certificate{id.ca}, []*x509.Certificate{id.ca}
	if p != nil {
		id.ways, id.trusted = p.ways(), parsed(p.CAs)
		id.issuers = append(slices.Concat(id.trusted, parsed(p.Former)), id.ca)
	}
}

// roots are the CAs by which a server is known.
func (id *Identity) roots() *x509.CertPool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return pool(id.trusted)
}

func pool(cas []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range cas {
		p.AddCert(c)
	}
	return p
}

// Learn takes in a signpost that came in a session, when a CA that is trusted has
// signed it, it names this device, is newer than the one that is held, and the
// server of this session is known by it. It tells whether something changed; then
// it is on disk. now is trusted.
func (id *Identity) Learn(env *wire.Envelope, now time.Time) (changed bool, err error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	s, err := env.OpenSignpost(id.keys())
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrSignpost, err)
	}
	mark := wire.Mark(env.Payload)
	switch {
	case s.Device != id.Device:
		return false, fmt.Errorf("%w: it is for %s", ErrSignpost, s.Device)
	case id.post != nil && s.Number == id.post.Number && bytes.Equal(mark, id.post.Mark):
		return false, nil
	case id.post != nil && s.Number <= id.post.Number:
		return false, fmt.Errorf("%w: it is number %d, this device holds %d", ErrSignpost, s.Number, id.post.Number)
	}
	if err := id.knows(s.CAs); err != nil {
		return false, err
	}
	p := &post{Format: postFormat, Number: s.Number, Mark: mark, CAs: s.CAs, Addresses: s.Addresses, Since: now.Unix()}
	for _, c := range id.issuers {
		has := func(der []byte) bool { return bytes.Equal(der, c.Raw) }
		if !slices.ContainsFunc(p.CAs, has) && !slices.ContainsFunc(p.Former, has) && len(p.Former) < maxFormer {
			p.Former = append(p.Former, c.Raw)
		}
	}
	if at := id.ways[id.tried]; id.arrived {
		p.Last = at.MQTT
		if !slices.Contains(p.Addresses, at) {
			p.Kept = &at
		}
	} else if id.post != nil {
		p.Kept, p.Last = id.post.Kept, id.post.Last
	}
	return true, id.keep("identity.signpost", p)
}

// keys are those of the CAs that are trusted.
func (id *Identity) keys() []*ecdsa.PublicKey {
	var keys []*ecdsa.PublicKey
	for _, c := range id.trusted {
		if k, ok := c.PublicKey.(*ecdsa.PublicKey); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// OpenCaptures verifies capture orders by the CAs that are trusted.
func (id *Identity) OpenCaptures(env *wire.Envelope) (*wire.CaptureOrders, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return env.OpenCaptureOrders(id.keys())
}

// knows wants CAs by which the server of the last handshake is known.
func (id *Identity) knows(ders [][]byte) error {
	cas := parsed(ders)
	if len(cas) != len(ders) || slices.ContainsFunc(cas, func(c *x509.Certificate) bool { return !c.IsCA }) {
		return fmt.Errorf("%w: a CA of it is none", ErrSignpost)
	}
	if len(id.server) == 0 {
		return ErrNotThisServer
	}
	if verifyServer(tls.ConnectionState{PeerCertificates: id.server}, pool(cas), "", false) != nil {
		return ErrNotThisServer
	}
	return nil
}

// keep writes the file and goes by it. The address of this session stays the one
// that is in use.
func (id *Identity) keep(op string, p *post) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(id.fsys, op, filepath.Join(id.dir, fileSignpost), b, 0o600); err != nil {
		return fmt.Errorf("keep the signpost: %w", err)
	}
	at := id.ways[id.tried]
	id.believe(p)
	if id.tried = slices.Index(id.ways, at); id.tried < 0 {
		id.tried = 0
	}
	if id.tried == 0 {
		id.trouble = ""
	}
	return nil
}

// Held is what a hello says of the signpost.
func (id *Identity) Held() *wire.SignpostHeld {
	id.mu.Lock()
	defer id.mu.Unlock()
	h := &wire.SignpostHeld{}
	if id.post != nil {
		h.Number, h.Mark = id.post.Number, id.post.Mark
	}
	if id.tried > 0 {
		h.Using, h.Trouble = id.ways[id.tried].MQTT, clip(id.trouble, wire.MaxTrouble)
	}
	return h
}

// clip cuts between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
