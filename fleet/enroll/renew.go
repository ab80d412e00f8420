package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Renewals is what renewing needs kept.
type Renewals interface {
	// Certificate returns a device's current certificate in PEM.
	Certificate(ctx context.Context, device string) ([]byte, error)
	// PutRenewal stores r beside the device's current key; ErrRenewRefused when that
	// is another one by now, ErrDeviceRevoked.
	PutRenewal(ctx context.Context, device string, current []byte, r *fleet.Renewal, a fleet.Audit) error
	// Promote makes the next key the device's own in one transaction; changed is
	// false when it was already. Any other key is ErrDeviceRevoked.
	Promote(ctx context.Context, device string, key []byte, a fleet.Audit) (changed bool, err error)
}

// keyPause is the least time between two next keys of one device: each costs a
// signature and a row of the audit.
const keyPause = time.Minute

// Renew gives a device the certificate of its next key, when its current and its
// next key have signed the request. Asked again it gives the same one, so an answer
// that was lost costs nothing; the current certificate is good until the device
// comes with the next. An expired certificate renews as well, after RenewLate only
// when an operator has accepted it: until then ErrRenewPending is returned.
func (s *Service) Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewReply, error) {
	d, next, err := s.renewing(ctx, r)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	have := d.Renewal
	same := have != nil && bytes.Equal(have.PublicKey, r.PublicKey)
	switch {
	case same && have.Issued() && now.Before(have.Expires.Add(-s.life()/3)):
		return &wire.RenewReply{Device: d.ID, Certificate: have.Certificate}, nil
	case have != nil && !same && now.Before(have.Asked.Add(keyPause)):
		return nil, fleet.ErrBusy.With("another key was shown for %s a moment ago", d.ID)
	}
	late, err := s.late(ctx, d, now)
	if err != nil {
		return nil, err
	}
	if late {
		return s.waits(ctx, d, r, now)
	}
	put := &fleet.Renewal{PublicKey: r.PublicKey, Asked: now}
	if err := s.certify(ctx, put, d.ID, next, now); err != nil {
		return nil, err
	}
	a := s.audit("device:"+d.ID, "device.renew", d.ID, "certificate "+put.Serial)
	if err := s.Store.PutRenewal(ctx, d.ID, d.PublicKey, put, a); err != nil {
		return nil, err
	}
	return &wire.RenewReply{Device: d.ID, Certificate: put.Certificate}, nil
}

// waits answers a renewal that an operator has to accept first. A next certificate
// that was issued before goes on being good until its end: its key gets it again, and
// no other key takes its place.
func (s *Service) waits(ctx context.Context, d *fleet.Device, r *wire.RenewRequest, now time.Time) (*wire.RenewReply, error) {
	have := d.Renewal
	same := have != nil && bytes.Equal(have.PublicKey, r.PublicKey)
	if have.Issued() && now.Before(have.Expires) {
		if same {
			return &wire.RenewReply{Device: d.ID, Certificate: have.Certificate}, nil
		}
		return nil, fleet.ErrRenewPending.With("the key %s of %s has a certificate until %s; another key waits until then, or comes with `dunlin device replace`",
			fleet.Fingerprint(have.PublicKey), d.ID, have.Expires.UTC().Format(time.DateOnly))
	}
	if !same || have.Issued() {
		a := s.audit("device:"+d.ID, "device.renew_wait", d.ID, "key "+fleet.Fingerprint(r.PublicKey))
		if err := s.Store.PutRenewal(ctx, d.ID, d.PublicKey, &fleet.Renewal{PublicKey: r.PublicKey, Asked: now}, a); err != nil {
			return nil, err
		}
	}
	return nil, fleet.ErrRenewPending.With("the certificate of %s expired more than %d days ago: an operator has to accept the renewal", d.ID, fleet.RenewLate/(24*time.Hour))
}

// renewing finds the device that has signed the request, and its next key. Nothing
// is told to somebody who is not that device.
func (s *Service) renewing(ctx context.Context, r *wire.RenewRequest) (*fleet.Device, *ecdsa.PublicKey, error) {
	if err := r.Check(); err != nil {
		return nil, nil, fleet.ErrBadRequest.With("renewal: %v", err)
	}
	next, err := parseKey(r.PublicKey)
	if err != nil {
		return nil, nil, fleet.ErrBadRequest.With("renewal: %v", err)
	}
	proof := sha256.Sum256(wire.RenewProof(r.Device, r.Certificate, r.PublicKey))
	if !ecdsa.VerifyASN1(next, proof[:], r.New) {
		return nil, nil, fleet.ErrBadRequest.With("renewal: the request is not signed with the key that it names")
	}
	d, err := s.Store.Device(ctx, r.Device)
	if errors.Is(err, fleet.ErrDeviceUnknown) {
		return nil, nil, fleet.ErrRenewRefused
	}
	if err != nil {
		return nil, nil, err
	}
	current, err := parseKey(d.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("key of %s: %w", d.ID, err)
	}
	switch {
	case !ecdsa.VerifyASN1(current, proof[:], r.Old):
		s.former(ctx, d, proof[:], r)
		return nil, nil, fleet.ErrRenewRefused
	case d.Status != fleet.DeviceActive:
		return nil, nil, fleet.ErrDeviceRevoked
	case bytes.Equal(r.PublicKey, d.PublicKey):
		return nil, nil, fleet.ErrBadRequest.With("renewal: a new key wanted")
	}
	return d, next, nil
}

