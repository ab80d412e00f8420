package telemetry

import (
	"context"
	"crypto/ecdsa"
	"errors"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// unsettled is an error of ours, not of what the device has sent.
type unsettled struct{ err error }

func (u *unsettled) Error() string { return u.err.Error() }
func (u *unsettled) Unwrap() error { return u.err }

// signed opens something with the device's key or, while it renews, with its next
// one, which becomes the device's own by that: what the one before has signed is
// refused from then on.
func (i *Ingest) signed(ctx context.Context, d *fleet.Device, open func(*ecdsa.PublicKey) error) error {
	key, err := publicKey(d.PublicKey)
	if err != nil {
		return &unsettled{err}
	}
	err = open(key)
	if !errors.Is(err, wire.ErrSignature) || !d.Renewal.Issued() || i.Came == nil {
		return err
	}
	next, nextErr := publicKey(d.Renewal.PublicKey)
	if nextErr != nil || open(next) != nil || d.Status != fleet.DeviceActive {
		return err
	}
	if err := i.Came(ctx, d.ID, d.Renewal.PublicKey); err != nil {
		return &unsettled{err}
	}
	d.PublicKey, d.Renewal = d.Renewal.PublicKey, nil
	return nil
}
