package rollout

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Known is all that an answer to why is made from.
type Known struct {
	Device      *fleet.Device
	Model       string
	Wish        *fleet.Wish
	Rollout     *fleet.Rollout // the newest of the model that the device is in; nil: none
	Members     []fleet.Member // of it
	Quarantines []fleet.Quarantine
	Readings    []fleet.GateReading // newest of each gate of it
	Now         time.Time

	me *fleet.Member // the device's own
}

// Who can remove what stands in the way.
const (
	whoOperator = "an operator"
	whoDevice   = "somebody at the device"
	whoTime     = "time"
	whoNobody   = "nobody: make another rollout"
)

// Explain goes through every rule in order. It is pure.
func Explain(k Known) fleet.Why {
	w := fleet.Why{Device: k.Device.ID, Model: k.Model, Rules: []fleet.Rule{}}
	for i := range k.Members {
		if k.Members[i].Device == k.Device.ID {
			k.me = &k.Members[i]
			break
		}
	}
	state := k.state()
	if state != nil && state.Active != nil {
		w.Runs = state.Active.Path
	}
	if it, ok := k.Wish.Item(k.Model); ok {
		w.Wished = it.Path
	}
	if k.Rollout != nil {
		w.Rollout = k.Rollout.ID
	}
	for _, rule := range []func(*Known) fleet.Rule{(*Known).identity, (*Known).included, (*Known).goes, (*Known).free, (*Known).turn, (*Known).class, (*Known).assigned, (*Known).heard, (*Known).verdict, (*Known).serves} {
		r := rule(&k)
		if r.Rule == "" {
			continue // it does not concern this device
		}
		w.Rules = append(w.Rules, r)
		if !r.Holds {
			b := r
			w.Blocker = &b
			break
		}
	}
	return w
}

func (k *Known) state() *wire.ModelState {
	for i := range k.Device.Models {
		if k.Device.Models[i].Model == k.Model {
			return &k.Device.Models[i]
		}
	}
	return nil
}

func holds(rule, format string, args ...any) fleet.Rule {
	return fleet.Rule{Rule: rule, Holds: true, Says: fmt.Sprintf(format, args...)}
}

func blocks(rule, who, format string, args ...any) fleet.Rule {
	return fleet.Rule{Rule: rule, Who: who, Says: fmt.Sprintf(format, args...)}
}

func (k *Known) identity() fleet.Rule {
	switch k.Device.Status {
	case fleet.DeviceActive:
		return holds("identity", "the device is enrolled and active")
	case fleet.DevicePending:
		return blocks("identity", whoOperator, "the device waits to be accepted: 'dunlin device accept %s'", k.Device.ID)
	}
	return blocks("identity", whoOperator, "the device is %s", k.Device.Status)
}

func (k *Known) included() fleet.Rule {
	if k.Rollout != nil {
		s := k.Rollout.Spec
		return holds("rollout", "%s of %s@%s includes it", k.Rollout.ID, s.Model, s.Version)
	}
	if it, ok := k.Wish.Item(k.Model); ok {
		return holds("rollout", "no rollout of %s includes it; it is to run %s", k.Model, it.Path)
	}
	return blocks("rollout", whoOperator, "no rollout of %s includes it: 'dunlin rollout create %s@VERSION --to …'", k.Model, k.Model)
}

func (k *Known) goes() fleet.Rule {
	r := k.Rollout
	if r == nil {
		return fleet.Rule{}
	}
	if m := k.me; m != nil && !m.Assigned.IsZero() && m.Undone.IsZero() {
		return holds("status", "it had its turn; the rollout is %s", r.Status)
	}
	switch r.Status {
	case fleet.RolloutRunning, fleet.RolloutReverting:
		return holds("status", "the rollout is %s", r.Status)
	case fleet.RolloutPaused:
		return blocks("status", whoOperator, "the rollout is paused%s: 'dunlin rollout resume %s'", because(r), r.ID)
	}
	return blocks("status", whoNobody, "the rollout is %s%s", r.Status, because(r))
}

func because(r *fleet.Rollout) string {
	if r.Reason == "" {
		return ""
	}
	return " because " + r.Reason
}

func (k *Known) free() fleet.Rule {
	if k.Rollout == nil {
		return fleet.Rule{}
	}
	for _, q := range k.Quarantines {
		if q.Path == k.Rollout.Spec.Path() && q.Holds(k.Device.Class()) {
			return blocks("quarantine", whoOperator, "the release is in quarantine %s on %s: %s", q.ID, cmp.Or(q.Class, "every class"), q.Reason)
		}
	}
	return holds("quarantine", "the release is not in quarantine on %s", k.Device.Class())
}

func (k *Known) turn() fleet.Rule {
	r, m := k.Rollout, k.me
	if r == nil || m == nil || !m.Assigned.IsZero() {
		return fleet.Rule{}
	}
	if m.Stage <= r.Stage {
		return holds("stage", "it belongs to stage %d, which is under way", m.Stage+1)
	}
	name := fmt.Sprintf("stage %d", m.Stage+1)
	if m.Control {
		name = "control, the last stage"
	}
	return blocks("stage", whoTime, "it belongs to %s; stage %d of %d is under way and %s", name, r.Stage+1, len(r.Stages)-1, k.stageWaits())
}

