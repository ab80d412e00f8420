package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// pendingShare is the part of a stage's devices that may be without an
// acknowledged assignment when the stage passes.
const pendingShare = 0.2

// Plan says what is due for a rollout now. It is pure: the same rows and time
// give the same actions. Carrying an action out and planning again must be
// possible after each of them, so a server that dies between two loses nothing.
func Plan(r *fleet.Rollout, f Facts, now time.Time) []Action {
	members := f.Members
	switch r.Status {
	case fleet.RolloutHalted, fleet.RolloutAborted:
		return undo(members)
	case fleet.RolloutReverting:
		return revert(r, members, now)
	case fleet.RolloutRunning:
	default:
		return nil
	}
	members = refill(r, members, now)
	if out := silences(r, members, now); len(out) > 0 {
		return out
	}
	evals, failed := evaluate(r, members, now)
	if failed != nil {
		return []Action{{Kind: Halt, Stage: r.Stage, Code: "gate." + failed.Gate, Reason: failed.reason, Evaluations: evals}}
	}
	if j := f.failed(); j != nil {
		return []Action{{Kind: Halt, Stage: r.Stage, Code: "gate." + j.Gate, Reason: j.sentence(), Evaluations: evals}}
	}
	st := r.Stages[r.Stage]
	if st.Started.IsZero() {
		return []Action{{Kind: StartStage, Stage: r.Stage}}
	}
	if out := admissions(r, members); len(out) > 0 {
		return out
	}
	last := r.Stage == len(r.Stages)-1
	if nobody(r, members) || last && settled(r, members) && !anyGood(members) {
		return []Action{{Kind: Halt, Stage: r.Stage, Code: "gate.unknown", Reason: "no device is left that could show that the release is good", Evaluations: evals}}
	}
	if !settled(r, members) {
		return nil
	}
	if st.Baking.IsZero() && stageSize(members, r.Stage) > 0 {
		return []Action{{Kind: Bake, Stage: r.Stage}}
	}
	if !st.Baking.IsZero() && !baked(r, members, bakeOf(r), now) {
		return nil
	}
	if open := f.open(); open != nil && !last && st.Held.IsZero() {
		switch {
		case f.suspects() && widened(r, members) != nil:
			return []Action{{Kind: Widen, Stage: r.Stage, Reason: f.suspicion(bakeOf(r)), Devices: widened(r, members), Evaluations: evals}}
		case !baked(r, members, longestOf(r), now):
			return nil
		case f.suspects():
			return []Action{{Kind: Hold, Stage: r.Stage, Code: "gate.held", Reason: f.suspicion(longestOf(r)), Evaluations: evals}}
		}
	}
	if last {
		return []Action{{Kind: Complete, Stage: r.Stage, Evaluations: evals}}
	}
	return []Action{{Kind: PassStage, Stage: r.Stage, Evaluations: evals}}
}

// present leaves out devices whose identity was revoked before they had an
// outcome: nothing is to be had from them.
func present(members []fleet.Member) []fleet.Member {
	out := make([]fleet.Member, 0, len(members))
	for i := range members {
		if m := &members[i]; !m.Revoked || m.Outcome != "" {
			out = append(out, *m)
		}
	}
	return out
}

// refill is present with a next device for every class whose devices of the
// present stage, or of all stages so far, are gone: unknown is not good. Where a
// class has none but control left, that stays as it is.
//
// A device that is late stays where it is, and is not waited for.
func refill(r *fleet.Rollout, members []fleet.Member, now time.Time) []fleet.Member {
	out := present(members)
	for i := range out {
		out[i].Late = late(r, &out[i], now)
	}
	meant, here, next := reach(r.Stage, members), reach(r.Stage, out), map[string]int{}
	for i, m := range out {
		if _, ok := next[m.Stratum]; !ok && m.Stage > r.Stage && !m.Control {
			next[m.Stratum] = i
		}
	}
	for class, i := range next {
		want, have := meant[class], here[class]
		if want.sofar && !have.sofar || want.now && !have.now {
			out[i].Stage = r.Stage
		}
	}
	known := classes(out)
	return slices.DeleteFunc(out, func(m fleet.Member) bool {
		return m.Control && m.Assigned.IsZero() && known[m.Stratum].good == 0 && r.Stage == len(r.Stages)-1
	})
}

