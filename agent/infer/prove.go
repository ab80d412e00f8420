package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Refusal says that a slot is not fit to serve on this device.
type Refusal struct {
	Code   string // "prove.golden", "prove.crash", …
	Reason string // a sentence
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason + " (" + r.Code + ")" }

// Proof is what a candidate showed.
type Proof struct {
	Golden   int           // cases that held
	Cases    int           // cases
	P50, P95 time.Duration // of a run, of the best of three rounds
	Start    time.Duration // spawn to first result
	PeakKB   int64         // of the worker, everything included
}

// Prove runs a candidate in a worker of its own, while what is active serves:
// start and first run, tensors against the contract, golden cases, then latency,
// memory and start against the budgets. A *Refusal says that it is not fit; any
// other error that nothing could be said.
func (s *Server) Prove(ctx context.Context, slot Slot) (*Proof, error) {
	w, err := s.spawn(ctx, slot, true, newPool(1))
	var d *Death
	switch {
	case errors.As(err, &d):
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &Refusal{"prove." + deathCode(d), d.Error()}
	case err != nil:
		return nil, err
	}
	defer w.stop()
	p := &Proof{Start: w.started}
	if err := matches(slot.Contract, w.model); err != nil {
		return nil, err
	}
	if err := s.golden(ctx, slot, w, p); err != nil {
		return nil, proveError(err)
	}
	p.PeakKB = peakKB(w.cmd.Process.Pid)
	if err := p.within(slot.Contract.BudgetFor(s.c.Class)); err != nil {
		return nil, err
	}
	return p, s.keepCache(slot)
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
		return &Refusal{"prove." + deathCode(d), d.Error()}
	}
	return err
}

// matches compares what the runtime found with what the contract says.
func matches(c *bundle.Contract, m *frame.Model) error {
	if err := same("input", c.Inputs, m.Inputs); err != nil {
		return err
	}
	return same("output", c.Outputs, m.Outputs)
}

func same(what string, want []bundle.Tensor, have []frame.Tensor) error {
	if len(want) != len(have) {
		return &Refusal{"prove.shape", fmt.Sprintf("the model has %d %ss, its contract %d", len(have), what, len(want))}
	}
	for i, t := range want {
		h := have[i]
		fits := h.Name == t.Name && h.DType == t.DType && len(h.Shape) == len(t.Shape)
		for k := 0; fits && k < len(t.Shape); k++ {
			fits = t.Shape[k] == h.Shape[k] || t.Shape[k] == -1
		}
		if !fits {
			return &Refusal{"prove.shape", fmt.Sprintf("%s %d is %s %s %v, its contract says %s %s %v", what, i, h.Name, h.DType, h.Shape, t.Name, t.DType, t.Shape)}
		}
	}
	return nil
}

const (
	maxGoldenFile = 64 << 20
	rounds        = 3  // of measuring; the best counts, because others use the processor too
	roundRuns     = 40 // runs of a round, at least
)

// golden runs every golden case and judges it, then measures.
func (s *Server) golden(ctx context.Context, slot Slot, w *worker, p *Proof) error {
	c := slot.Contract
	if c.Golden == nil {
		return measure(ctx, w, zeros(w.model), p)
	}
	path := filepath.Join(slot.Dir, filepath.FromSlash(c.Golden.File))
	if st, err := os.Stat(path); err != nil || st.Size() > maxGoldenFile {
		return errors.Join(err, fmt.Errorf("golden cases %s: at most %d bytes are read", c.Golden.File, maxGoldenFile))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("golden cases: %w", err)
	}
	cases, err := bundle.LoadGolden(c, b)
	if err != nil {
		return &Refusal{"prove.golden", err.Error()}
	}
	p.Cases = cases.N
	j := newJudge(c, cases)
	for i := range cases.N {
		r, err := w.run(ctx, inputsOf(c, cases, i))
		if err != nil {
			return err
		}
		j.look(i, r.outputs)
	}
	p.Golden = cases.N - len(j.failed)
	if err := j.verdict(); err != nil {
		return err
	}
	return measure(ctx, w, inputsOf(c, cases, 0), p)
}

