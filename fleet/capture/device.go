package capture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Tell takes in what a device says of captures and returns the orders that it shall
// hold, signed; nil when it holds them, or its owner allows none.
func (s *Service) Tell(ctx context.Context, device string, held *wire.CaptureHeld) (*wire.Envelope, error) {
	if held == nil || !held.Allowed {
		return nil, nil
	}
	d, err := s.Store.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.Captures(ctx)
	if err != nil {
		return nil, err
	}
	var orders []wire.CaptureOrder
	for _, c := range all {
		if s.Now().Before(c.Expires) && matches(&c, d) && len(orders) < wire.MaxCaptureOrders {
			orders = append(orders, c.Order())
		}
	}
	mark, err := wire.CaptureMark(orders)
	if err != nil || bytes.Equal(mark, held.Mark) || len(orders) == 0 && len(held.Mark) == 0 {
		return nil, err
	}
	return s.Sign(ctx, device, &wire.CaptureOrders{Device: device, Number: held.Number + 1, Orders: orders})
}

func matches(c *fleet.Capture, d *fleet.Device) bool {
	sel, err := bundle.ParseSelector(c.Spec.Selector)
	return err == nil && sel.Matches(d.Attributes())
}

// Take takes in records of a device. One that is no part of a sample is bad, by its
// sequence; what is beyond a capture's bounds is counted there and let go.
func (s *Service) Take(ctx context.Context, device string, records []wire.Record, bad func(sequence uint64, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used, err := s.Store.CapturedBytes(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var parts []fleet.CapturePart
	for _, r := range records {
		p := fleet.CapturePart{Device: device}
		if err := wire.Decode(r.Payload, &p.Record); err != nil {
			bad(r.Sequence, err)
			continue
		}
		id := p.Record.Capture
		if _, asked := known[id]; !asked {
			c, err := s.Store.Capture(ctx, id)
			if known[id] = err == nil && s.Now().Before(c.Expires); err != nil && !isUnknown(err) {
				return err
			}
		}
		if !known[id] || used > Quota {
			continue // erased or over; or no room
		}
		if p.Record.Parts > 0 {
			sum := sha256.Sum256(p.Record.Bytes)
			p.Blob = "sha256:" + hex.EncodeToString(sum[:])
			if err := s.Blobs.Put(p.Blob, bytes.NewReader(p.Record.Bytes), wire.MaxCapturePart); err != nil {
				return err
			}
		}
		parts = append(parts, p)
	}
	if len(parts) == 0 {
		return nil
	}
	unused, err := s.Store.AddCaptured(ctx, parts, s.Now())
	if err != nil {
		return err
	}
	return s.remove(unused)
}

func isUnknown(err error) bool { return errors.Is(err, fleet.ErrCaptureUnknown) }
