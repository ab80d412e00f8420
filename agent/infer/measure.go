package infer

import (
	"context"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/judge"
	"github.com/dunlin-edge/dunlin/agent/infer/vitals"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	rounds     = 3   // of measuring; the best counts, because others use the processor too
	roundsEach = 5   // in turns with the active slot
	roundRuns  = 100 // runs of a round
	leastRuns  = 20  // of a round of a slow model
	roundTime  = time.Second
)

// timed runs a worker some times, less when that takes too long, and returns how
// long each took, in order of length.
func timed(ctx context.Context, w *worker, in [][]byte, runs int, bound time.Duration) ([]time.Duration, error) {
	var took []time.Duration
	for start := time.Now(); len(took) < runs && (len(took) < leastRuns || time.Since(start) < bound); {
		began := time.Now()
		if _, err := w.run(ctx, in); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// contender is one of those who are measured in turns.
type contender struct {
	w    *worker
	in   [][]byte
	cost *bundle.Cost
}

// round measures one round and keeps it when it is the best.
func (c *contender) round(ctx context.Context) error {
	took, err := timed(ctx, c.w, c.in, roundRuns, roundTime)
	if err != nil {
		return err
	}
	if p95 := judge.Quantile(took, 0.95).Microseconds(); c.cost.P95US == 0 || p95 < c.cost.P95US {
		c.cost.P50US, c.cost.P95US, c.cost.P99US = judge.Quantile(took, 0.5).Microseconds(), p95, judge.Quantile(took, 0.99).Microseconds()
	}
	c.cost.PeakKB = max(c.cost.PeakKB, vitals.PeakKB(c.w.cmd.Process.Pid))
	return nil
}

// measure times runs; where the contract bounds them by those of the active slot, in
// turns with a second worker of that, so that what else happens slows both.
func (t *trial) measure(ctx context.Context) error {
	list := []*contender{{t.w, t.inputs(0), &t.p.Cost}}
	n := rounds
	if base := t.base(ctx); base != nil {
		n = roundsEach
		defer base.w.stop()
		list = append(list, base)
		t.p.Base = base.cost
	}
	for range n {
		for _, c := range list {
			if err := c.round(ctx); err != nil {
				if c.w != t.w { // the active slot's trouble is not the candidate's
					t.s.c.Log.Warn("the active slot is not measured", "model", t.slot.Key.Model, "err", err)
					t.p.Base, list = nil, list[:1]
					break
				}
				return err
			}
		}
	}
	return nil
}

// base starts a worker of the slot that is active, nil where there is none to be
// compared with. One that does not start must not keep its replacement away.
func (t *trial) base(ctx context.Context) *contender {
	active, ok := t.s.Active(t.slot.Key.Model)
	same := active.Key.Bundle == t.slot.Key.Bundle && active.Key.Runtime == t.slot.Key.Runtime
	if t.budget.Relative == nil || !ok || same {
		return nil
	}
	w, err := t.s.spawn(ctx, active, false, newPool(1))
	if err != nil {
		t.s.c.Log.Warn("the active slot is not measured", "model", t.slot.Key.Model, "err", err)
		return nil
	}
	return &contender{w, t.inputsOf(w, 0), &bundle.Cost{Start: w.started.Microseconds()}}
}

// inputsOf are those of a golden case where they fit a worker, else zeros.
func (t *trial) inputsOf(w *worker, i int) [][]byte {
	if t.cases != nil {
		if in := t.row(i); w.fits(in) == nil {
			return in
		}
	}
	return zeros(w.model)
}

// dropPages asks the system to forget what it has of files in memory; what others
// have mapped stays.
func dropPages(paths ...string) {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			continue // who needs it says so
		}
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
	}
}