// reached tells whether a class has devices in a stage, and up to it, that are not late.
type reached struct{ now, sofar bool }

func reach(stage int, members []fleet.Member) map[string]reached {
	out := map[string]reached{}
	for i := range members {
		if m := &members[i]; m.Stage <= stage && !m.Late {
			out[m.Stratum] = reached{now: m.Stage == stage || out[m.Stratum].now, sofar: true}
		}
	}
	return out
}

// nobody tells whether every device so far is gone; refill has found no other.
func nobody(r *fleet.Rollout, members []fleet.Member) bool {
	return !slices.ContainsFunc(members, func(m fleet.Member) bool { return m.Stage <= r.Stage })
}

func anyGood(members []fleet.Member) bool {
	return slices.ContainsFunc(members, func(m fleet.Member) bool { return m.Outcome == fleet.OutcomeGood })
}

// Next is when time alone can make something due after now, at which nothing is;
// zero: never.
func Next(r *fleet.Rollout, members []fleet.Member, now time.Time) time.Time {
	if r.Status == fleet.RolloutReverting {
		return now.Add(time.Duration(r.Spec.Silence))
	}
	if r.Status != fleet.RolloutRunning {
		return time.Time{}
	}
	var next time.Time
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if b := r.Stages[r.Stage].Baking; !b.IsZero() {
		sooner(bakedAt(r, members, bakeOf(r), now))
		sooner(bakedAt(r, members, longestOf(r), now))
	}
	for _, m := range present(members) {
		switch {
		case waits(m):
			sooner(silentAt(r, m))
		case !m.Assigned.IsZero() && m.Outcome == "":
			sooner(lateAt(r, &m))
		}
	}
	return next
}

// bakeOf is the wait at the end of the present stage. Control is changed without
// one of its own: what it could show has been seen.
func bakeOf(r *fleet.Rollout) time.Duration {
	if r.Stage >= len(r.Spec.Stages) {
		return 0
	}
	if b := r.Spec.Stages[r.Stage].Bake; b != 0 {
		return time.Duration(b)
	}
	return time.Duration(r.Spec.Bake)
}

// lateAfter is how many times the silence an assigned device may take to acknowledge.
const lateAfter = 4

// late tells whether a device has not acknowledged its assignment for so long, in
// hours in which it is expected, that others go on without it. It joins when it comes.
func late(r *fleet.Rollout, m *fleet.Member, now time.Time) bool {
	if m.Assigned.IsZero() || !m.Acked.IsZero() || m.Outcome != "" {
		return false
	}
	at := lateAt(r, m)
	return at.IsZero() || !now.Before(at)
}

func lateAt(r *fleet.Rollout, m *fleet.Member) time.Time {
	return m.Hours.After(m.Assigned, lateAfter*time.Duration(r.Spec.Silence))
}

// waits tells whether an acknowledged device still owes its outcome.
func waits(m fleet.Member) bool { return m.Outcome == "" && !m.Acked.IsZero() }

// silentAt is when an acknowledged device becomes silent unless it is heard of. A
// device that is heard of may take its time: a download is long on a thin link.
//
// Only hours in which it is expected to be on count.
func silentAt(r *fleet.Rollout, m fleet.Member) time.Time {
	return m.Hours.After(later(m.Acked, m.Heard), time.Duration(r.Spec.Silence))
}

func silences(r *fleet.Rollout, members []fleet.Member, now time.Time) []Action {
	var out []Action
	for _, m := range members {
		if at := silentAt(r, m); waits(m) && !at.IsZero() && !now.Before(at) {
			out = append(out, Action{Kind: Silent, Stage: m.Stage, Device: m.Device})
		}
	}
	return out
}

func undo(members []fleet.Member) []Action {
	var out []Action
	for _, m := range members {
		if !m.Assigned.IsZero() && m.Outcome != fleet.OutcomeGood && m.Undone.IsZero() {
			out = append(out, Action{Kind: Undo, Stage: m.Stage, Device: m.Device})
		}
	}
	return out
}

