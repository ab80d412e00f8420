package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// EnrolToken is what an operator hands to a device: where the server is, a secret
// to be used once or a number of times, and the fingerprints of everything that
// the device will trust, so that nothing is trusted on first use.
type EnrolToken struct {
	Server       string `cbor:"1,keyasint"` // "https://host:8443"
	ID           string `cbor:"2,keyasint"` // tok_…
	Secret       []byte `cbor:"3,keyasint"` // 32 bytes
	CA           []byte `cbor:"4,keyasint"` // SHA-256 of the CA certificate's DER
	CatalogRoot  []byte `cbor:"5,keyasint"` // SHA-256 of the catalog's 1.root.json
	DirectorRoot []byte `cbor:"6,keyasint"` // SHA-256 of the director's 1.root.json
	Channel      string `cbor:"7,keyasint"`
}

const (
	tokenPrefix = "dunlin1."
	maxToken    = 2048
)

// String is the text that people carry: "dunlin1." and unpadded base64url.
func (t *EnrolToken) String() string {
	b, err := Encode(t)
	if err != nil {
		return "" // a struct of strings and bytes always encodes
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseEnrolToken reads the text of a token and checks every length.
func ParseEnrolToken(s string) (*EnrolToken, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok || len(s) > maxToken {
		return nil, fmt.Errorf("enrolment token: text that begins with %q wanted: %w", tokenPrefix, ErrMalformed)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("enrolment token: a part is missing or changed: %w", ErrMalformed)
	}
	var t EnrolToken
	if err := Decode(b, &t); err != nil {
		return nil, fmt.Errorf("enrolment token: %w", err)
	}
	return &t, nil
}

// Check refuses fields of another length than they must have.
func (t *EnrolToken) Check() error {
	if !strings.HasPrefix(t.Server, "https://") || t.ID == "" || t.Channel == "" {
		return errors.New("server, id and channel wanted")
	}
	for _, b := range [][]byte{t.Secret, t.CA, t.CatalogRoot, t.DirectorRoot} {
		if len(b) != 32 {
			return errors.New("32 bytes wanted for secret and fingerprints")
		}
	}
	return nil
}

// EnrolRequest is the JSON body of POST /v1/enrol.
type EnrolRequest struct {
	Token     string            `json:"token"`            // id
	Secret    []byte            `json:"secret"`           // 32 bytes
	Device    string            `json:"device,omitempty"` // wished id; empty: the server derives one from the key
	PublicKey []byte            `json:"public_key"`       // SPKI DER, ECDSA P-256
	Signature []byte            `json:"signature"`        // ASN.1 ECDSA over SHA-256 of EnrolProof
	Facts     map[string]string `json:"facts,omitempty"`  // see CheckFacts
	CA        []byte            `json:"ca,omitempty"`     // fingerprint that the token names; empty: any
}

// EnrolProof is what a device signs to prove that it holds the key.
func EnrolProof(token string, publicKey []byte) []byte {
	return append([]byte("dunlin enrol v1\x00"+token+"\x00"), publicKey...)
}

// EnrolReply is the JSON answer. Asked again with the same key before the token
// expires, it carries the same certificate.
type EnrolReply struct {
	Device        string   `json:"device"`
	Channel       string   `json:"channel"`
	Certificate   []byte   `json:"certificate"`   // PEM
	CA            []byte   `json:"ca"`            // PEM
	MQTT          string   `json:"mqtt"`          // host:port
	CatalogRoots  [][]byte `json:"catalog_roots"` // 1.root.json and every later one
	DirectorRoots [][]byte `json:"director_roots"`
}
