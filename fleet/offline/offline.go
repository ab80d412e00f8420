// Package offline is what people sign with keys that no server has: metadata files of
// TUF, the keys, and the files that both travel in.
package offline

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// MaxPaper bounds what is read of a metadata file, in bytes.
const MaxPaper = 5_000_000

// Paper is a metadata file that people sign: a root or targets.
type Paper interface {
	ToBytes(pretty bool) ([]byte, error)
	Sign(signature.Signer) (*metadata.Signature, error)
	ClearSignatures()
}

// Parse reads a metadata file that somebody sent or that lay on a stick: bounded,
// strict, and never with a panic of the parser.
func Parse[T metadata.Roles](name string, b []byte) (md *metadata.Metadata[T], err error) {
	wrong := func(why any) error {
		return refuse("metadata.malformed", "take the file as it was made", "%s is not understood: %v", name, why)
	}
	defer func() {
		if r := recover(); r != nil {
			md, err = nil, wrong(r)
		}
	}()
	if len(b) > MaxPaper {
		return nil, wrong(fmt.Sprintf("more than %d bytes", MaxPaper))
	}
	if err := bundle.StrictJSON(b); err != nil {
		return nil, wrong(err)
	}
	md = &metadata.Metadata[T]{}
	if _, err := md.FromBytes(b); err != nil {
		return nil, wrong(err)
	}
	return md, nil
}

// ParseLike reads a file of the type that another has.
func ParseLike(like Paper, name string, b []byte) (Paper, error) {
	if _, ok := like.(*metadata.Metadata[metadata.RootType]); ok {
		return Parse[metadata.RootType](name, b)
	}
	return Parse[metadata.TargetsType](name, b)
}

// Signatures are those of a paper, to be changed in place.
func Signatures(p Paper) *[]metadata.Signature {
	if root, ok := p.(*metadata.Metadata[metadata.RootType]); ok {
		return &root.Signatures
	}
	return &p.(*metadata.Metadata[metadata.TargetsType]).Signatures
}

// SameText compares two papers without their signatures.
func SameText(a, b Paper) (bool, error) {
	x, err := unsigned(a)
	if err != nil {
		return false, err
	}
	y, err := unsigned(b)
	return bytes.Equal(x, y), err
}

func unsigned(p Paper) ([]byte, error) {
	kept := Signatures(p)
	list := *kept
	defer func() { *kept = list }()
	*kept = []metadata.Signature{}
	return p.ToBytes(false)
}

// SignedBy tells whether a paper bears a valid signature of one key.
func SignedBy(p Paper, key *metadata.Key, id string) bool {
	const anyRole = "paper"
	only := metadata.Targets()
	only.Signed.Delegations = &metadata.Delegations{
		Keys:  map[string]*metadata.Key{id: key},
		Roles: []metadata.DelegatedRole{{Name: anyRole, KeyIDs: []string{id}, Threshold: 1}},
	}
	return only.VerifyDelegate(anyRole, p) == nil
}

// SignPaper adds the key's signature in place of an older one of the same key.
func SignPaper(p Paper, k *Key) error {
	list := Signatures(p)
	*list = slices.DeleteFunc(*list, func(s metadata.Signature) bool { return s.KeyID == k.ID })
	s := &noted{Signer: k.signer}
	_, err := p.Sign(s)
	if s.err != nil {
		return s.err
	}
	return err
}

// noted keeps the error of a signer, which go-tuf does not pass on.
type noted struct {
	signature.Signer
	err error
}

// SignMessage implements signature.Signer.
func (n *noted) SignMessage(m io.Reader, o ...signature.SignOption) (sig []byte, err error) {
	sig, err = n.Signer.SignMessage(m, o...)
	n.err = err
	return sig, err
}