// revert takes good devices back as well, so many at a time.
func revert(r *fleet.Rollout, members []fleet.Member, now time.Time) []Action {
	if out := undo(members); len(out) > 0 {
		return out
	}
	var out []Action
	away, left := 0, 0
	for _, m := range members {
		if !m.Undone.IsZero() && !m.Back && !m.Revoked {
			away++
		}
		if !m.Undone.IsZero() && !m.Back && now.Before(m.Undone.Add(time.Duration(r.Spec.Silence))) {
			left++
		}
	}
	for _, m := range members {
		if m.Assigned.IsZero() || !m.Undone.IsZero() {
			continue
		}
		if away++; left < revertAtOnce(len(members)) {
			left++
			out = append(out, Action{Kind: Undo, Stage: m.Stage, Device: m.Device})
		}
	}
	if away == 0 {
		return []Action{{Kind: Reverted, Stage: r.Stage}}
	}
	return out
}

// revertAtOnce is how many devices may be on their way back at the same time. Those
// that are silent for the specification's silence do not count: they may be off.
func revertAtOnce(devices int) int { return max(10, devices/10) }

// class is what is known of one hardware class.
type class struct {
	good, open        int
	held              bool // a failure or silence that no later success has answered
	lastBad, lastGood time.Time
}

func classes(members []fleet.Member) map[string]*class {
	out := map[string]*class{}
	for i := range members {
		m := &members[i]
		c := out[m.Stratum]
		if c == nil {
			c = &class{}
			out[m.Stratum] = c
		}
		c.add(m)
	}
	return out
}

func (c *class) add(m *fleet.Member) {
	switch {
	case m.Outcome == fleet.OutcomeGood:
		c.good++
		c.lastGood = later(c.lastGood, m.Settled)
	case m.Outcome != "":
		c.lastBad = later(c.lastBad, m.Settled)
	case !m.Assigned.IsZero() && !m.Late:
		c.open++
	}
	c.held = !c.lastBad.IsZero() && !c.lastGood.After(c.lastBad)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// admissions are the devices of the present stage that may be changed now.
func admissions(r *fleet.Rollout, members []fleet.Member) []Action {
	known := classes(members)
	var out []Action
	for _, m := range members {
		if m.Stage > r.Stage || !m.Assigned.IsZero() {
			continue
		}
		c := known[m.Stratum]
		if c.held && c.open > 0 || c.good == 0 && c.open > 0 {
			continue
		}
		// A held class is tried with one device more: its success frees the
		// class, a second failure among the first ten halts.
		c.open++
		out = append(out, Action{Kind: Admit, Stage: m.Stage, Device: m.Device})
	}
	return out
}

// settled tells whether every device up to the present stage has its outcome, but
// for the pending that each stage may leave behind.
func settled(r *fleet.Rollout, members []fleet.Member) bool {
	pending := 0
	for _, m := range members {
		switch {
		case m.Stage > r.Stage || m.Outcome != "" || m.Late:
		case m.Assigned.IsZero() || !m.Acked.IsZero():
			return false
		case m.Stage == r.Stage:
			pending++
		}
	}
	return float64(pending) <= pendingShare*float64(stageSize(members, r.Stage))
}

func stageSize(members []fleet.Member, stage int) int {
	n := 0
	for _, m := range members {
		if m.Stage == stage {
			n++
		}
	}
	return n
}

// Waiting says in a sentence what a running rollout waits for.
func Waiting(r *fleet.Rollout, tallies []fleet.Tally, now time.Time) string {
	if r.Status == fleet.RolloutReverting {
		left := 0
		for _, t := range tallies {
			if t.Assigned && !t.Back && !t.Revoked {
				left += t.Devices
			}
		}
		return fmt.Sprintf("%d devices have not said yet that they are back", left)
	}
	if r.Status != fleet.RolloutRunning {
		return ""
	}
	if b := r.Stages[r.Stage].Baking; !b.IsZero() {
		until := func(d time.Duration) string { return b.Add(d).UTC().Format(time.TimeOnly) + " UTC" }
		if now.Before(b.Add(bakeOf(r))) {
			return "bakes until " + until(bakeOf(r))
		}
		return "bakes on for gates that are not decided, until " + until(longestOf(r)) + " at the latest"
	}
	open, pending := 0, 0
	for _, t := range tallies {
		switch {
		case t.Stage > r.Stage || t.Outcome != "" || t.Revoked:
		case t.Acked:
			open += t.Devices
		default:
			pending += t.Devices
		}
	}
	return fmt.Sprintf("%d devices at work, %d have not acknowledged yet", open, pending)
}
