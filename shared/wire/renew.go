package wire

import (
	"errors"
	"slices"
)

// RenewRequest is the JSON body of POST /v1/renew: a device asks for a certificate
// of its next key. Sent again with the same next key it gets the same answer, so it
// carries nothing that is good once only.
type RenewRequest struct {
	Device      string `json:"device"`
	Certificate []byte `json:"certificate"` // SHA-256 of the DER of the one that the device replaces; the key proves it, not this
	PublicKey   []byte `json:"public_key"`  // SPKI DER of the next key, ECDSA P-256
	Old         []byte `json:"old"`         // ASN.1 ECDSA over SHA-256 of RenewProof, by the device's key
	New         []byte `json:"new"`         // the same, by the next key
}

// Check refuses fields of another form than they must have.
func (r *RenewRequest) Check() error {
	switch {
	case !ValidDevice(r.Device):
		return errors.New("device: 1 to 64 of a-z, 0-9 and - wanted")
	case len(r.Certificate) != 32:
		return errors.New("certificate: a SHA-256 wanted")
	case len(r.PublicKey) == 0 || len(r.PublicKey) > 512 || len(r.Old) > 256 || len(r.New) > 256:
		return errors.New("a public key of at most 512 and signatures of at most 256 bytes wanted")
	}
	return nil
}

// RenewProof is what both keys sign: the device's to say who it will be, the next
// one to prove that it is held.
func RenewProof(device string, certificate, publicKey []byte) []byte {
	return slices.Concat([]byte("dunlin renew v1\x00"+device+"\x00"), certificate, publicKey)
}

// RenewReply is the JSON answer. Both certificates are good until the device comes
// with the new one; from then on the old one is refused.
type RenewReply struct {
	Device      string `json:"device"`
	Certificate []byte `json:"certificate"` // PEM
}
