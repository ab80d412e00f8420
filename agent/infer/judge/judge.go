// Package judge compares what a model answered with what was expected, and what it
// cost with what it may cost. It is pure.
package judge

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Golden compares outputs with golden ones.
type Golden struct {
	c      *bundle.Contract
	cases  *bundle.Cases
	spans  map[string]float64 // of the golden values of an output over all cases
	failed map[int]string     // by case: why
	counts map[string]int     // of cases that failed, by output
	nan    bool               // an output was no number
}

// NewGolden returns one that has seen nothing yet.
func NewGolden(c *bundle.Contract, cases *bundle.Cases) *Golden {
	return &Golden{c: c, cases: cases, spans: Spans(c, cases), failed: map[int]string{}, counts: map[string]int{}}
}

// Spans are the ranges of the golden outputs over all cases, by name.
func Spans(c *bundle.Contract, cases *bundle.Cases) map[string]float64 {
	out := map[string]float64{}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		if a := cases.Outputs[t.Name]; a != nil {
			if v := real(t, a.Data); len(v) > 0 {
				out[t.Name] = slices.Max(v) - slices.Min(v)
			}
		}
	}
	return out
}

// Look judges the outputs of one case.
func (j *Golden) Look(n int, out [][]byte) {
	for i := range j.c.Outputs {
		t := &j.c.Outputs[i]
		have := real(t, out[i])
		why := ""
		if k := notFinite(have); k >= 0 {
			j.nan = true
			why = fmt.Sprintf("element %d is %v, a number is wanted", k, have[k])
		} else if want := j.cases.Outputs[t.Name]; want != nil {
			why = difference(t, j.c.Golden.Tolerance[t.Name], want.Row(n), out[i], j.spans[t.Name])
		}
		if why == "" {
			continue
		}
		j.counts[t.Name]++
		if j.failed[n] == "" {
			j.failed[n] = fmt.Sprintf("case %d: output %s: %s", n, t.Name, why)
		}
	}
}

// difference compares two outputs of a tensor.
func difference(t *bundle.Tensor, tol bundle.Tolerance, want, have []byte, span float64) string {
	a, b := real(t, want), real(t, have)
	if m := t.Meaning; tol.IoU > 0 && m != nil && m.Boxes != nil {
		a, b = corners(m.Boxes.Layout, a), corners(m.Boxes.Layout, b)
	}
	return compare(tol, a, b, span)
}

// Verdict counts the failed cases of each output against the share that must hold.
func (j *Golden) Verdict() error {
	if len(j.failed) == 0 {
		return nil
	}
	held := true
	for name, failed := range j.counts {
		need := j.c.Golden.Tolerance[name].Pass
		if need == 0 {
			need = 1
		}
		held = held && float64(j.cases.N-failed) >= need*float64(j.cases.N)
	}
	if held && !j.nan {
		return nil
	}
	code := "prove.golden"
	if j.nan {
		code = "prove.nan"
	}
	first := slices.Min(slices.Collect(maps.Keys(j.failed)))
	return &Refusal{code, fmt.Sprintf("%d of %d golden cases failed; %s", len(j.failed), j.cases.N, j.failed[first])}
}

// Held is how many of the cases held.
func (j *Golden) Held() int { return j.cases.N - len(j.failed) }

// Shares are the cases that held, by slice, in the order of the names.
func (j *Golden) Shares() []bundle.SliceShare {
	by := map[string]*bundle.SliceShare{}
	for n, labels := range j.cases.Slices {
		for _, l := range labels {
			if by[l] == nil {
				by[l] = &bundle.SliceShare{Slice: l}
			}
			by[l].Cases++
			if j.failed[n] == "" {
				by[l].Held++
			}
		}
	}
	var out []bundle.SliceShare
	for _, l := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[l])
	}
	return out
}

// widest finds the two slices of one kind (what stands before "=") whose shares of
// cases that held lie furthest apart.
func widest(shares []bundle.SliceShare) (gap float64, best, worst bundle.SliceShare) {
	share := func(s bundle.SliceShare) float64 { return float64(s.Held) / float64(s.Cases) }
	for _, a := range shares {
		for _, b := range shares {
			if d := share(a) - share(b); d > gap && kindOf(a.Slice) == kindOf(b.Slice) {
				gap, best, worst = d, a, b
			}
		}
	}
	return gap, best, worst
}

func kindOf(slice string) string {
	kind, _, ok := strings.Cut(slice, "=")
	if !ok {
		return ""
	}
	return kind
}

// Repeats says what a case that was run again gave otherwise; empty: the same bytes.
func Repeats(c *bundle.Contract, n int, before, now [][]byte) string {
	for i := range c.Outputs {
		if bytes.Equal(before[i], now[i]) {
			continue
		}
		t := &c.Outputs[i]
		a, b := real(t, before[i]), real(t, now[i])
		for k := range a {
			if a[k] != b[k] {
				return fmt.Sprintf("case %d gives something else when it is run again: output %s: element %d is %v, was %v", n, t.Name, k, b[k], a[k])
			}
		}
	}
	return ""
}
