package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/judge"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	maxGolden  = 64 << 20 // bytes of the golden cases
	rounds     = 3        // of measuring; the best counts
	roundsEach = 5        // in turns with the active slot
	roundRuns  = 100
	leastRuns  = 20 // of a round of a slow model
	roundTime  = time.Second
)

// trial is one candidate in the engine.
type trial struct {
	s      *Server
	c      *client
	slot   infer.Slot
	budget bundle.Budget
	p      *bundle.Proof
	cases  *bundle.Cases // nil: there are none
	sample [][][]byte    // outputs of the first cases
}

// Prove gives a candidate to the engine, beside the active slot, and judges it as the
// agent judges models of its own: tensors against the contract, golden cases, repeats,
// latency and start against the budgets and the active slot. What memory it takes is
// the engine's and not measured. A *infer.Refusal says that it is not fit; the engine
// has forgotten it then.
func (s *Server) Prove(ctx context.Context, slot infer.Slot) (*bundle.Proof, error) {
	t := &trial{s: s, slot: slot, budget: slot.Contract.BudgetFor(s.c.Class), p: &bundle.Proof{Kernels: bundle.KernelsExternal}}
	for _, step := range []func(context.Context) error{t.load, t.matches, t.first, t.golden, t.repeat, t.measure} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			s.unload(slot)
			return t.p, t.refusal(err)
		}
	}
	if err := judge.Within(t.p, t.budget); err != nil {
		s.unload(slot)
		return t.p, err
	}
	s.mu.Lock()
	s.proven[nameOf(slot)] = true
	s.mu.Unlock()
	return t.p, nil
}

// refusal tells what the candidate is to blame for: an engine that answers others and
// not this one. When nothing could be said at all the proof is tried again.
func (t *trial) refusal(err error) error {
	var r *infer.Refusal
	var answered *said
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &answered):
		return &infer.Refusal{Code: "prove.engine", Reason: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &infer.Refusal{Code: "prove.hang", Reason: err.Error()}
	case errors.Is(err, errEngine) && t.c != nil: // it took the candidate, and then was gone or mad
		return &infer.Refusal{Code: "prove.crash", Reason: err.Error()}
	}
	return err
}

func (t *trial) load(ctx context.Context) error {
	began := time.Now()
	c, err := t.s.load(ctx, t.slot)
	if err != nil {
		return err
	}
	t.c, t.p.Cost.Start = c, time.Since(began).Microseconds()
	return t.readCases()
}

// first runs it once: the start is over with the first result.
func (t *trial) first(ctx context.Context) error {
	began := time.Now()
	_, err := t.run(ctx, t.inputs(0))
	t.p.Cost.Start += time.Since(began).Microseconds()
	return err
}

func (t *trial) readCases() error {
	c := t.slot.Contract
	if c.Golden == nil {
		return nil
	}
	path := filepath.Join(t.slot.Dir, filepath.FromSlash(c.Golden.File))
	if st, err := os.Stat(path); err != nil || st.Size() > maxGolden {
		return errors.Join(err, fmt.Errorf("golden cases %s: at most %d bytes are read", c.Golden.File, maxGolden))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("golden cases: %w", err)
	}
	if t.cases, err = bundle.LoadGolden(c, b); err != nil {
		return &infer.Refusal{Code: "prove.cases", Reason: err.Error()}
	}
	t.p.Cases = t.cases.N
	return nil
}

// inputs are those of a golden case; without any, zeros, and one of what is open.
func (t *trial) inputs(i int) [][]byte {
	var in [][]byte
	for k := range t.slot.Contract.Inputs {
		x := &t.slot.Contract.Inputs[k]
		if t.cases != nil {
			in = append(in, t.cases.Inputs[x.Name].Row(i))
			continue
		}
		n := bundle.DTypeSize(x.DType)
		for _, d := range x.Shape {
			n *= max(d, 1)
		}
		in = append(in, make([]byte, n))
	}
	return in
}

func (t *trial) run(ctx context.Context, in [][]byte) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	return t.c.infer(ctx, nameOf(t.slot), t.slot.Contract, in)
}

// matches compares the engine's metadata with the contract.
func (t *trial) matches(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	m, err := t.c.metadata(ctx, nameOf(t.slot))
	if err != nil {
		return err
	}
	if err := same("input", t.slot.Contract.Inputs, m.Inputs); err != nil {
		return err
	}
	return same("output", t.slot.Contract.Outputs, m.Outputs)
}

