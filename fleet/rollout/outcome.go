package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Evidence is what a gate is judged on; judging stored evidence again gives the
// stored verdict.
type Evidence struct {
	Settled   int     `json:"settled"`             // devices with an outcome, in all stages
	Failed    int     `json:"failed"`              // of them, by this gate's codes
	FirstTen  int     `json:"failed_of_first_ten"` // in the order of their outcomes
	Tolerated float64 `json:"tolerated"`           // share of devices that may fail by chance
	E         float64 `json:"e"`                   // likelihood ratio against Tolerated
	Limit     float64 `json:"limit"`               // E that fails
	Strict    bool    `json:"strict"`              // the first failure fails
	ByHand    int     `json:"by_hand,omitempty"`   // of Failed, devices that a person took back
	Device    string  `json:"device,omitempty"`    // of the first failure
	Code      string  `json:"code,omitempty"`
	Reason    string  `json:"reason,omitempty"`
}

// spec of a gate: which failures it counts and what it tolerates.
type outcomeGate struct {
	name      string
	prefixes  []string // of codes; none: what no other gate counts
	outcome   string
	strict    bool
	tolerated float64
	worse     []float64 // alternatives with equal weight
	limit     float64
}

// byHand is the code of a person's verdict at a device.
const byHand = "rollback.by_hand"

// ownFaults are codes of the device's storage, load, restarts, live requests or people:
// they do not show by themselves that the release is bad, so they count as installs do.
var ownFaults = []string{"check.blob.", "prove.digest", "prove.cold_start", "prove.relative_", "prove.shadow", "prove.engine", "place.lost", "try.serve", "probation.restarts", "update.restarts", byHand}

// gates in the order in which their verdicts are read. A code counts for the first
// line of this table that has it; docs/gates.md says why.
//
//	check.blob.*, prove.digest           install    a disk or a download of this device
//	prove.cold_start, prove.relative_*   install    its disk, what else it does while it measures
//	prove.shadow                         install    what it is asked
//	prove.engine                         install    nobody told it of an engine
//	place.lost, try.serve                install    its disk, its memory
//	probation.restarts, update.restarts  install    its power, its system
//	rollback.by_hand                     install    a person's verdict, counted apart in the evidence
//	check.*, prove.*                     prove      strict: the same on every device
//	try.*, probation.*, rollback.*       probation  strict: what the release did with live requests
//	everything else                      install    two of the first ten, or more than chance
//	not heard of after it agreed         silence    two of the first ten, or more than chance
var gates = []outcomeGate{
	{name: "prove", prefixes: []string{"check.", "prove."}, outcome: fleet.OutcomeFailed, strict: true},
	{name: "probation", prefixes: []string{"try.", "probation.", "rollback."}, outcome: fleet.OutcomeFailed, strict: true},
	{name: "install", outcome: fleet.OutcomeFailed, tolerated: 0.01, worse: []float64{0.05, 0.10, 0.20, 0.80}, limit: 200},
	{name: "silence", outcome: fleet.OutcomeSilent, tolerated: 0.03, worse: []float64{0.12, 0.30, 0.80}, limit: 1400},
}

// Judge gives the verdict that evidence stands for.
func (e Evidence) Judge() string {
	switch {
	case e.Strict && e.Failed > 0, e.FirstTen >= 2, e.E >= e.Limit && e.Limit > 0, math.IsNaN(e.E):
		return fleet.GateFail
	case e.Settled == 0:
		return fleet.GateNotYet
	}
	return fleet.GatePass
}

type evaluation struct {
	fleet.GateEvaluation
	reason string
}

// evaluate looks at every gate; the second result is the first that failed.
func evaluate(r *fleet.Rollout, members []fleet.Member, now time.Time) ([]fleet.GateEvaluation, *evaluation) {
	var all []fleet.GateEvaluation
	var failed *evaluation
	done := settledInOrder(members)
	for _, g := range gates {
		ev := g.look(done)
		b, err := json.Marshal(ev)
		if err != nil { // a non-finite E: it cannot be stored and must not pass
			ev.E = math.MaxFloat64
			b, _ = json.Marshal(ev)
		}
		x := fleet.GateEvaluation{Rollout: r.ID, Stage: r.Stage, Gate: g.name, At: now, Verdict: ev.Judge(), Evidence: string(b)}
		all = append(all, x)
		if x.Verdict == fleet.GateFail && failed == nil {
			failed = &evaluation{x, ev.sentence(g)}
		}
	}
	return all, failed
}

func settledInOrder(members []fleet.Member) []*fleet.Member {
	var done []*fleet.Member
	for i := range members {
		if members[i].Outcome != "" {
			done = append(done, &members[i])
		}
	}
	slices.SortFunc(done, func(a, b *fleet.Member) int {
		return cmp.Or(a.Settled.Compare(b.Settled), cmp.Compare(a.Device, b.Device))
	})
	return done
}

func (g *outcomeGate) counts(m *fleet.Member) bool {
	if m.Outcome != g.outcome {
		return false
	}
	if g.prefixes == nil {
		return g.outcome != fleet.OutcomeFailed || !otherGate(m.Code)
	}
	return hasPrefix(m.Code, g.prefixes) && !hasPrefix(m.Code, ownFaults)
}

func otherGate(code string) bool {
	if hasPrefix(code, ownFaults) {
		return false
	}
	for _, g := range gates {
		if hasPrefix(code, g.prefixes) {
			return true
		}
	}
	return false
}

func hasPrefix(code string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(code, p) })
}

func (g *outcomeGate) look(done []*fleet.Member) Evidence {
	e := Evidence{Settled: len(done), Tolerated: g.tolerated, Limit: g.limit, Strict: g.strict}
	for i, m := range done {
		if !g.counts(m) {
			continue
		}
		if e.Failed == 0 {
			e.Device, e.Code, e.Reason = m.Device, m.Code, m.Reason
		}
		e.Failed++
		if m.Code == byHand {
			e.ByHand++
		}
		if i < 10 {
			e.FirstTen++
		}
	}
	if !g.strict {
		e.E = ratio(g.tolerated, g.worse, e.Settled, e.Failed)
	}
	return e
}

// ratio is the mean over the alternatives of
// (p1/p0)^f ((1-p1)/(1-p0))^(n-f).
func ratio(p0 float64, worse []float64, n, f int) float64 {
	sum := 0.0
	for _, p1 := range worse {
		sum += math.Exp(float64(f)*math.Log(p1/p0) + float64(n-f)*math.Log((1-p1)/(1-p0)))
	}
	return min(sum/float64(len(worse)), math.MaxFloat64)
}

func (e Evidence) sentence(g outcomeGate) string {
	switch {
	case g.name == "silence":
		return fmt.Sprintf("%d of %d devices fell silent after they had acknowledged, first %s", e.Failed, e.Settled, e.Device)
	case g.strict:
		return fmt.Sprintf("%s refused the release: %s (%s)", e.Device, e.Reason, e.Code)
	}
	hands := ""
	if e.ByHand > 0 {
		hands = fmt.Sprintf(", %d taken back by hand", e.ByHand)
	}
	return fmt.Sprintf("%d of %d devices failed%s, first %s: %s (%s)", e.Failed, e.Settled, hands, e.Device, e.Reason, e.Code)
}
