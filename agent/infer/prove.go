package infer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/agent/infer/judge"
	"github.com/dunlin-edge/dunlin/agent/infer/vitals"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Refusal says that a slot is not fit to serve on this device.
type Refusal = judge.Refusal

// Prove runs a candidate in workers of its own, while what is active serves: start
// from the disk, first run, tensors against the contract, then as it would be
// served golden cases, repeats, latency, memory and start, against the budgets and
// the active slot. Where the contract or Config leave a choice, it finds out which
// kernels and how many threads do; Setup of what it returns is how to serve the
// slot. A *Refusal says that it is not fit, and comes with what was measured until
// then; any other error that nothing could be said.
func (s *Server) Prove(ctx context.Context, slot Slot) (*bundle.Proof, error) {
	var tried []bundle.Tried
	var first *Refusal
	for _, kernels := range s.rungs() {
		slot.Setup = Setup{Kernels: kernels}
		p, err := s.rung(ctx, slot)
		p.Tried = tried
		var r *Refusal
		refused := errors.As(err, &r)
		switch {
		case err == nil:
			return p, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case accelerated(kernels):
		case !refused:
			return nil, err
		case !r.OfKernels() || kernels == lastRung:
			s.dropCache(s.cachePath(slot))
			return p, r.After(first)
		default:
			first = r
		}
		tried = append(tried, bundle.Tried{Kernels: kernels, Why: err.Error()})
	}
	return nil, errors.New("no kernels to prove with")
}

// rung proves with the kernels of a slot's Setup. The proof is never nil.
func (s *Server) rung(ctx context.Context, slot Slot) (*bundle.Proof, error) {
	t := &trial{s: s, slot: slot, budget: slot.Contract.BudgetFor(s.c.Class), p: &bundle.Proof{Kernels: slot.Setup.Kernels}}
	if err := s.present(slot); err != nil {
		return t.p, err
	}
	for _, step := range []func(context.Context) error{t.cold, t.load, t.tune, t.warm, t.golden, t.repeat, t.measure} {
		if err := step(ctx); err != nil {
			t.end()
			return t.p, proveError(err)
		}
	}
	t.end()
	return t.p, judge.Within(t.p, t.budget)
}

// trial is one candidate before the proof, with one kind of kernels.
type trial struct {
	s      *Server
	slot   Slot
	budget bundle.Budget
	p      *bundle.Proof
	cases  *bundle.Cases // nil: there are none
	w      *worker       // as it would be served, once warm
	sample map[int][][]byte
}

// end ends the worker.
func (t *trial) end() {
	if t.w != nil {
		t.w.stop()
		t.w = nil
	}
}

// cold starts a worker from the disk and without packed weights.
func (t *trial) cold(ctx context.Context) error {
	dropPages(filepath.Join(t.slot.Dir, filepath.FromSlash(t.slot.Contract.File)), t.slot.Library)
	w, err := t.s.launch(ctx, t.slot, nil, newPool(1))
	if err != nil {
		return err
	}
	defer w.stop()
	t.p.Cost.Cold, t.p.Cost.PeakKB = w.started.Microseconds(), vitals.PeakKB(w.cmd.Process.Pid)
	return judge.Matches(t.slot.Contract, w.model)
}

const maxGoldenFile = 64 << 20

// load reads the golden cases.
func (t *trial) load(context.Context) error {
	c := t.slot.Contract
	if c.Golden == nil {
		return nil
	}
	path := filepath.Join(t.slot.Dir, filepath.FromSlash(c.Golden.File))
	if st, err := os.Stat(path); err != nil || st.Size() > maxGoldenFile {
		return errors.Join(err, fmt.Errorf("golden cases %s: at most %d bytes are read", c.Golden.File, maxGoldenFile))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("golden cases: %w", err)
	}
	if t.cases, err = bundle.LoadGolden(c, b); err != nil {
		return &Refusal{Code: "prove.cases", Reason: err.Error()}
	}
	t.p.Cases = t.cases.N
	return nil
}

