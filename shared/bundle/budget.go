package bundle

import (
	"fmt"
	"strconv"
	"strings"
)

// Budget bounds what a model may cost on one hardware class; "any" applies
// where no other does. Zero: no bound.
type Budget struct {
	Class        string    `json:"class"`
	LatencyP50US int64     `json:"latency_p50_us,omitempty"` // microseconds
	LatencyP95US int64     `json:"latency_p95_us,omitempty"`
	LatencyP99US int64     `json:"latency_p99_us,omitempty"`
	PeakMemoryKB int64     `json:"peak_memory_kb,omitempty"` // KiB, worker beyond an empty one included
	StartMS      int64     `json:"start_ms,omitempty"`       // spawn to first result, with everything in memory and weights packed
	ColdStartMS  int64     `json:"cold_start_ms,omitempty"`  // the same from the disk, without packed weights
	MaxSliceGap  float64   `json:"max_slice_gap,omitempty"`  // between the best and the worst slice of one kind, in shares of golden cases that held
	Relative     *Relative `json:"relative,omitempty"`
}

// Relative bounds a candidate's costs as multiples of those of the slot that is
// active, measured in turns. Zero: no bound. Without an active slot none applies.
type Relative struct {
	LatencyP50 float64 `json:"latency_p50,omitempty"`
	LatencyP95 float64 `json:"latency_p95,omitempty"`
	LatencyP99 float64 `json:"latency_p99,omitempty"`
	PeakMemory float64 `json:"peak_memory,omitempty"`
	Start      float64 `json:"start,omitempty"`
}

// Shadow asks that a candidate answers copies of live requests, beside the active
// slot and without being heard, before it may serve.
type Shadow struct {
	Share    float64 `json:"share"`    // of live requests that are copied, at most
	Minutes  float64 `json:"minutes"`  // that it takes at most
	Requests uint64  `json:"requests"` // after which it is over
	Duty     float64 `json:"duty"`     // share of the time that its worker runs, at most
	Agree    float64 `json:"agree"`    // share of the answers that must agree
}

// Limits of budgets and shadow.
const (
	maxBudgets        = 64
	maxMultiple       = 1000
	maxShadowMinutes  = 24 * 60
	maxShadowRequests = 1_000_000
)

func (c *Contract) validateBudgets() error {
	if len(c.Budgets) > maxBudgets {
		return invalid("budgets", "%d budgets, at most %d are allowed", len(c.Budgets), maxBudgets)
	}
	seen := map[string]bool{}
	for _, b := range c.Budgets {
		if b.Class == "" || len(b.Class) > maxName || seen[b.Class] {
			return invalid("budgets", "class %.64q is empty, too long or there twice", b.Class)
		}
		seen[b.Class] = true
		for _, v := range []int64{b.LatencyP50US, b.LatencyP95US, b.LatencyP99US, b.PeakMemoryKB, b.StartMS, b.ColdStartMS} {
			if v < 0 {
				return invalid("budgets", "%s: a bound below zero", b.Class)
			}
		}
		if !(b.MaxSliceGap >= 0 && b.MaxSliceGap <= 1) {
			return invalid("budgets", "%s: max_slice_gap %v, 0 to 1 is allowed", b.Class, b.MaxSliceGap)
		}
		if b.MaxSliceGap > 0 && (c.Golden == nil || c.Golden.Slices == "") {
			return invalid("budgets", "%s: max_slice_gap needs golden cases with slices", b.Class)
		}
		if err := b.Relative.validate(b.Class); err != nil {
			return err
		}
	}
	return nil
}

func (r *Relative) validate(class string) error {
	if r == nil {
		return nil
	}
	for _, v := range []float64{r.LatencyP50, r.LatencyP95, r.LatencyP99, r.PeakMemory, r.Start} {
		if !(v >= 0 && v <= maxMultiple) {
			return invalid("budgets", "%s: relative to the active slot by %v, 0 to %d is allowed", class, v, maxMultiple)
		}
	}
	return nil
}

func (c *Contract) validateShadow() error {
	s := c.Shadow
	if s == nil {
		return nil
	}
	share := func(v float64) bool { return v > 0 && v <= 1 }
	switch {
	case !share(s.Share) || !share(s.Duty) || !share(s.Agree):
		return invalid("shadow", "share, duty and agree are above 0 and at most 1")
	case !(s.Minutes > 0 && s.Minutes <= maxShadowMinutes) || s.Requests < 1 || s.Requests > maxShadowRequests:
		return invalid("shadow", "minutes above 0 and up to %d, 1 to %d requests", maxShadowMinutes, maxShadowRequests)
	case c.Carries():
		return invalid("shadow", "a model that carries state cannot answer a share of the requests")
	case c.Serve != "" && c.Serve != "worker":
		return invalid("shadow", "only what the agent's own workers serve has live requests to copy")
	}
	for i := range c.Outputs {
		if c.Compares(&c.Outputs[i]) {
			return nil
		}
	}
	return invalid("shadow", "no output has classes, is watched or has a tolerance, so nothing could agree")
}

// Ranks says whether the index of an output's highest value is what it means.
func (c *Contract) Ranks(t *Tensor) bool {
	return t.Meaning != nil && t.Meaning.Kind == "classes" || c.Watch != nil && c.Watch.Output == t.Name
}

// Compares says whether two answers of an output can agree or not.
func (c *Contract) Compares(t *Tensor) bool {
	if c.Ranks(t) {
		return true
	}
	if c.Golden == nil {
		return false
	}
	_, ok := c.Golden.Tolerance[t.Name]
	return ok
}

// BudgetFor returns the budget of a hardware class: its own, else the one for
// "any", else no bounds.
func (c *Contract) BudgetFor(class string) Budget {
	var any Budget
	for _, b := range c.Budgets {
		if b.Class == class {
			return b
		}
		if b.Class == "any" {
			any = b
		}
	}
	return any
}

// String lists the bounds for people.
func (b Budget) String() string {
	r := b.Relative
	if r == nil {
		r = &Relative{}
	}
	var parts []string
	for _, x := range []struct {
		form string
		v    float64
	}{
		{"p50 %v us", float64(b.LatencyP50US)}, {"p95 %v us", float64(b.LatencyP95US)}, {"p99 %v us", float64(b.LatencyP99US)},
		{"%v KiB", float64(b.PeakMemoryKB)}, {"start %v ms", float64(b.StartMS)}, {"start from the disk %v ms", float64(b.ColdStartMS)},
		{"gap between slices %v", b.MaxSliceGap}, {"p50 %v times the active release's", r.LatencyP50}, {"p95 %v times", r.LatencyP95},
		{"p99 %v times", r.LatencyP99}, {"memory %v times", r.PeakMemory}, {"start %v times", r.Start},
	} {
		if x.v > 0 {
			parts = append(parts, fmt.Sprintf(x.form, strconv.FormatFloat(x.v, 'f', -1, 64)))
		}
	}
	return strings.Join(parts, ", ")
}
