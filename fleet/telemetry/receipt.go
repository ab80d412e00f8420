package telemetry

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Receipt takes in what a device sent home in a lockbox: the same records as in a
// session, through the same checks, signed by the device as a whole. Taking it in
// again changes nothing. ErrReceipt is returned for one that no device of this
// fleet signed, ErrDeviceRevoked for one of a device that may not say anything.
func (i *Ingest) Receipt(ctx context.Context, b []byte) (*fleet.LockboxReceipt, error) {
	d, r, err := i.openReceipt(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := i.greet(ctx, d, r); err != nil {
		return nil, fmt.Errorf("receipt of %s: %w", d.ID, err)
	}
	out := &fleet.LockboxReceipt{Device: d.ID, Lockbox: r.Lockbox}
	count := map[wire.Kind]*int{wire.KindReport: &out.Reports, wire.KindSample: &out.Samples, wire.KindEvent: &out.Events}
	for n := range r.Queued {
		q := &r.Queued[n]
		if count[q.Kind] == nil {
			return nil, fleet.ErrReceipt.With("records of kind %q are not kept", q.Kind)
		}
		if _, err := i.Records(ctx, d.ID, q.Kind, &q.Batch); err != nil {
			return nil, err
		}
		*count[q.Kind] += len(q.Batch.Records)
	}
	if r.Report != nil {
		// The newest statement is not the next of the queue: it acknowledges nothing.
		bad, err := i.reports(ctx, d.ID, &wire.Batch{Records: []wire.Record{*r.Report}})
		if err != nil {
			return nil, fmt.Errorf("receipt of %s: %w", d.ID, err)
		}
		if len(bad) > 0 {
			return nil, fleet.ErrReceipt.With("its report: %v", bad[0].err)
		}
		out.Reports++
	}
	if d, err = i.Store.Device(ctx, d.ID); err != nil {
		return nil, err
	}
	out.Proof = d.Proof
	return out, nil
}

func (i *Ingest) openReceipt(ctx context.Context, b []byte) (*fleet.Device, *wire.Receipt, error) {
	peek, err := wire.PeekReceipt(b)
	if err != nil {
		return nil, nil, fleet.ErrReceipt.With("%v", err)
	}
	d, err := i.Store.Device(ctx, peek.Device)
	if errors.Is(err, fleet.ErrDeviceUnknown) {
		return nil, nil, fleet.ErrReceipt.With("it is of a device %q, which is not enrolled here", peek.Device)
	}
	if err != nil {
		return nil, nil, err
	}
	var r *wire.Receipt
	err = i.signed(ctx, d, func(key *ecdsa.PublicKey) (err error) {
		r, err = wire.OpenReceipt(b, key)
		return err
	})
	var internal *unsettled
	if errors.As(err, &internal) {
		return nil, nil, internal.err
	}
	if err != nil {
		return nil, nil, fleet.ErrReceipt.With("of device %q: %v", peek.Device, err)
	}
	if d.Status != fleet.DeviceActive {
		return nil, nil, fleet.ErrDeviceRevoked.With("the receipt is of %s, whose identity is revoked", d.ID)
	}
	return d, r, nil
}

// greet is the hello of a device that cannot say it: believed when the lockbox was
// made after the device was last heard, for then the receipt is newer than
// everything that is known of it.
func (i *Ingest) greet(ctx context.Context, d *fleet.Device, r *wire.Receipt) error {
	ls, err := i.Store.Lockboxes(ctx, d.ID)
	if err != nil {
		return err
	}
	n := slices.IndexFunc(ls, func(l fleet.Lockbox) bool { return l.ID == r.Lockbox })
	if n >= 0 && !ls[n].Created.After(d.LastSeen) {
		return nil
	}
	h := &r.Hello
	if i.Told != nil { // also of a lockbox that a restore has forgotten
		if err := i.Told(ctx, d.ID, h); err != nil {
			return err
		}
	}
	if n < 0 {
		return nil
	}
	return i.Store.UpdateDevice(ctx, d.ID, func(x *fleet.Device) error {
		if !ls[n].Created.After(x.LastSeen) {
			return nil
		}
		if h.Epoch != x.Epoch {
			x.Epoch, x.Counter = h.Epoch, 0
		}
		x.Facts, x.Agent, x.Queues, x.LastSeen = h.Facts, h.Agent, h.Queues, i.Now()
		return nil
	})
}
