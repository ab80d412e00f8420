package modelsig

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Identity is who must have signed where the signer has no key of its own: a
// certificate authority vouched for it at the time, and a log shows when.
type Identity struct {
	Subject string // as the certificate says it, like an e-mail address or the URL of a workflow
	Issuer  string // of the identity, like https://accounts.google.com
	trusted *root.TrustedRoot
}

// NewIdentity takes the trusted root (trusted_root.json) that names the
// authorities and logs to be believed.
func NewIdentity(subject, issuer string, trustedRoot []byte) (*Identity, error) {
	if subject == "" || issuer == "" {
		return nil, errPolicy("an identity has a subject and an issuer")
	}
	trusted, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, errPolicy("the trusted root: %v", err)
	}
	return &Identity{subject, issuer, trusted}, nil
}

// verifySigstore wants the certificate's identity, its chain at the time that a
// log or a time authority tells, an entry in a log that vouches for signature and
// statement and, where the trusted root knows certificate logs, a promise of one.
func (e *envelope) verifySigstore(raw []byte, id *Identity) (string, error) {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(raw); err != nil {
		return "", errMalformed("%v", err)
	}
	if !bytes.Equal(b.GetDsseEnvelope().GetPayload(), e.DSSE.Payload) {
		return "", errMalformed("it can be read in two ways")
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(id.trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(id.trusted, options...)
	if err != nil {
		return "", err
	}
	want, err := verify.NewShortCertificateIdentity(id.Issuer, "", id.Subject, "")
	if err != nil {
		return "", errPolicy("%v", err)
	}
	_, err = v.Verify(b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithCertificateIdentity(want)))
	var other *verify.ErrNoMatchingCertificateIdentity
	if errors.As(err, &other) {
		return "", errIdentity("wanted is %s of %s: %v", id.Subject, id.Issuer, err)
	}
	if err != nil {
		return "", errSignature("%v", err)
	}
	return fmt.Sprintf("%s of %s", id.Subject, id.Issuer), nil
}