// stageWaits says what the stage under way waits for.
func (k *Known) stageWaits() string {
	r := k.Rollout
	said := Waiting(r, tallied(r, k.Members), k.Now)
	var open []string
	for _, g := range k.Readings {
		if g.Verdict == fleet.GateNotYet && g.Decidable {
			open = append(open, g.Gate)
		}
	}
	if len(open) > 0 && !r.Stages[r.Stage].Baking.IsZero() {
		said += ", gates that are not decided: " + strings.Join(open, ", ")
	}
	return said
}

// tallied counts the members that Waiting looks at.
func tallied(r *fleet.Rollout, members []fleet.Member) []fleet.Tally {
	counts := map[fleet.Tally]int{}
	for i := range members {
		if m := &members[i]; m.Stage <= r.Stage {
			counts[fleet.Tally{Stage: m.Stage, Outcome: m.Outcome, Assigned: !m.Assigned.IsZero(), Acked: !m.Acked.IsZero(), Back: m.Back, Revoked: m.Revoked}]++
		}
	}
	var out []fleet.Tally
	for t, n := range counts {
		t.Devices = n
		out = append(out, t)
	}
	return out
}

func (k *Known) class() fleet.Rule {
	r, m := k.Rollout, k.me
	if r == nil || m == nil || !m.Assigned.IsZero() {
		return fleet.Rule{}
	}
	c := &class{}
	for i := range k.Members {
		if x := &k.Members[i]; x.Stratum == m.Stratum && (!x.Revoked || x.Outcome != "") && !late(r, x, k.Now) {
			c.add(x)
		}
	}
	switch {
	case c.open == 0:
		return holds("class", "no other %s is in its way", m.Stratum)
	case c.held:
		return blocks("class", whoTime, "one %s failed, and another one is tried before more are changed", m.Stratum)
	case c.good == 0:
		return blocks("class", whoTime, "the first %s is being tried; the others wait for its success", m.Stratum)
	}
	return holds("class", "%d of its class are good", c.good)
}

func (k *Known) assigned() fleet.Rule {
	m := k.me
	if k.Rollout == nil || m == nil {
		return fleet.Rule{}
	}
	switch {
	case m.Assigned.IsZero():
		return blocks("assignment", whoTime, "it is next; the server assigns it within seconds")
	case !m.Undone.IsZero():
		return holds("assignment", "it was given back what it had before, %s", m.Undone.UTC().Format(time.DateTime))
	}
	return holds("assignment", "it was assigned %s", m.Assigned.UTC().Format(time.DateTime))
}

func (k *Known) heard() fleet.Rule {
	if k.Device.Generation >= k.Wish.Generation {
		return holds("heard", "it has verified its newest assignment")
	}
	if k.Device.Online {
		return blocks("heard", whoTime, "it is online and has not verified its newest assignment yet; at the latest its next heartbeat brings it")
	}
	since := "never seen"
	if !k.Device.LastSeen.IsZero() {
		since = "last seen " + k.Device.LastSeen.UTC().Format(time.DateTime)
	}
	if m := k.me; m != nil && !m.Hours.Expected(k.Now) {
		return blocks("heard", whoTime, "it is off, as usual at this hour (%s)", since)
	}
	return blocks("heard", whoDevice, "it is offline, %s", since)
}

func (k *Known) verdict() fleet.Rule {
	st, m := k.state(), k.me
	wished, ok := k.Wish.Item(k.Model)
	switch {
	case !ok:
		return fleet.Rule{}
	case st != nil && st.Active != nil && st.Active.Path == wished.Path && st.Step == "":
		return fleet.Rule{}
	case st != nil && st.Candidate != nil && st.Candidate.Path == wished.Path && st.Candidate.Verdict == "bad":
		return blocks("verdict", "its publisher, by a mended release; or an operator, by a higher --attempt", "the device refused the release: %s (%s)", fleet.Plain(st.Candidate.Reason), st.Candidate.Code)
	case m != nil && m.Outcome == fleet.OutcomeFailed && m.Undone.IsZero():
		return blocks("verdict", "its publisher, by a mended release; or an operator, by a higher --attempt", "the device refused the release: %s (%s)", fleet.Plain(m.Reason), m.Code)
	case st != nil && st.Step != "":
		return blocks("verdict", whoTime, "it is at work: %s", fleet.Plain(st.Step))
	}
	return blocks("verdict", whoTime, "it has verified the assignment and not said yet what came of it")
}

func (k *Known) serves() fleet.Rule {
	wished, ok := k.Wish.Item(k.Model)
	st := k.state()
	if !ok || st == nil || st.Active == nil {
		return fleet.Rule{}
	}
	if k.Device.Proof != fleet.Proven {
		return blocks("proof", whoTime, "it says that it serves %s, which is not proven: its next signed report with a fresh nonce does that", wished.Path)
	}
	return holds("proof", "it serves %s, proven", wished.Path)
}

// WhyStore is what the answer is made from.
type WhyStore interface {
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	// NewestRollout of a model that a device is in; ErrRolloutUnknown when none is.
	NewestRollout(ctx context.Context, device, model string) (*fleet.Rollout, error)
	Members(ctx context.Context, rollout string) ([]fleet.Member, error)
	Quarantines(ctx context.Context, path string, released bool) ([]fleet.Quarantine, error)
	NewestEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error)
}
