package wire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Address is one way to a server.
type Address struct {
	Server string `cbor:"1,keyasint" json:"server"` // https://host:port
	MQTT   string `cbor:"2,keyasint" json:"mqtt"`   // host:port
}

// SignpostType is the payload type of a signed Signpost.
const SignpostType = "application/vnd.dunlin.signpost.v1+cbor"

// Bounds of a Signpost.
const (
	MaxCAs       = 4
	MaxAddresses = 4
	maxCA        = 4096
	maxAddress   = 300
	signpostMark = 8
)

// Signpost tells one device where its server is and by which CAs it is known. It is
// the payload of an Envelope that a CA has signed which the device trusts already:
// whoever holds the server's other keys cannot lead a device elsewhere.
type Signpost struct {
	Device    string    `cbor:"1,keyasint"`
	Number    int64     `cbor:"2,keyasint"` // rises with every signpost of the device
	CAs       [][]byte  `cbor:"3,keyasint"` // DER; the first issues, all are trusted
	Addresses []Address `cbor:"4,keyasint"` // in the order to be tried
}

// Check bounds the lists; whether a CA is one, its reader finds out.
func (s *Signpost) Check() error {
	switch {
	case !ValidDevice(s.Device) || s.Number < 1:
		return errors.New("signpost: a device id and a number from 1 wanted")
	case len(s.CAs) == 0 || len(s.CAs) > MaxCAs:
		return fmt.Errorf("signpost: 1 to %d CAs wanted", MaxCAs)
	case len(s.Addresses) == 0 || len(s.Addresses) > MaxAddresses:
		return fmt.Errorf("signpost: 1 to %d addresses wanted", MaxAddresses)
	}
	for _, c := range s.CAs {
		if len(c) == 0 || len(c) > maxCA {
			return fmt.Errorf("signpost: a CA of at most %d bytes wanted", maxCA)
		}
	}
	for _, a := range s.Addresses {
		if err := a.Check(); err != nil {
			return fmt.Errorf("signpost: %w", err)
		}
	}
	return nil
}

// Check wants an address that can be dialled.
func (a Address) Check() error {
	host, ok := strings.CutPrefix(a.Server, "https://")
	if !ok || len(a.Server) > maxAddress || len(a.MQTT) > maxAddress {
		return errors.New("https://host:port and host:port wanted")
	}
	for _, s := range []string{host, a.MQTT} {
		if h, p, err := net.SplitHostPort(s); err != nil || h == "" || p == "" {
			return fmt.Errorf("%q is not host:port", s)
		}
	}
	return nil
}

// SignSignpost signs with the key of a CA that the device trusts.
func SignSignpost(ca crypto.Signer, s *Signpost) (*Envelope, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return Sign(ca, SignpostType, s)
}

// OpenSignpost verifies a signpost by any of these CAs' keys.
func (e *Envelope) OpenSignpost(keys []*ecdsa.PublicKey) (*Signpost, error) {
	err := fmt.Errorf("open %s: %w", SignpostType, ErrSignature)
	for _, k := range keys {
		s := &Signpost{}
		if err = e.Open(k, SignpostType, s); err == nil {
			return s, nil
		}
		if !errors.Is(err, ErrSignature) {
			return nil, err
		}
	}
	return nil, err
}

// Mark is the beginning of the payload's SHA-256: with the number it says which
// signpost a device holds.
func Mark(payload []byte) []byte {
	sum := sha256.Sum256(payload)
	return sum[:signpostMark]
}

// SignpostHeld is what a device says of the signpost that it holds. A device that
// has none says so with the number 0; one that says nothing takes none.
type SignpostHeld struct {
	Number  int64  `cbor:"1,keyasint,omitempty"`
	Mark    []byte `cbor:"2,keyasint,omitempty"`
	Using   string `cbor:"3,keyasint,omitempty"` // MQTT address of this session; empty: the first
	Trouble string `cbor:"4,keyasint,omitempty"` // why it is not the first, at most 256 bytes
}

// MaxTrouble bounds SignpostHeld.Trouble in bytes.
const MaxTrouble = 256

// Check bounds what is kept.
func (h *SignpostHeld) Check() error {
	if h.Number < 0 || len(h.Mark) > signpostMark || len(h.Using) > maxAddress || len(h.Trouble) > MaxTrouble {
		return errors.New("signpost held: a number, a mark of 8, an address of at most 300 and a text of at most 256 bytes wanted")
	}
	return nil
}