// same wants every tensor of the contract; the engine may have more outputs.
func same(what string, want []bundle.Tensor, have []tensor) error {
	for _, t := range want {
		i := slices.IndexFunc(have, func(x tensor) bool { return x.Name == t.Name })
		if i < 0 || have[i].Datatype != t.DType || !fits(t.Shape, have[i].Shape) {
			found := "none of that name"
			if i >= 0 {
				found = fmt.Sprintf("%.16q %v", have[i].Datatype, have[i].Shape)
			}
			return &infer.Refusal{Code: "prove.shape", Reason: fmt.Sprintf("%s %s is %s %v by the contract, the engine has %s", what, t.Name, t.DType, t.Shape, found)}
		}
	}
	if what == "input" && len(have) != len(want) {
		return &infer.Refusal{Code: "prove.shape", Reason: fmt.Sprintf("the engine wants %d inputs, the contract has %d", len(have), len(want))}
	}
	return nil
}

// repeatedCases are run again, repeatedRuns times.
const (
	repeatedCases = 16
	repeatedRuns  = 2
)

func (t *trial) golden(ctx context.Context) error {
	if t.cases == nil {
		return nil
	}
	j := judge.NewGolden(t.slot.Contract, t.cases)
	for i := range t.cases.N {
		out, err := t.run(ctx, t.inputs(i))
		if err != nil {
			return err
		}
		j.Look(i, out)
		if i < repeatedCases {
			t.sample = append(t.sample, out)
		}
	}
	t.p.Held, t.p.Slices = j.Held(), j.Shares()
	return j.Verdict()
}

// repeat runs some cases again. A model that carries state is not: an engine cannot be
// told to forget.
func (t *trial) repeat(ctx context.Context) error {
	c := t.slot.Contract
	if t.cases == nil || c.Golden.Repeat == bundle.RepeatAny || c.Carries() {
		return nil
	}
	j := judge.NewGolden(c, t.cases)
	for range repeatedRuns {
		for i, before := range t.sample {
			out, err := t.run(ctx, t.inputs(i))
			if err != nil {
				return err
			}
			if c.Golden.Repeat == bundle.RepeatClose {
				j.Look(i, out)
			} else if why := judge.Repeats(c, i, before, out); why != "" {
				return &infer.Refusal{Code: "prove.repeat", Reason: why}
			}
		}
	}
	var r *infer.Refusal
	if errors.As(j.Verdict(), &r) {
		return &infer.Refusal{Code: "prove.repeat", Reason: "run again, " + r.Reason}
	}
	return nil
}

// contender is one of those who are measured in turns.
type contender struct {
	run  func(ctx context.Context) error
	cost *bundle.Cost
}

func (c *contender) round(ctx context.Context) error {
	var took []time.Duration
	for start := time.Now(); len(took) < roundRuns && (len(took) < leastRuns || time.Since(start) < roundTime); {
		began := time.Now()
		if err := c.run(ctx); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if p95 := judge.Quantile(took, 0.95).Microseconds(); c.cost.P95US == 0 || p95 < c.cost.P95US {
		c.cost.P50US, c.cost.P95US, c.cost.P99US = judge.Quantile(took, 0.5).Microseconds(), p95, judge.Quantile(took, 0.99).Microseconds()
	}
	return nil
}

// measure times requests to the engine; where the contract bounds them by those of the
// active slot, in turns with it.
func (t *trial) measure(ctx context.Context) error {
	in := t.inputs(0)
	list := []*contender{{func(ctx context.Context) error { _, err := t.run(ctx, in); return err }, &t.p.Cost}}
	n := rounds
	active, ok := t.s.Active(t.slot.Key.Model)
	if ok && t.budget.Relative != nil && active.Key.Bundle != t.slot.Key.Bundle && judge.Alike(active.Contract, t.slot.Contract) {
		n, t.p.Base = roundsEach, &bundle.Cost{}
		list = append(list, &contender{func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, maxRun)
			defer cancel()
			_, err := t.c.infer(ctx, nameOf(active), active.Contract, in)
			return err
		}, t.p.Base})
	}
	for range n {
		for i, c := range list {
			err := c.round(ctx)
			if err != nil && i > 0 { // the active slot's trouble is not the candidate's
				t.s.c.Log.Warn("the active slot is not measured", "model", t.slot.Key.Model, "err", err)
				t.p.Base, list = nil, list[:1]
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
