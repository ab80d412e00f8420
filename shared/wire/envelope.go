package wire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ReportType is the payload type of a signed Report.
const ReportType = "application/vnd.dunlin.report.v1+cbor"

// Envelope is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol.md)
// with one signature: ECDSA P-256 over SHA-256 of the pre-authentication
// encoding, ASN.1.
type Envelope struct {
	Type      string `cbor:"1,keyasint"`
	Payload   []byte `cbor:"2,keyasint"`
	Signature []byte `cbor:"3,keyasint"`
}

// ErrSignature is returned for an envelope that the key did not sign.
var ErrSignature = errors.New("signature does not match")

func preAuth(typ string, payload []byte) [sha256.Size]byte {
	h := sha256.New()
	io.WriteString(h, "DSSEv1 "+strconv.Itoa(len(typ))+" "+typ+" "+strconv.Itoa(len(payload))+" ")
	h.Write(payload)
	return [sha256.Size]byte(h.Sum(nil))
}

// Sign encodes msg and signs it with an ECDSA P-256 key.
func Sign(key crypto.Signer, typ string, msg any) (*Envelope, error) {
	payload, err := Encode(msg)
	if err != nil {
		return nil, err
	}
	sum := preAuth(typ, payload)
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	return &Envelope{Type: typ, Payload: payload, Signature: sig}, nil
}

// Open verifies the envelope and decodes its payload into out.
func (e *Envelope) Open(key *ecdsa.PublicKey, typ string, out any) error {
	if err := e.verify(key, typ); err != nil {
		return err
	}
	return Decode(e.Payload, out)
}

func (e *Envelope) verify(key *ecdsa.PublicKey, typ string) error {
	sum := preAuth(e.Type, e.Payload)
	if e.Type != typ || !ecdsa.VerifyASN1(key, sum[:], e.Signature) {
		return fmt.Errorf("open %s: %w", typ, ErrSignature)
	}
	return nil
}
