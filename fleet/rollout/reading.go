package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

// Reading puts a stored evaluation into numbers and words.
func Reading(x fleet.GateEvaluation) (fleet.GateReading, error) {
	r := fleet.GateReading{Gate: x.Gate, Stage: x.Stage, At: x.At, Verdict: x.Verdict}
	if g := outcomeOf(x.Gate); g != nil {
		var e Evidence
		if err := json.Unmarshal([]byte(x.Evidence), &e); err != nil {
			return r, fmt.Errorf("evidence of gate %s: %w", x.Gate, err)
		}
		r.Units, r.Harm, r.FailsAt, r.Decidable = e.Settled, e.E, e.Limit, true
		r.Says = fmt.Sprintf("%d of %d devices", e.Failed, e.Settled)
		if e.Failed > 0 {
			r.Says = e.sentence(*g)
		}
		return r, nil
	}
	var e gate.Evidence
	if err := json.Unmarshal([]byte(x.Evidence), &e); err != nil {
		return r, fmt.Errorf("evidence of gate %s: %w", x.Gate, err)
	}
	res := gate.Evaluate(e)
	r.Harm, r.Change, r.Error, r.Units, r.Decidable, r.Why, r.Sees = res.Harm, res.Change, res.Error, res.Units, res.Decidable, res.Why, res.Sees
	r.Says = Says(x.Gate, res.Of, res.Change)
	switch {
	case e.Outcome != nil:
		r.FailsAt, r.Margin = 1/e.Outcome.Alpha, e.Outcome.Tolerated
	case e.Limit != nil:
		r.Margin = e.Limit.Bound
		r.Says = fmt.Sprintf("%d of %d devices are over %v", e.Limit.Over, e.Limit.Devices, e.Limit.Bound)
	case e.Difference != nil:
		d := e.Difference
		r.FailsAt, r.Margin, r.Bound, r.Control, r.LeftOut = 1/d.Alpha, d.Margin, d.Harm, d.Control, d.LeftOut.Counts()
		for i, class := range d.Strata {
			if e, of := d.Clearest(i); e.Treated > 0 {
				r.Classes = append(r.Classes, fleet.ClassReading{Class: class, Change: e.D, Error: math.Sqrt(e.V), Treated: e.Treated, Control: e.Control, Says: Says(x.Gate, of, e.D)})
			}
		}
		if r.Units == 0 {
			r.Says = "nothing seen yet"
		}
	}
	return r, nil
}

func outcomeOf(name string) *outcomeGate {
	for i := range gates {
		if gates[i].name == name {
			return &gates[i]
		}
	}
	return nil
}

// Says puts a change on a gate's scale into words; of names what it is of, where the
// gate looks at more than one thing.
func Says(name, of string, change float64) string {
	kind := gate.Known[name].Measure.Kind
	switch {
	case name == gate.NameCrash:
		return fmt.Sprintf("workers crashed in %.1f %% of the hours", 100*change)
	case name == gate.NameNaN:
		return fmt.Sprintf("%.2g %% of the answers of a device are not finite", 100*change)
	case kind == gate.Latency:
		return fmt.Sprintf("%s x%.2f beyond what others did", strings.ReplaceAll(name, "_", " "), math.Exp(change))
	case kind == gate.Class:
		return fmt.Sprintf("the share of %s moved by %+.1f points beyond what others did", cmp.Or(of, "a class"), 100*change)
	case kind == gate.Errors:
		return fmt.Sprintf("the square root of the share of errors rose by %+.3f beyond what others did", change)
	case kind == gate.Wrong:
		return fmt.Sprintf("the square root of the share of wrong answers rose by %+.3f beyond what others did", change)
	case kind == gate.Memory:
		return fmt.Sprintf("memory grows by %+.1f %% an hour beyond what others did", 100*change)
	}
	return fmt.Sprintf("%s moved by %+.3f beyond what others did", name, change)
}
