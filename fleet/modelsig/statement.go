package modelsig

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"slices"
)

const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://model_signing/signature/v1.0"
	methodFiles   = "files"
	hashSHA256    = "sha256"
	single        = "." // how tools name the file of a model that is no folder
)

// File is a file of a model.
type File struct {
	Name   string // path from the model's folder, with slashes
	Digest [sha256.Size]byte
}

// Statement is what a signer says, verified.
type Statement struct {
	Method string   // by which it was signed
	Signer string   // for people
	Ignore []string // paths that the signer left out, with all below them
	files  map[string][sha256.Size]byte
}

// statement is the in-toto statement; what others may add is not looked at.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []subject  `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     *predicate `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

type predicate struct {
	Resources     []resource     `json:"resources"`
	Serialization *serialization `json:"serialization"`
}

type resource struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	Algorithm string `json:"algorithm"`
}

type serialization struct {
	Method        string   `json:"method"`
	HashType      string   `json:"hash_type"`
	AllowSymlinks bool     `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths"`
}

func parseStatement(payload []byte) (*Statement, error) {
	raw := &statement{}
	if err := decode(payload, raw); err != nil {
		return nil, errMalformed("statement: %v", err)
	}
	if raw.Type != statementType || raw.Predicate == nil || raw.Predicate.Serialization == nil || len(raw.Subject) != 1 {
		return nil, errMalformed("this is no statement about one model")
	}
	if raw.PredicateType != predicateType {
		return nil, errUnsupported("predicate %q is not %q", raw.PredicateType, predicateType)
	}
	s := raw.Predicate.Serialization
	if s.Method != methodFiles || s.HashType != hashSHA256 {
		return nil, errUnsupported("%s of %s are not verified", s.HashType, s.Method)
	}
	out := &Statement{Ignore: s.IgnorePaths, files: map[string][sha256.Size]byte{}}
	sum := sha256.New()
	for _, r := range raw.Predicate.Resources {
		d, err := r.sum()
		if err != nil {
			return nil, err
		}
		if _, twice := out.files[r.Name]; twice || !fs.ValidPath(r.Name) || r.Name == single && len(raw.Predicate.Resources) > 1 {
			return nil, errMalformed("statement: file %q is named twice or is no path in a folder", r.Name)
		}
		out.files[r.Name] = d
		sum.Write(d[:])
	}
	if len(out.files) == 0 {
		return nil, errMalformed("statement: it names no files")
	}
	if hex.EncodeToString(sum.Sum(nil)) != raw.Subject[0].Digest[hashSHA256] {
		return nil, errMalformed("statement: its files do not have the digest of its subject")
	}
	return out, nil
}

func (r *resource) sum() (d [sha256.Size]byte, err error) {
	if r.Algorithm != hashSHA256 {
		return d, errUnsupported("%s of %q is not verified", r.Algorithm, r.Name)
	}
	b, err := hex.DecodeString(r.Digest)
	if err != nil || len(b) != len(d) {
		return d, errMalformed("statement: the digest of %q is no SHA-256", r.Name)
	}
	return [sha256.Size]byte(b), nil
}

// Len is the number of files that were signed.
func (s *Statement) Len() int { return len(s.files) }

// Match says whether exactly the signed files are there and are what was signed.
// Files named as unsigned may be there without the signer knowing them; one that
// the signer does know must be what was signed.
func (s *Statement) Match(files []File, unsigned ...string) error {
	there := map[string]bool{}
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) }) {
		there[f.Name] = true
		if err := s.Covers(f, unsigned...); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if !there[name] {
			return refuse(CodeFile, "fetch the whole model again", "%s was signed and is not there", name)
		}
	}
	return nil
}

// Covers says whether the statement vouches for one file.
func (s *Statement) Covers(f File, unsigned ...string) error {
	want, ok := s.files[f.Name]
	switch {
	case ok && !bytes.Equal(want[:], f.Digest[:]):
		return refuse(CodeDigest, "fetch the model again; do not use this one", "%s is not what was signed", f.Name)
	case !ok && !slices.Contains(unsigned, f.Name):
		return refuse(CodeFile, "remove it, or say that it may be there unsigned", "%s is not signed", f.Name)
	}
	return nil
}
