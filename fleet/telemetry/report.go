package telemetry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// reports verifies each report and lets it take effect: what it answers is settled
// first, then it is stored, and last it becomes the state of its device, which
// raises the counter. A server that dies in between is sent the report again, finds
// the counter still risen and does the same again.
func (i *Ingest) reports(ctx context.Context, device string, b *wire.Batch) (bad []refusal, err error) {
	d, err := i.Store.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	now := i.Now()
	for _, r := range b.Records {
		var rep *wire.Report
		err := i.signed(ctx, d, func(key *ecdsa.PublicKey) (err error) {
			rep, err = openReport(device, key, r)
			return err
		})
		var internal *unsettled
		if errors.As(err, &internal) {
			return nil, internal.err
		}
		if err != nil {
			bad = append(bad, refusal{r.Sequence, err})
			continue
		}
		given, err := i.given(ctx, d, rep.Nonce, now)
		if err != nil {
			return nil, err
		}
		proof, risen := classify(d, rep, given)
		if risen {
			if err := i.answers(ctx, d.ID, rep, proof, now); err != nil {
				return nil, err
			}
		}
		stored := fleet.Report{Device: device, Epoch: r.Epoch, Sequence: r.Sequence, At: now, Proof: proof, Report: *rep}
		if err := i.Store.InsertReports(ctx, []fleet.Report{stored}); err != nil {
			return nil, err
		}
		if risen {
			if err := i.newest(ctx, d, rep, proof, now); err != nil {
				return nil, err
			}
		}
	}
	return bad, nil
}

// openReport wants a report that the device signed, about itself and in a record
// of its own epoch.
func openReport(device string, key *ecdsa.PublicKey, r wire.Record) (*wire.Report, error) {
	var env wire.Envelope
	if err := wire.Decode(r.Payload, &env); err != nil {
		return nil, err
	}
	rep := &wire.Report{}
	if err := env.Open(key, wire.ReportType, rep); err != nil {
		return nil, err
	}
	if rep.Device != device || rep.Epoch != r.Epoch {
		return nil, fmt.Errorf("report of %q, epoch %d, in a record of epoch %d: %w", rep.Device, rep.Epoch, r.Epoch, wire.ErrMalformed)
	}
	return rep, nil
}

// classify says what a correctly signed report proves, and whether it is newer than
// what is known. One that is not newer, such as a repeat of the newest, changes
// nothing: it neither proves anew nor takes back what was proven. Proven: the
// counter has risen, the nonce is one that this device was given, and every pair
// that serves passed prove on it.
func classify(d *fleet.Device, rep *wire.Report, given bool) (proof string, risen bool) {
	risen = rep.Epoch == d.Epoch && rep.Counter > d.Counter
	if !risen || !given {
		return fleet.Claimed, risen
	}
	for _, m := range rep.Models {
		if m.Active != nil && !m.Active.Proven {
			return fleet.Claimed, risen
		}
	}
	return fleet.Proven, risen
}

// given tells whether a nonce is the newest of a session or that of a lockbox which
// may still be on its way home.
func (i *Ingest) given(ctx context.Context, d *fleet.Device, nonce []byte, now time.Time) (bool, error) {
	if len(nonce) == 0 || bytes.Equal(nonce, d.Nonce) {
		return len(nonce) > 0, nil
	}
	ls, err := i.Store.Lockboxes(ctx, d.ID)
	return slices.ContainsFunc(ls, func(l fleet.Lockbox) bool {
		return bytes.Equal(nonce, l.Nonce) && now.Before(l.Expires.Add(fleet.LockboxHome))
	}), err
}

// newest makes the report the newest state of its device, unless a newer one came
// by another way meanwhile.
func (i *Ingest) newest(ctx context.Context, d *fleet.Device, rep *wire.Report, proof string, now time.Time) error {
	d.Counter = rep.Counter
	return i.Store.UpdateDevice(ctx, d.ID, func(x *fleet.Device) error {
		if rep.Epoch != x.Epoch || rep.Counter <= x.Counter {
			return nil
		}
		x.Models, x.Counter, x.Generation, x.Proof = rep.Models, rep.Counter, rep.Generation, proof
		x.ReportedAt, x.LastSeen = now, now
		return nil
	})
}

// answers settles what the report answers.
func (i *Ingest) answers(ctx context.Context, device string, rep *wire.Report, proof string, now time.Time) error {
	wish, err := i.Store.Wish(ctx, device)
	if err != nil {
		return err
	}
	if err := i.acknowledge(ctx, wish, rep.Generation, now); err != nil {
		return err
	}
	rollouts, err := i.Store.DeviceRollouts(ctx, device)
	if err != nil || len(rollouts) == 0 {
		return err
	}
	byID := map[string]*fleet.Rollout{}
	for n := range rollouts {
		byID[rollouts[n].ID] = &rollouts[n]
	}
	err = i.Store.SettleMembers(ctx, device, func(ms []fleet.Member) []fleet.Member {
		var out []fleet.Member
		for _, m := range ms {
			if r := byID[m.Rollout]; r != nil && settle(&m, r, rep, proof, now) {
				out = append(out, m)
			}
		}
		return out
	})
	i.Wake()
	return err
}

// settle sets a member's outcome from a report and tells whether it changed. A
// pair is good only when that is proven; a refusal counts as told. What was good
// and is bad later becomes failed.
func settle(m *fleet.Member, r *fleet.Rollout, rep *wire.Report, proof string, now time.Time) bool {
	if m.Assigned.IsZero() {
		return false
	}
	path := r.Spec.Path()
	for _, s := range rep.Models {
		if s.Model != r.Spec.Model {
			continue
		}
		before := *m
		m.Answered = max(m.Answered, answered(&s, path))
		switch {
		case s.Candidate != nil && s.Candidate.Path == path && s.Candidate.Verdict == "bad" && s.Attempt >= r.Spec.Attempt:
			m.Outcome, m.Code, m.Reason = fleet.OutcomeFailed, s.Candidate.Code, s.Candidate.Reason
		case s.Active != nil && s.Active.Path == path && s.Active.Verdict == "good" && proof == fleet.Proven:
			m.Outcome, m.Code, m.Reason = fleet.OutcomeGood, "", ""
		}
		if m.Outcome != before.Outcome {
			m.Settled = now
		}
		return m.Outcome != before.Outcome || m.Answered != before.Answered
	}
	return false
}

// answered is how many live requests the release has answered on the device.
func answered(s *wire.ModelState, path string) uint64 {
	if s.Candidate != nil && s.Candidate.Path == path {
		return s.Answered
	}
	return 0
}
