package offline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

func pass(p string) Passphrase { return func(bool) ([]byte, error) { return []byte(p), nil } }

func code(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.pem")
	if _, err := OwnKey(path, pass("secret")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(b, []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")) {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	_, err = OwnKey(path, pass("secret"))
	if code(err) != "key.exists" {
		t.Error(err)
	}
	_, err = LoadKey(filepath.Join(t.TempDir(), "none"), pass(""))
	if code(err) != "key.unknown" {
		t.Error(err)
	}
	gone := errors.New("nobody there")
	if _, err := LoadKey(path, func(bool) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"targets","targets":{"a":null}},"signatures":[]}`))
	f.Add([]byte(`{"signed":{"_type":"root","roles":{"root":null}},"signatures":[{"keyid":"a","sig":""}]}`))
	f.Add([]byte(`{"signed":{"_type":"targets","spec_version":"1.0.31","version":1,"expires":"2030-01-01T00:00:00Z","targets":{}},"signatures":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if md, err := Parse[metadata.TargetsType]("x", b); err == nil {
			_, _ = unsigned(md) // may refuse, not panic
		}
		_, _ = Parse[metadata.RootType]("x", b)
	})
}
