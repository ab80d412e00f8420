package enroll

import (
	"context"
	"errors"
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Identities is what operators' acts on identities need kept.
type Identities interface {
	// EnrolledWith returns the token that the device's present key came with last;
	// ErrTokenUnknown when that was deleted.
	EnrolledWith(ctx context.Context, device string) (*fleet.EnrolToken, error)
	// AcceptDevice lets in the key of a pending device; ErrNothingWaits when that is
	// another one by now.
	AcceptDevice(ctx context.Context, d *fleet.Device, cert []byte, a fleet.Audit) error
	// RejectDevice forgets a pending device and refuses its key from then on.
	RejectDevice(ctx context.Context, id string, a fleet.Audit) error
	// RefusedSerial writes a refusal, not more often than once a minute.
	RefusedSerial(ctx context.Context, token, serial string, a fleet.Audit) error
	// Formers lists the keys that a device was known by.
	Formers(ctx context.Context, device string) ([]fleet.Former, error)
}

// complete checks what a token is asked for, and fills in what a replacement takes
// over from its device.
func (s *Service) complete(ctx context.Context, r *fleet.TokenRequest) error {
	if err := fleet.CheckSerials(r.Serials); err != nil {
		return err
	}
	if n := len(r.Serials); n > 0 && r.Max > n {
		r.Max = n
	}
	if r.Replaces == "" {
		return nil
	}
	d, err := s.Store.Device(ctx, r.Replaces)
	switch {
	case err != nil:
		return err
	case d.Status == fleet.DevicePending:
		return fleet.ErrDevicePending.With("%s waits for an operator: there is nothing to take over", d.ID)
	case r.Hold:
		return fleet.ErrBadRequest.With("a token that replaces a device does not hold: it is for one device already")
	}
	r.Channel, r.Labels, r.Max = d.Channel, nil, 1
	return nil
}

// againWith is the way of a device whose token is of no use any more.
const againWith = "make another with 'dunlin device token --hold', and enrol with it again on the device: its key and its name stay"

// acceptDevice lets a pending device in. Its fingerprint has to be told: it is all
// that says whose key waits.
func (s *Service) acceptDevice(ctx context.Context, d *fleet.Device, fingerprint, actor string) error {
	if fingerprint == "" {
		return fleet.ErrFingerprint.With("the fingerprint of the key that waits for the name %s has to be told", d.ID)
	}
	if fingerprint != fleet.Fingerprint(d.PublicKey) {
		return fleet.ErrFingerprint.With("the key that waits for the name %s has the fingerprint %s", d.ID, fleet.Fingerprint(d.PublicKey))
	}
	t, err := s.Store.EnrolledWith(ctx, d.ID)
	if errors.Is(err, fleet.ErrTokenUnknown) {
		gone := fleet.ErrTokenUnknown.With("the token that %s came with was deleted", d.ID)
		gone.Next, gone.Status = againWith, 409
		return gone
	}
	if err != nil {
		return err
	}
	ca := s.Standing().by(t.CA)
	if ca == nil {
		gone := fleet.ErrTokenCA.With("the token that %s came with names a CA that has been retired", d.ID)
		gone.Next, gone.Status = againWith, 409
		return gone
	}
	key, err := parseKey(d.PublicKey)
	if err != nil {
		return fmt.Errorf("key of %s: %w", d.ID, err)
	}
	now := s.Now()
	cert, serial, err := ca.deviceFor(s.life(), d.ID, key, now)
	if err != nil {
		return err
	}
	d.Serial, d.Expires = serial, now.Add(s.life())
	return s.Store.AcceptDevice(ctx, d, cert, s.audit(actor, "device.accept", d.ID, "enrolment, key "+fingerprint))
}

// Reject refuses the key of a pending device for good; its name is free again.
func (s *Service) Reject(ctx context.Context, device, actor string) error {
	return s.Store.RejectDevice(ctx, device, s.audit(actor, "device.reject", device, ""))
}
