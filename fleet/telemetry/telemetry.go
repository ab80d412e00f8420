// Package telemetry takes in what devices say: hellos, reports, samples and
// events. Nothing is acknowledged before it is committed, and repeats change
// nothing.
//
// A device sends the records of one kind one batch at a time, oldest first, and
// keeps them until the acknowledgement; so acknowledging a batch acknowledges
// everything before it.
package telemetry

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is what intake needs kept. Inserts are idempotent on (device, epoch,
// sequence).
type Store interface {
	Device(ctx context.Context, id string) (*fleet.Device, error)
	UpdateDevice(ctx context.Context, id string, change func(*fleet.Device) error) error
	SetOnline(ctx context.Context, id string, online bool, at time.Time) error
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	// DeviceRollouts lists the running and paused rollouts that the device is a
	// member of.
	DeviceRollouts(ctx context.Context, device string) ([]fleet.Rollout, error)
	// SettleMembers changes the device's memberships in those rollouts; change
	// returns the ones to be stored.
	SettleMembers(ctx context.Context, device string, change func([]fleet.Member) []fleet.Member) error
	InsertReports(ctx context.Context, rs []fleet.Report) error
	InsertSamples(ctx context.Context, ss []fleet.Sample) error
	InsertEvents(ctx context.Context, es []fleet.Event) error
	// CountRestored counts a batch against what a restore has left open.
	CountRestored(ctx context.Context, device string, k wire.Kind, b *wire.Batch) error
	// SetAcked remembers the newest committed sequence; Acked tells it per kind.
	SetAcked(ctx context.Context, device string, a wire.Ack) error
	Acked(ctx context.Context, device string, epoch uint64) ([]wire.Ack, error)
	AddAudit(ctx context.Context, a fleet.Audit) error
	// Lockboxes lists what was exported for a device.
	Lockboxes(ctx context.Context, device string) ([]fleet.Lockbox, error)
}

// Captures is what captured inputs go to.
type Captures interface {
	// Tell takes in what a device says of captures and returns signed orders, nil:
	// it holds those that it shall.
	Tell(ctx context.Context, device string, held *wire.CaptureHeld) (*wire.Envelope, error)
	// Take takes in records; bad is told of those that are not understood.
	Take(ctx context.Context, device string, records []wire.Record, bad func(sequence uint64, err error)) error
}

// Windows of measurement in seconds.
const (
	WindowRollout = 60   // while the device is part of a running rollout
	WindowIdle    = 3600 // otherwise
	lookWindows   = 4    // at least, in the first look of a rollout's gates
)

// Ingest is safe for concurrent use; messages of one device come one at a time.
type Ingest struct {
	Store Store
	// Newer tells whether there is metadata newer than held for the device.
	Newer func(ctx context.Context, device string, held wire.Held) (bool, error)
	// Told may change a device's wish by what its hello tells, before the hello is
	// answered; nil: nothing does.
	Told func(ctx context.Context, device string, h *wire.Hello) error
	// Came takes in that the device has signed with this key, which was its next one
	// until then; nil: a next key is not believed.
	Came func(ctx context.Context, device string, spki []byte) error
	// Tell takes in what a device says of its signpost and returns the next one, nil:
	// it has the newest; nil: nobody is told.
	Tell func(ctx context.Context, device string, held *wire.SignpostHeld) (*wire.Envelope, error)
	// Captures takes in captured inputs and tells devices which are wanted; nil: none
	// are taken.
	Captures Captures
	// Copied is told of signs that two devices share an identity, or that one's disk
	// was set back; nil: nobody is.
	Copied func(ctx context.Context, device, detail string)
	// Sampled is told of samples that were stored; nil: nobody is.
	Sampled func([]fleet.Sample)
	// Wake makes the rollouts look at what changed.
	Wake func()
	// Heartbeat is the pause between two hellos.
	Heartbeat time.Duration
	// IdleWindow and RolloutWindow are lengths of windows of measurement; zero:
	// WindowIdle and WindowRollout seconds.
	IdleWindow, RolloutWindow time.Duration
	Now                       func() time.Time
	Log                       *slog.Logger

	places places
}

// ErrProtocol is returned to a device that speaks no number of ours.
var ErrProtocol = &fleet.Error{Code: "protocol.unsupported", Message: "no common protocol number", Next: "update the agent or the server", Status: 400}

// Hello takes in who a device is and answers what it shall know.
func (i *Ingest) Hello(ctx context.Context, device string, h *wire.Hello) (*wire.Welcome, error) {
	if !slices.Contains(h.Protocols, wire.Protocol) {
		return nil, ErrProtocol.With("the device speaks %v, the server %d", h.Protocols, wire.Protocol)
	}
	now := i.Now()
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails
	copied := ""
	err := i.Store.UpdateDevice(ctx, device, func(d *fleet.Device) error {
		if d.Status != fleet.DeviceActive {
			return fleet.ErrDeviceRevoked
		}
		copied = odd(d, h, now)
		if h.Epoch != d.Epoch {
			d.Epoch, d.Counter = h.Epoch, 0
		}
		d.Facts, d.Agent, d.Generation, d.Nonce, d.LastSeen, d.Online = h.Facts, h.Agent, h.Generation, nonce, now, true
		d.Queues = h.Queues
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hello of %s: %w", device, err)
	}
	i.places.ran(device, h.Run)
	if copied != "" && i.Copied != nil {
		i.Copied(ctx, device, copied)
	}
	if i.Told != nil {
		if err := i.Told(ctx, device, h); err != nil {
			return nil, fmt.Errorf("hello of %s: %w", device, err)
		}
	}
	wish, err := i.Store.Wish(ctx, device)
	if err != nil {
		return nil, err
	}
	if err := i.acknowledge(ctx, wish, h.Generation, now); err != nil {
		return nil, err
	}
	acked, err := i.Store.Acked(ctx, device, h.Epoch)
	if err != nil {
		return nil, err
	}
	newer, err := i.Newer(ctx, device, h.Held)
	if err != nil {
		return nil, err
	}
	window, err := i.window(ctx, device)
	if err != nil {
		return nil, err
	}
	post, err := i.tell(ctx, device, h.Signpost)
	if err != nil {
		return nil, err
	}
	if h.Capture == nil { // an agent that knows no captures wants no word of theirs
		acked = slices.DeleteFunc(acked, func(a wire.Ack) bool { return a.Kind == wire.KindCapture })
	}
	captures, err := i.captures(ctx, device, h.Capture)
	if err != nil {
		return nil, err
	}
	return &wire.Welcome{
		Protocol: wire.Protocol, Generation: wish.Generation, Nonce: nonce, Window: window,
		Heartbeat: int64(i.Heartbeat / time.Second), Acked: acked, Metadata: newer, Signpost: post, Capture: captures,
	}, nil
}

func (i *Ingest) tell(ctx context.Context, device string, held *wire.SignpostHeld) (*wire.Envelope, error) {
	if i.Tell == nil {
		return nil, nil
	}
	return i.Tell(ctx, device, held)
}

func (i *Ingest) captures(ctx context.Context, device string, held *wire.CaptureHeld) (*wire.Envelope, error) {
	if i.Captures == nil {
		return nil, nil
	}
	return i.Captures.Tell(ctx, device, held)
}

func (i *Ingest) window(ctx context.Context, device string) (int64, error) {
	rs, err := i.Store.DeviceRollouts(ctx, device)
	if err != nil {
		return 0, err
	}
	if len(rs) == 0 {
		return cmp.Or(int64(i.IdleWindow/time.Second), WindowIdle), nil
	}
	window := cmp.Or(int64(i.RolloutWindow/time.Second), WindowRollout)
	for _, r := range rs {
		window = min(window, max(1, int64(r.Spec.Look()/(lookWindows*time.Second))))
	}
	return window, nil
}

// acknowledge marks the memberships whose assignment the device has verified. An
// assignment made since the wish was read is not one of them.
func (i *Ingest) acknowledge(ctx context.Context, wish *fleet.Wish, generation int64, now time.Time) error {
	if generation != wish.Generation || wish.Generation == 0 {
		return nil
	}
	changed := false
	err := i.Store.SettleMembers(ctx, wish.Device, func(ms []fleet.Member) []fleet.Member {
		var out []fleet.Member
		for _, m := range ms {
			if !m.Assigned.IsZero() && m.Acked.IsZero() && !m.Assigned.After(wish.Changed) {
				m.Acked = now
				out = append(out, m)
			}
		}
		changed = len(out) > 0
		return out
	})
	if changed {
		i.Wake()
	}
	return err
}

// Presence takes in that a device's session began or ended. It returns
// ErrDeviceRevoked for a session that began while the device was being revoked:
// it was admitted before, and could not be found yet when the others were ended.
func (i *Ingest) Presence(ctx context.Context, device string, online bool) error {
	if online {
		d, err := i.Store.Device(ctx, device)
		if err != nil {
			return err
		}
		if d.Status != fleet.DeviceActive {
			return fleet.ErrDeviceRevoked
		}
	}
	return i.Store.SetOnline(ctx, device, online, i.Now())
}

// Records takes in a batch and returns its acknowledgement. A record that is not
// understood or not signed by the device is left out, and the audit names it with
// a code: refusing it again and again would keep back everything behind it. Any
// other error acknowledges nothing; the device sends the batch again.
func (i *Ingest) Records(ctx context.Context, device string, k wire.Kind, b *wire.Batch) (wire.Ack, error) {
	var bad []refusal
	var err error
	switch k {
	case wire.KindReport:
		bad, err = i.reports(ctx, device, b)
	case wire.KindSample:
		bad, err = i.samples(ctx, device, b)
	case wire.KindEvent:
		bad, err = i.events(ctx, device, b)
	case wire.KindCapture:
		if i.Captures != nil {
			err = i.Captures.Take(ctx, device, b.Records, func(seq uint64, e error) { bad = append(bad, refusal{seq, e}) })
		}
	default:
		err = fleet.ErrBadRequest.With("records of kind %q are not kept", k)
	}
	if err == nil {
		err = i.refused(ctx, device, k, b, bad)
	}
	if err != nil {
		return wire.Ack{}, fmt.Errorf("%s of %s: %w", k, device, err)
	}
	last := b.Records[len(b.Records)-1]
	ack := wire.Ack{Kind: k, Epoch: last.Epoch, Sequence: last.Sequence}
	if err := i.Store.CountRestored(ctx, device, k, b); err != nil {
		return wire.Ack{}, fmt.Errorf("%s of %s: %w", k, device, err)
	}
	return ack, i.Store.SetAcked(ctx, device, ack)
}

func (i *Ingest) samples(ctx context.Context, device string, b *wire.Batch) (bad []refusal, err error) {
	out := make([]fleet.Sample, 0, len(b.Records))
	for _, r := range b.Records {
		x := fleet.Sample{Device: device, Epoch: r.Epoch, Sequence: r.Sequence}
		if err := wire.Decode(r.Payload, &x.Sample); err != nil {
			bad = append(bad, refusal{r.Sequence, err})
			continue
		}
		out = append(out, x)
	}
	if err := i.Store.InsertSamples(ctx, out); err != nil {
		return nil, err
	}
	if i.Sampled != nil {
		i.Sampled(out)
	}
	return bad, nil
}

func (i *Ingest) events(ctx context.Context, device string, b *wire.Batch) (bad []refusal, err error) {
	now := i.Now()
	out := make([]fleet.Event, 0, len(b.Records))
	for _, r := range b.Records {
		x := fleet.Event{ID: fleet.NewID(fleet.PrefixEvent, now), Device: device, Epoch: r.Epoch, Sequence: r.Sequence, At: now}
		if err := wire.Decode(r.Payload, &x.Event); err != nil {
			bad = append(bad, refusal{r.Sequence, err})
			continue
		}
		out = append(out, x)
	}
	return bad, i.Store.InsertEvents(ctx, out)
}

func publicKey(spki []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("device key: %T is not ECDSA", k)
	}
	return pub, nil
}
