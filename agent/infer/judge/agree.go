package judge

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// least is how many answers are enough to judge by, where the contract asks for more
// than came.
const least = 20

// Agreement counts how a candidate answers live requests, beside what was answered.
type Agreement struct {
	c     *bundle.Contract
	spans map[string]float64

	shade      bundle.Shade
	took, live []time.Duration
	first      string // disagreement
}

// NewAgreement needs a contract with a Shadow. cases may be nil.
func NewAgreement(c *bundle.Contract, cases *bundle.Cases) *Agreement {
	a := &Agreement{c: c}
	if cases != nil {
		a.spans = Spans(c, cases)
	}
	return a
}

// Answer is what a model gave to a request, and how long it ran.
type Answer struct {
	Outputs [][]byte
	Took    time.Duration
}

// Take counts one request that the slot with the contract live has answered.
func (a *Agreement) Take(live *bundle.Contract, given, have Answer) {
	a.shade.Requests++
	a.live, a.took = append(a.live, given.Took), append(a.took, have.Took)
	why := disagreement(a.c, live, a.spans, given.Outputs, have.Outputs)
	switch {
	case why == "":
		a.shade.Agreed++
	case a.first == "":
		a.first = why
	}
}

// Over tells that enough were seen, or that too many disagree whatever comes.
func (a *Agreement) Over() bool { return a.shade.Requests >= a.c.Shadow.Requests || a.lost() }

func (a *Agreement) lost() bool {
	const rounding = 1e-9
	return float64(a.shade.Requests-a.shade.Agreed) > (1-a.c.Shadow.Agree)*float64(a.c.Shadow.Requests)+rounding
}

// Shade is what was seen until now; dropped requests were chosen and not answered.
func (a *Agreement) Shade(dropped uint64) *bundle.Shade {
	s := a.shade
	s.Dropped = dropped
	if len(a.took) > 0 {
		slices.Sort(a.took)
		slices.Sort(a.live)
		s.P50US, s.P95US = Quantile(a.took, 0.5).Microseconds(), Quantile(a.took, 0.95).Microseconds()
		s.LiveP95 = Quantile(a.live, 0.95).Microseconds()
	}
	return &s
}

// Verdict is a *Refusal when too few agreed. Where too few came to tell, the shade's
// Note says so.
func (a *Agreement) Verdict(dropped uint64) (*bundle.Shade, error) {
	s, want := a.Shade(dropped), a.c.Shadow
	enough := min(least, want.Requests)
	switch {
	case s.Requests == 0:
		s.Note = "no live request came: not seen"
	case s.Requests < enough && !a.lost():
		s.Note = fmt.Sprintf("%d live requests came, %d are enough to judge: not seen", s.Requests, enough)
	case float64(s.Agreed) < want.Agree*float64(s.Requests):
		return s, &Refusal{"prove.shadow", fmt.Sprintf("of %d live requests it answers %d as the active slot does, a share of %.3f, %v is wanted; the first other one: %s",
			s.Requests, s.Agreed, float64(s.Agreed)/float64(s.Requests), want.Agree, a.first)}
	}
	return s, nil
}

// disagreement tells how a candidate's answer differs from the one that was given,
// empty when they agree: in the highest class of what ranks classes, within the
// golden tolerance of everything else that has one.
func disagreement(c, live *bundle.Contract, spans map[string]float64, given, have [][]byte) string {
	for i := range c.Outputs {
		t := &c.Outputs[i]
		k := slices.IndexFunc(live.Outputs, func(o bundle.Tensor) bool { return o.Name == t.Name })
		if k < 0 || !c.Compares(t) {
			continue
		}
		want, got := real(&live.Outputs[k], given[k]), real(t, have[i])
		tol := bundle.Tolerance{Top: 1}
		if !c.Ranks(t) {
			tol = c.Golden.Tolerance[t.Name]
			if m := t.Meaning; tol.IoU > 0 && m != nil && m.Boxes != nil {
				want, got = corners(m.Boxes.Layout, want), corners(m.Boxes.Layout, got)
			}
		}
		if why := compare(tol, want, got, spans[t.Name]); why != "" {
			return "output " + t.Name + ": " + why
		}
	}
	return ""
}

// Alike says whether two contracts take the same inputs, and have an output in
// common that can be compared.
func Alike(live, c *bundle.Contract) bool {
	same := slices.EqualFunc(live.Inputs, c.Inputs, func(a, b bundle.Tensor) bool {
		return a.Name == b.Name && a.DType == b.DType && slices.Equal(a.Shape, b.Shape)
	})
	return same && slices.ContainsFunc(c.Outputs, func(t bundle.Tensor) bool { return c.Compares(&t) && live.Output(t.Name) != nil })
}

// Quantile of sorted values by nearest rank.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}