func inputsOf(c *bundle.Contract, cases *bundle.Cases, i int) [][]byte {
	var in [][]byte
	for _, t := range c.Inputs {
		in = append(in, cases.Inputs[t.Name].Row(i))
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

// judge compares outputs with golden ones.
type judge struct {
	c      *bundle.Contract
	cases  *bundle.Cases
	ranges map[string]float64 // of the golden values of an output over all cases
	failed map[int]string     // by case: why
	nan    int                // cases with a non-finite output
}

func newJudge(c *bundle.Contract, cases *bundle.Cases) *judge {
	j := &judge{c: c, cases: cases, ranges: map[string]float64{}, failed: map[int]string{}}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		if a := cases.Outputs[t.Name]; a != nil {
			if v := real(t, a.Data); len(v) > 0 {
				j.ranges[t.Name] = slices.Max(v) - slices.Min(v)
			}
		}
	}
	return j
}

// look judges one case.
func (j *judge) look(n int, out [][]byte) {
	for i := range j.c.Outputs {
		t := &j.c.Outputs[i]
		have := real(t, out[i])
		if slices.ContainsFunc(have, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }) {
			j.nan++
			j.failed[n] = fmt.Sprintf("case %d: output %s is not a number", n, t.Name)
			return
		}
		want := j.cases.Outputs[t.Name]
		if want == nil {
			continue
		}
		if why := compare(j.c.Golden.Tolerance[t.Name], real(t, want.Row(n)), have, j.ranges[t.Name]); why != "" {
			j.failed[n] = fmt.Sprintf("case %d: output %s: %s", n, t.Name, why)
			return
		}
	}
}

// compare returns what does not hold, empty when all does.
func compare(tol bundle.Tolerance, want, have []float64, span float64) string {
	if len(want) != len(have) {
		return fmt.Sprintf("%d values, %d expected", len(have), len(want))
	}
	if tol.Top > 0 {
		best, _ := highest(want)
		above := 0
		for i, x := range have {
			if i != best && x > have[best] {
				above++
			}
		}
		if above >= tol.Top {
			got, _ := highest(have)
			return fmt.Sprintf("highest at %d, expected at %d", got, best)
		}
	}
	bound := math.Inf(1)
	if tol.Relative > 0 {
		bound = tol.Relative * span
	}
	if tol.Absolute > 0 {
		bound = min(bound, tol.Absolute)
	}
	for i := range want {
		if d := math.Abs(want[i] - have[i]); d > bound {
			return fmt.Sprintf("element %d is %.4g, expected %.4g within %.3g", i, have[i], want[i], bound)
		}
	}
	return ""
}

// verdict counts the failed cases against the share that must hold.
func (j *judge) verdict() error {
	if len(j.failed) == 0 {
		return nil
	}
	need := 1.0
	for _, t := range j.c.Golden.Tolerance {
		if t.Pass > 0 {
			need = min(need, t.Pass)
		}
	}
	held := j.cases.N - len(j.failed)
	if j.nan == 0 && need < 1 && float64(held) >= need*float64(j.cases.N) {
		return nil
	}
	first := slices.Min(slices.Collect(func(yield func(int) bool) {
		for n := range j.failed {
			if !yield(n) {
				return
			}
		}
	}))
	code := "prove.golden"
	if j.nan > 0 {
		code = "prove.nan"
	}
	return &Refusal{code, fmt.Sprintf("%d of %d golden cases failed; %s", len(j.failed), j.cases.N, j.failed[first])}
}

// measure times runs and keeps the best round.
func measure(ctx context.Context, w *worker, in [][]byte, p *Proof) error {
	for r := range rounds {
		var took []time.Duration
		for range roundRuns {
			began := time.Now()
			if _, err := w.run(ctx, in); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		p50, p95 := took[len(took)/2], took[len(took)*95/100]
		if r == 0 || p95 < p.P95 {
			p.P50, p.P95 = p50, p95
		}
	}
	return nil
}

// within compares a proof with the budgets.
func (p *Proof) within(b bundle.Budget) error {
	switch {
	case b.LatencyP95US > 0 && p.P95.Microseconds() > b.LatencyP95US:
		return &Refusal{"prove.latency", fmt.Sprintf("95 of 100 runs take up to %d us, the budget is %d us", p.P95.Microseconds(), b.LatencyP95US)}
	case b.PeakMemoryKB > 0 && p.PeakKB > b.PeakMemoryKB:
		return &Refusal{"prove.memory", fmt.Sprintf("the worker needs %d kB, the budget is %d kB", p.PeakKB, b.PeakMemoryKB)}
	case b.StartMS > 0 && p.Start.Milliseconds() > b.StartMS:
		return &Refusal{"prove.start", fmt.Sprintf("the first result takes %d ms, the budget is %d ms", p.Start.Milliseconds(), b.StartMS)}
	}
	return nil
}
