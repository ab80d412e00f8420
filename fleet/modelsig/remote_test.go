package modelsig

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
)

// TestRemoteSigner signs with a key that only a function has: its signatures are
// believed like any, and only keys that verifiers of a key of P-256 know are taken.
func TestRemoteSigner(t *testing.T) {
	k := ecKey(t, elliptic.P256())
	s, err := NewRemoteSigner(&k.PublicKey, func(m []byte) ([]byte, error) {
		sum := sha256.Sum256(m)
		return ecdsa.SignASN1(rand.Reader, k, sum[:])
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := Verify(sign(t, s, content), &Policy{Key: &k.PublicKey}, now)
	if err != nil || st.Match(filesOf(content)) != nil {
		t.Errorf("%v", err)
	}
	gone := errors.New("the token was pulled")
	s, err = NewRemoteSigner(&k.PublicKey, func([]byte) ([]byte, error) { return nil, gone })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign("gate", filesOf(content)); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	other := ecKey(t, elliptic.P384())
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []any{nil, &other.PublicKey, edwards} {
		if _, err := NewRemoteSigner(public, nil); code(err) != CodeKey {
			t.Errorf("%T: %v", public, err)
		}
	}
}