// former looks whether it is a key that the device has renewed which asks. The device
// itself never does that for another key than the one that it came with since: that
// is a request which was long under way. A copy of it does.
func (s *Service) former(ctx context.Context, d *fleet.Device, proof []byte, r *wire.RenewRequest) {
	if s.Copied == nil || d.Status != fleet.DeviceActive || bytes.Equal(r.PublicKey, d.PublicKey) {
		return
	}
	fs, err := s.Store.Formers(ctx, d.ID)
	if err != nil {
		return // the request is refused in any case
	}
	for _, f := range fs[:min(len(fs), maxFormers)] {
		key, err := parseKey(f.PublicKey)
		if err == nil && f.How == fleet.EndedRenewed && ecdsa.VerifyASN1(key, proof, r.Old) {
			s.Copied(ctx, d.ID, "the key "+fleet.Fingerprint(f.PublicKey)+", which the device has renewed, asks for a certificate")
			return
		}
	}
}

// maxFormers bounds what one request that is refused costs.
const maxFormers = 8

// late tells whether the device's certificate expired so long ago that an operator is
// to look. The request may name another one: where the answer to a renewal was lost
// and it was asked for again, the server holds a later certificate of the same key
// than the device. What proves the device is the key.
func (s *Service) late(ctx context.Context, d *fleet.Device, now time.Time) (bool, error) {
	text, err := s.Store.Certificate(ctx, d.ID)
	if err != nil {
		return false, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false, fmt.Errorf("certificate of %s: no PEM block", d.ID)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, fmt.Errorf("certificate of %s: %w", d.ID, err)
	}
	return now.After(c.NotAfter.Add(fleet.RenewLate)), nil
}

// certify issues the certificate of a renewal, by a CA that the device knows.
func (s *Service) certify(ctx context.Context, r *fleet.Renewal, device string, key *ecdsa.PublicKey, now time.Time) error {
	ca, err := s.known(ctx, device)
	if err != nil {
		return err
	}
	r.Certificate, r.Serial, err = ca.deviceFor(s.life(), device, key, now)
	r.Expires = now.Add(s.life())
	return err
}

// Accept lets through what waits for an operator: the enrolment of a pending device,
// or the renewal of a certificate that expired long ago. The device gets its
// certificate when it asks the next time. ErrNothingWaits is returned where nothing
// does, for a renewal also with another fingerprint than that of the key that waits;
// an empty one is any. For an enrolment it has to be told, else ErrFingerprint.
func (s *Service) Accept(ctx context.Context, device, fingerprint, actor string) error {
	d, err := s.Store.Device(ctx, device)
	if err != nil {
		return err
	}
	switch {
	case d.Status == fleet.DevicePending:
		return s.acceptDevice(ctx, d, fingerprint, actor)
	case d.Status != fleet.DeviceActive:
		return fleet.ErrDeviceRevoked
	case !d.Renewal.Waits():
		return fleet.ErrNothingWaits
	case fingerprint != "" && fingerprint != fleet.Fingerprint(d.Renewal.PublicKey):
		return fleet.ErrNothingWaits.With("the key that waits has the fingerprint %s", fleet.Fingerprint(d.Renewal.PublicKey))
	}
	key, err := parseKey(d.Renewal.PublicKey)
	if err != nil {
		return fmt.Errorf("next key of %s: %w", device, err)
	}
	now := s.Now()
	r := &fleet.Renewal{PublicKey: d.Renewal.PublicKey, Asked: d.Renewal.Asked}
	if err := s.certify(ctx, r, device, key, now); err != nil {
		return err
	}
	return s.Store.PutRenewal(ctx, device, d.PublicKey, r, s.audit(actor, "device.accept", device, "renewal, key "+fleet.Fingerprint(r.PublicKey)))
}

// Came takes in that a device has proven to hold this key. The first time it is the
// next one, that becomes the device's own and the one before is refused from then
// on; replaced tells so, and the sessions that it began are to end.
func (s *Service) Came(ctx context.Context, device string, spki []byte) (replaced bool, err error) {
	d, err := s.Store.Device(ctx, device)
	if err != nil || d.Status == fleet.DeviceActive && bytes.Equal(d.PublicKey, spki) {
		return false, err
	}
	return s.Store.Promote(ctx, device, spki, s.audit("device:"+device, "device.renewed", device, "key "+fleet.Fingerprint(spki)))
}

func (s *Service) audit(actor, act, object, detail string) fleet.Audit {
	now := s.Now()
	return fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: act, Object: object, Detail: detail}
}
