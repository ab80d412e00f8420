package modelsig

import (
	"encoding/json"
	"fmt"
	"strings"
)

const (
	bundleType  = "application/vnd.dev.sigstore.bundle"
	bundleV03   = bundleType + ".v0.3+json"
	payloadType = "application/vnd.in-toto+json"
)

// envelope is what is read of a Sigstore bundle.
type envelope struct {
	MediaType string   `json:"mediaType"`
	Material  material `json:"verificationMaterial"`
	DSSE      *dsse    `json:"dsseEnvelope"`
}

// material says how to verify; exactly one of the first three is there.
type material struct {
	PublicKey   *publicKey      `json:"publicKey,omitempty"`
	Chain       *chain          `json:"x509CertificateChain,omitempty"`
	Certificate json.RawMessage `json:"certificate,omitempty"`
	Log         json.RawMessage `json:"tlogEntries,omitempty"`
}

type publicKey struct {
	Hint     string `json:"hint,omitempty"`     // hex SHA-256 of the PEM
	RawBytes []byte `json:"rawBytes,omitempty"` // older tools write the key itself
}

type chain struct {
	Certificates []certificate `json:"certificates"`
}

type certificate struct {
	RawBytes []byte `json:"rawBytes"` // DER
}

type dsse struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid"` // never looked at
}

func parseEnvelope(raw []byte) (*envelope, error) {
	if len(raw) > MaxSize {
		return nil, errMalformed("it has %d bytes, at most %d are read", len(raw), MaxSize)
	}
	e := &envelope{}
	if err := decode(raw, e); err != nil {
		return nil, errMalformed("%v", err)
	}
	if !strings.HasPrefix(e.MediaType, bundleType) {
		return nil, errMalformed("its media type is %q", e.MediaType)
	}
	if e.DSSE == nil || e.DSSE.PayloadType != payloadType {
		return nil, errMalformed("it carries no in-toto statement")
	}
	if n := len(e.DSSE.Signatures); n != 1 {
		return nil, errMalformed("it has %d signatures, not one", n)
	}
	if e.method() == "" {
		return nil, errMalformed("it does not say by which one method it was made")
	}
	return e, nil
}

// method is "" if none or several are there.
func (e *envelope) method() string {
	m := &e.Material
	key, cert, sigstore := m.PublicKey != nil, m.Chain != nil, len(m.Certificate) > 0 && string(m.Certificate) != "null"
	switch {
	case key && !cert && !sigstore:
		return MethodKey
	case cert && !key && !sigstore:
		return MethodCertificate
	case sigstore && !key && !cert:
		return MethodSigstore
	}
	return ""
}

// signed is the text that the signature is over.
func (d *dsse) signed() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(d.PayloadType), d.PayloadType, len(d.Payload), d.Payload)
}
