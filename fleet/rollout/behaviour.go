package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Facts are what a plan is made from beside the rollout's own row.
type Facts struct {
	Members []fleet.Member
	Judged  []Judged // the behaviour gates at their newest evaluation; nil: none is asked
}

// Judged is what one behaviour gate says.
type Judged struct {
	Gate   string
	Result gate.Result
}

// checkGates refuses gates that nobody knows and bounds that mean nothing.
func checkGates(g *fleet.GatesSpec) error {
	if g == nil {
		return nil
	}
	names := slices.Sorted(maps.Keys(gate.Known))
	bad := func(format string, args ...any) error { return fleet.ErrRolloutInvalid.With("gates."+format, args...) }
	look, past := time.Duration(g.Look), time.Duration(g.Past)
	switch {
	case g.Look != 0 && (look < time.Second || look > 24*time.Hour):
		return bad("look: %s, 1s to 24h wanted", look)
	case g.Past != 0 && (past < time.Second || past > 7*24*time.Hour):
		return bad("past: %s, 1s to 168h wanted", past)
	case len(g.Metrics) > wire.MaxMetrics:
		return bad("metrics: %d, at most %d", len(g.Metrics), wire.MaxMetrics)
	}
	for i, n := range g.Use {
		if _, ok := gate.Known[n]; !ok {
			return bad("use[%d]: %q is none of %v", i, n, names)
		}
		if slices.Contains(g.Use[:i], n) {
			return bad("use[%d]: %q stands there twice", i, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(g.Expect)) {
		if _, ok := gate.Known[n]; !ok {
			return bad("expect.%s: none of %v", n, names)
		}
		if err := checkBound("expect."+n, g.Expect[n]); err != nil {
			return err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(g.Metrics)) {
		if err := checkBound("metrics."+n, g.Metrics[n]); err != nil {
			return err
		}
	}
	return nil
}

func checkBound(name string, b fleet.Bound) error {
	if !(b.Margin >= 0) || !(b.Harm > b.Margin) || math.IsInf(b.Harm, 0) {
		return fleet.ErrRolloutInvalid.With("gates.%s: margin %v and harm %v: a margin of at least 0 and a greater harm wanted", name, b.Margin, b.Harm)
	}
	return nil
}

// failed is the first gate that failed.
func (f Facts) failed() *Judged {
	i := slices.IndexFunc(f.Judged, func(j Judged) bool { return j.Result.Verdict == gate.Fail })
	if i < 0 {
		return nil
	}
	return &f.Judged[i]
}

// open is the gates that do not let their stage go on yet.
func (f Facts) open() (out []Judged) {
	for _, j := range f.Judged {
		if !j.Result.GoesOn() {
			out = append(out, j)
		}
	}
	return out
}

// suspects tells whether a gate sees what it cannot show to be harm.
func (f Facts) suspects() bool {
	return slices.ContainsFunc(f.Judged, func(j Judged) bool { return j.Result.Verdict != gate.Pass && j.Result.Harm >= gate.Suspicion })
}

// suspicion says what, in the words of a person who is asked.
func (f Facts) suspicion(waited time.Duration) string {
	var names []string
	for _, j := range f.Judged {
		if j.Result.Verdict != gate.Pass && j.Result.Harm >= gate.Suspicion {
			names = append(names, j.sentence())
		}
	}
	return fmt.Sprintf("after %s it cannot be told from chance: %s", waited, strings.Join(names, "; "))
}

// sentence says what a gate saw, in its own unit.
func (j *Judged) sentence() string {
	r := j.Result
	if r.Why != "" && r.Units == 0 {
		return fmt.Sprintf("%s: %s", j.Gate, r.Why)
	}
	return fmt.Sprintf("%s (e-value %.3g from %d units)", Says(j.Gate, r.Of, r.Change), min(r.Harm, 1e12), r.Units)
}

// Evaluation is an evaluation of a behaviour gate as it is stored.
func Evaluation(r *fleet.Rollout, name string, e gate.Evidence, now time.Time) (fleet.GateEvaluation, Judged, error) {
	res := gate.Evaluate(e)
	b, err := json.Marshal(e)
	if err != nil {
		return fleet.GateEvaluation{}, Judged{}, fmt.Errorf("evidence of gate %s: %w", name, err)
	}
	return fleet.GateEvaluation{Rollout: r.ID, Stage: r.Stage, Gate: name, At: now, Verdict: string(res.Verdict), Evidence: string(b)}, Judged{name, res}, nil
}

// Replay judges the stored evidence of a behaviour gate again.
func Replay(x fleet.GateEvaluation) (gate.Result, error) {
	var e gate.Evidence
	if err := json.Unmarshal([]byte(x.Evidence), &e); err != nil {
		return gate.Result{}, fmt.Errorf("evidence of gate %s: %w", x.Gate, err)
	}
	return gate.Evaluate(e), nil
}

// bakedShare is the part of a stage's good devices that must have been on for the
// bake.
const bakedShare = 0.8

// baked tells whether enough devices of the present stage were on for so long since
// the last of them was good.
func baked(r *fleet.Rollout, members []fleet.Member, d time.Duration, now time.Time) bool {
	at := bakedAt(r, members, d, now)
	return !at.IsZero() && !now.Before(at)
}

// bakedAt is when that is, as far as is known now; zero: never.
func bakedAt(r *fleet.Rollout, members []fleet.Member, d time.Duration, now time.Time) time.Time {
	from := r.Stages[r.Stage].Baking
	var at []time.Time
	for _, m := range members {
		if m.Stage == r.Stage && m.Outcome == fleet.OutcomeGood {
			if t := m.Hours.After(from, d); !t.IsZero() {
				at = append(at, t)
			}
		}
	}
	if len(at) == 0 {
		return from.Add(d)
	}
	slices.SortFunc(at, time.Time.Compare)
	return at[min(int(math.Ceil(bakedShare*float64(len(at))))-1, len(at)-1)]
}

// DefaultLongest is how long a stage waits for gates that are not decided, in
// expected-on time.
const DefaultLongest = 8 * time.Hour

// longestOf is that of the present stage: never less than its bake.
func longestOf(r *fleet.Rollout) time.Duration {
	longest := time.Duration(r.Spec.Longest)
	if longest == 0 {
		longest = DefaultLongest
	}
	return max(longest, bakeOf(r))
}

// A stage whose gates suspect something takes in as many devices again, so that it can
// be told from chance, as long as no more than this share of a class is changed.
const widestShare = 0.25

// widened is the devices that a suspicious stage takes in; nil: none may be.
func widened(r *fleet.Rollout, members []fleet.Member) (out []string) {
	changed, size := map[string]int{}, map[string]int{}
	for _, m := range members {
		size[m.Stratum]++
		if m.Stage <= r.Stage {
			changed[m.Stratum]++
		}
	}
	more := map[string]int{}
	for class, n := range changed {
		more[class] = min(n, int(widestShare*float64(size[class]))-n)
	}
	for _, m := range members {
		if m.Stage > r.Stage && !m.Control && m.Assigned.IsZero() && more[m.Stratum] > 0 {
			more[m.Stratum]--
			out = append(out, m.Device)
		}
	}
	return out
}
