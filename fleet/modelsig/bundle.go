package modelsig

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// VerifyBundle verifies the model.sig inside a bundle over all its other files.
// The bundle's digests must have been verified.
func VerifyBundle(b *bundle.Bundle, policy *Policy, now time.Time) (*Statement, error) {
	if d, ok := b.Manifest.Lookup(Name); !ok || d.Size > MaxSize {
		return nil, errMissing("the bundle carries no %s", Name)
	}
	raw, err := b.ReadFile(Name)
	if err != nil {
		return nil, err
	}
	s, err := Verify(raw, policy, now)
	if err != nil {
		return nil, err
	}
	files, err := BundleFiles(b.Manifest)
	if err != nil {
		return nil, err
	}
	return s, s.Match(files)
}

// BundleFiles are the files of a bundle but the signature.
func BundleFiles(m *bundle.Manifest) ([]File, error) {
	var list []File
	for _, l := range m.Layers {
		if l.Path() == Name {
			continue
		}
		f := File{Name: l.Path()}
		if _, err := hex.Decode(f.Digest[:], []byte(strings.TrimPrefix(l.Digest, "sha256:"))); err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}