// warm packs the weights and starts the worker as it would be served.
func (t *trial) warm(ctx context.Context) error {
	if f := t.s.cache(t.slot, true); f != nil {
		w, err := t.s.launch(ctx, t.slot, f, newPool(1))
		f.Close()
		if err != nil { // spawn does without
			t.s.dropCache(t.s.cachePath(t.slot))
		} else {
			w.stop()
			if err := t.s.keepCache(t.slot); err != nil {
				return err
			}
		}
	}
	var err error
	if t.w, err = t.s.spawn(ctx, t.slot, false, newPool(1)); err != nil {
		return err
	}
	t.p.Cost.Start = t.w.started.Microseconds()
	return nil
}

// repeated is how many cases are run again, and how often.
const (
	repeatedCases = 16
	repeatedRuns  = 2
)

// golden runs every golden case, in order, and judges it. It keeps some outputs for
// repeat.
func (t *trial) golden(ctx context.Context) error {
	if t.cases == nil {
		return nil
	}
	every := (t.cases.N + repeatedCases - 1) / repeatedCases
	t.sample = map[int][][]byte{}
	j := judge.NewGolden(t.slot.Contract, t.cases)
	for i := range t.cases.N {
		r, err := t.w.run(ctx, t.inputs(i))
		if err != nil {
			return err
		}
		j.Look(i, r.outputs)
		if i%every == 0 {
			t.sample[i] = r.outputs
		}
	}
	t.p.Held, t.p.Slices = j.Held(), j.Shares()
	return j.Verdict()
}

// repeat runs some cases again. A model that carries state is run again from its
// fresh state, in a worker of its own.
func (t *trial) repeat(ctx context.Context) error {
	c := t.slot.Contract
	if t.cases == nil || c.Golden.Repeat == bundle.RepeatAny {
		return nil
	}
	w, runs := t.w, repeatedRuns
	if c.Carries() {
		fresh, err := t.s.spawn(ctx, t.slot, false, newPool(1))
		if err != nil {
			return err
		}
		defer fresh.stop()
		w, runs = fresh, 1
	}
	j := judge.NewGolden(c, t.cases)
	for range runs {
		for i := range t.cases.N {
			before := t.sample[i]
			if before == nil && !c.Carries() {
				continue
			}
			r, err := w.run(ctx, t.inputs(i))
			if err != nil {
				return err
			}
			switch {
			case before == nil:
			case c.Golden.Repeat == bundle.RepeatClose:
				j.Look(i, r.outputs)
			default:
				if why := judge.Repeats(c, i, before, r.outputs); why != "" {
					return &Refusal{Code: "prove.repeat", Reason: why}
				}
			}
		}
	}
	var r *Refusal
	if errors.As(j.Verdict(), &r) {
		return &Refusal{Code: "prove.repeat", Reason: "run again, " + r.Reason}
	}
	return nil
}

// inputs are those of a golden case; without any, zeros.
func (t *trial) inputs(i int) [][]byte {
	if t.cases == nil {
		return zeros(t.w.model)
	}
	return t.row(i)
}

func (t *trial) row(i int) [][]byte {
	var in [][]byte
	for _, x := range t.slot.Contract.Inputs {
		in = append(in, t.cases.Inputs[x.Name].Row(i))
	}
	return in
}

func zeros(m *frame.Model) [][]byte {
	var in [][]byte
	for _, t := range m.Inputs {
		in = append(in, make([]byte, t.Bytes))
	}
	return in
}

func deathCode(d *Death) string {
	switch d.Reason {
	case reasonSignal, reasonCrash, reasonOutput:
		return "crash"
	case reasonIllegal:
		return "illegal_instruction"
	case reasonMemory:
		return "memory"
	case reasonDeadline:
		return "hang"
	}
	return "start"
}

func proveError(err error) error {
	var d *Death
	if errors.As(err, &d) {
		return &Refusal{Code: "prove." + deathCode(d), Reason: d.Error()}
	}
	return err
}
