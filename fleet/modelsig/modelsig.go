// Package modelsig makes and verifies OpenSSF Model Signing signatures (version
// 1.0): a model.sig is a Sigstore bundle around a DSSE envelope around an in-toto
// statement that names every file of a model by its SHA-256.
//
// Verify judges who signed and returns the statement; Statement.Match then judges
// the files. The methods key (P-256, P-384, P-521), certificate and sigstore are
// understood, all without network. Not supported, and refused by name, are hashes
// other than SHA-256, shards, and predicates older than version 1.0. Nothing here
// decides what a device loads: that is TUF's, and a model.sig comes on top of it.
package modelsig

import (
	"time"
)

// Name is the usual name of a signature beside what it signs.
const Name = "model.sig"

// MaxSize bounds a signature, in bytes; about 20,000 files fit.
const MaxSize = 4 << 20

// Methods of signing, as the specification names them.
const (
	MethodKey         = "key"
	MethodCertificate = "certificate"
	MethodSigstore    = "sigstore"
)

// Verify judges a signature's form, its signer against the policy at a time, and
// the signature itself. The statement that it returns speaks of files that were
// not looked at yet: see Match. Errors are *fleet.Error with codes modelsig.*.
func Verify(raw []byte, p *Policy, now time.Time) (*Statement, error) {
	e, err := parseEnvelope(raw)
	if err != nil {
		return nil, err
	}
	if e.method() != p.method() {
		return nil, errIdentity("the signature was made by method %s, wanted is %s", e.method(), p.method())
	}
	var signer string
	switch p.method() {
	case MethodKey:
		signer, err = e.verifyKey(p.Key)
	case MethodCertificate:
		signer, err = e.verifyCertificate(p.Roots, now)
	default:
		signer, err = e.verifySigstore(raw, p.Identity)
	}
	if err != nil {
		return nil, err
	}
	s, err := parseStatement(e.DSSE.Payload)
	if err != nil {
		return nil, err
	}
	s.Method, s.Signer = p.method(), signer
	return s, nil
}
