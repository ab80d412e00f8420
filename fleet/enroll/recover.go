package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Recover takes in that a device has proven to hold the key of a certificate that a
// restore of the server has forgotten, because the device renewed after the backup.
// It is believed once, see forgotten; any other certificate changes nothing.
func (s *Service) Recover(ctx context.Context, c *x509.Certificate) (recovered bool, err error) {
	d, err := s.Store.Device(ctx, c.Subject.CommonName)
	if err != nil || d.Status != fleet.DeviceActive || holds(d, c) {
		return false, err
	}
	known, err := s.forgotten(ctx, d, c)
	if err != nil || known == nil {
		return false, err
	}
	r := &fleet.Renewal{PublicKey: c.RawSubjectPublicKeyInfo, Serial: c.SerialNumber.Text(16), Certificate: certPEM(c.Raw), Expires: c.NotAfter}
	a := s.audit("device:"+d.ID, "device.recovered", d.ID, "key "+fleet.Fingerprint(r.PublicKey)+", renewed after the backup that this server was restored from")
	return true, s.Store.Recovered(ctx, d.ID, known, r, a)
}

func holds(d *fleet.Device, c *x509.Certificate) bool {
	return slices.ContainsFunc(d.Keys(), func(k []byte) bool { return bytes.Equal(k, c.RawSubjectPublicKeyInfo) })
}

// forgotten tells whether an unknown key may be the device's own: one of our CAs has
// issued its certificate, later than the one that is known, and the device was not
// heard of since the restore. It returns the certificate that is known, nil: it may
// not.
func (s *Service) forgotten(ctx context.Context, d *fleet.Device, c *x509.Certificate) ([]byte, error) {
	open, err := s.Store.Withheld(ctx, d.ID)
	if err != nil || !open || s.Standing().Of(c) == nil {
		return nil, err
	}
	text, err := s.Store.Certificate(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("certificate of %s: no PEM block", d.ID)
	}
	known, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", d.ID, err)
	}
	if !c.NotBefore.After(known.NotBefore) {
		return nil, nil
	}
	return text, nil
}
