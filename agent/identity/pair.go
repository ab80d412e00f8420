package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// pair is a key and the certificate that was issued for it.
type pair struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate // nil: not issued yet
}

func newPair() (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &pair{key: key}, nil
}

// joined is the pair of a key and a certificate in PEM.
func joined(key *ecdsa.PrivateKey, certPEM []byte) (*pair, error) {
	c, err := certificate("device certificate", certPEM)
	if err != nil {
		return nil, err
	}
	return &pair{key, c}, nil
}

// readPair reads a file that write has written.
func readPair(fsys durable.FS, path string) (*pair, error) {
	b, err := durable.ReadFile(fsys, path, maxFile)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, errors.New("the device key is damaged")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the device key is not ECDSA P-256")
	}
	if len(bytes.TrimSpace(rest)) == 0 {
		return &pair{key: key}, nil
	}
	return joined(key, rest)
}

// write replaces the file at once.
func (p *pair) write(fsys durable.FS, op, path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if p.cert != nil {
		b = slices.Concat(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
	}
	return durable.WriteFile(fsys, op, path, b, 0o600)
}

// check wants the certificate to be of this key, device and one of these CAs. The
// files of two identities never make one.
func (p *pair) check(cas []*x509.Certificate, device string) error {
	if p.cert == nil {
		return errors.New("the device certificate is missing")
	}
	pub, ok := p.cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(&p.key.PublicKey) {
		return errors.New("the device certificate is for another key")
	}
	if p.cert.Subject.CommonName != device {
		return fmt.Errorf("the device certificate is for device %q, not %q", p.cert.Subject.CommonName, device)
	}
	var err error
	for _, ca := range cas {
		if err = p.cert.CheckSignatureFrom(ca); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the device certificate is of another CA: %w", err)
}

func (p *pair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

// pairs are the one that the device is known by and, while it renews, the next.
type pairs struct {
	mu      sync.Mutex
	current *pair
	next    *pair // nil: none is being got
	signer  *pair // signs what the device says
	// shown is the pair of the last handshake, welcomed whether a session came of
	// it. refused: a session of next failed since it was issued.
	shown    *pair
	welcomed bool
	refused  bool
}

// start begins with what the disk holds. A next pair that is whole comes first:
// the server may have taken it just before the power was cut.
func (s *pairs) start(current, next *pair) {
	s.current, s.next, s.signer = current, next, current
	if s.ready() {
		s.signer = next
	}
}

func (s *pairs) ready() bool { return s.next != nil && s.next.cert != nil }

// show chooses the pair of a handshake: the next one where there is one, the
// current one after the next did not lead to a welcome, and so on in turn. So
// whichever the server takes is found, whatever either side has forgotten.
func (s *pairs) show() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.current
	if s.ready() {
		if s.shown == s.next && !s.welcomed {
			s.refused = true
		} else {
			p = s.next
		}
	}
	s.shown, s.signer, s.welcomed = p, p, false
	return p.tls()
}

// Signer is the key that the device signs with: of the pair that its session was
// begun with or, from UseNext on, of the next.
func (s *pairs) Signer() *ecdsa.PrivateKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signer.key
}

// UseNext has the device sign with the next key from now on. The session is to be
// ended after it: the next one begins with that key.
func (s *pairs) UseNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready() {
		s.signer = s.next
	}
}

// welcome takes in that the server welcomed the device in the session of the last
// handshake. It tells whether Settle has something to do.
func (s *pairs) welcome() bool {
	s.welcomed = true
	return s.shown != nil && s.shown == s.next
}

// loadNext reads the pair that is being got, nil where there is none that could be
// used: renewing then begins anew. One that is the current one already was left by
// a power cut.
func loadNext(fsys durable.FS, dir string, current *pair, usable func(*pair) error) *pair {
	p, err := readPair(fsys, filepath.Join(dir, fileNext))
	if err != nil || p.key.Equal(current.key) || p.cert != nil && usable(p) != nil {
		return nil
	}
	return p
}
