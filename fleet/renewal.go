package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// RenewLate is how long after its expiry a certificate is renewed without an
// operator.
const RenewLate = 30 * 24 * time.Hour

// Renewal is the key that a device has shown for its next certificate.
type Renewal struct {
	PublicKey   []byte // SPKI DER, ECDSA P-256
	Serial      string // of its certificate, hex; empty: waits for an operator
	Certificate []byte // PEM; empty: waits
	Expires     time.Time
	Asked       time.Time
}

// Issued tells whether the device may come with the next key.
func (r *Renewal) Issued() bool { return r != nil && r.Serial != "" }

// Waits tells whether an operator has to accept it.
func (r *Renewal) Waits() bool { return r != nil && r.Serial == "" }

// Keys are the SPKIs that the device is known by: the current one, then the next.
func (d *Device) Keys() [][]byte {
	if d.Renewal.Issued() {
		return [][]byte{d.PublicKey, d.Renewal.PublicKey}
	}
	return [][]byte{d.PublicKey}
}

// Fingerprint names a public key for people: SHA-256 of its SPKI, hex.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
