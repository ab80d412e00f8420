package rollout_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
)

func two() map[string]int { return map[string]int{"pi5": 4, "x86": 2} }

func TestAReleaseReachesTheFleet(t *testing.T) {
	r := newRig(t, two())
	ro := r.run(r.create("1.0.0").ID, good)
	if ro.Status != fleet.RolloutCompleted || ro.Finished.IsZero() {
		t.Fatalf("%s %s: %s", ro.Status, ro.Code, ro.Reason)
	}
	for _, s := range r.fleet {
		w := r.wish(s.id)
		if s.active != "production/digits/1.0.0" || w.Generation != 1 || w.Items[0].Runtime != "production/runtime-litert-arm64/2.3.0" {
			t.Errorf("%s runs %q, wish %+v", s.id, s.active, w)
		}
	}
	for _, m := range r.members(ro.ID) {
		if m.Control && m.Assigned.Before(ro.Stages[len(ro.Stages)-1].Started) {
			t.Errorf("control %s was changed before the last gate", m.Device)
		}
	}
	evals, err := r.db.GateEvaluations(t.Context(), ro.ID)
	must(t, err)
	if want := 4 * len(ro.Stages); len(evals) != want {
		t.Errorf("%d gate evaluations, want %d", len(evals), want)
	}
}

// TestABadReleaseIsTakenBack: the first device refuses; nobody else is touched,
// and its wish is what it was.
func TestABadReleaseIsTakenBack(t *testing.T) {
	r := newRig(t, two())
	r.run(r.create("1.0.0").ID, good)
	ro := r.run(r.create("1.1.0").ID, func(string, string) string { return "prove.golden" })
	if ro.Status != fleet.RolloutHalted || ro.Code != "gate.prove" {
		t.Fatalf("%s %s: %s", ro.Status, ro.Code, ro.Reason)
	}
	_, err := r.loop.Step(t.Context())
	must(t, err)
	hit := 0
	for _, m := range r.members(ro.ID) {
		w := r.wish(m.Device)
		if it, _ := w.Item("digits"); it.Path != "production/digits/1.0.0" {
			t.Errorf("%s shall run %s after the halt", m.Device, it.Path)
		}
		if !m.Assigned.IsZero() {
			hit++
		}
	}
	if hit != 2 { // one of each class
		t.Errorf("%d devices were given a release that the first one refuses", hit)
	}
	if open, _ := r.db.OpenRollouts(t.Context()); len(open) != 0 {
		t.Errorf("still open: %v", open)
	}
	evals, err := r.db.GateEvaluations(t.Context(), ro.ID)
	must(t, err)
	failed := 0
	for _, g := range evals {
		var e rollout.Evidence
		must(t, json.Unmarshal([]byte(g.Evidence), &e))
		if e.Judge() != g.Verdict {
			t.Errorf("gate %s: stored %s, replayed %s", g.Gate, g.Verdict, e.Judge())
		}
		if g.Verdict == fleet.GateFail {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d failed gates stored", failed)
	}
}

// shape is what must be the same however often the server died.
func (r *rig) shape(id string) string {
	ro, err := r.db.Rollout(r.t.Context(), id)
	must(r.t, err)
	out := fmt.Sprintln(ro.Status, ro.Code, ro.Stage)
	var lines []string
	for _, m := range r.members(id) {
		w := r.wish(m.Device)
		lines = append(lines, fmt.Sprintln(m.Stratum, m.Order, m.Stage, m.Outcome, m.Code, m.Assigned.IsZero(), m.Undone.IsZero(), w.Generation, len(w.Items)))
	}
	slices.Sort(lines)
	return out + fmt.Sprint(lines)
}

// TestTheServerMayDieAtAnyAction kills the loop before and after each commit of a
// rollout that completes and of one that halts; another process goes on, and the
// end is that of a server that never died.
func TestTheServerMayDieAtAnyAction(t *testing.T) {
	deaths := 0
	base := newRig(t, two())
	must(t, base.db.Close())
	for name, verdict := range map[string]func(string, string) string{
		"completes": good, "halts": func(string, string) string { return "prove.golden" },
	} {
		clean, commits := "", 1
		for at := 0; at <= commits; at++ { // 0: never
			for _, after := range []bool{false, true} {
				r := base.copied()
				d := &dying{Service: r.director, at: at, after: after}
				r.restart(d)
				ro := r.create("1.0.0", fleet.StageSpec{Count: 1}, fleet.StageSpec{Percent: 100})
				r.run(ro.ID, verdict)
				if _, err := r.loop.Step(t.Context()); errors.Is(err, errDied) {
					r.restart(r.director)
					_, err = r.loop.Step(t.Context())
					must(t, err)
				}
				got := r.shape(ro.ID)
				if at == 0 {
					clean, commits = got, d.n
					continue
				}
				deaths++
				if got != clean {
					t.Fatalf("%s, died at commit %d (after %v):\n%s\nwithout a death:\n%s", name, at, after, got, clean)
				}
			}
		}
	}
	t.Logf("%d deaths", deaths)
	if deaths < 30 {
		t.Errorf("only %d deaths", deaths)
	}
}

// TestOneServerAtATime: the holder of the lease acts, another waits until the
// lease is over; what the former one still tries is refused.
func TestOneServerAtATime(t *testing.T) {
	r := newRig(t, two())
	ro := r.create("1.0.0")
	_, err := r.loop.Step(t.Context())
	must(t, err)
	first, had := r.loop, r.shape(ro.ID)
	at := r.now
	r.restart(r.director)
	r.now = at // the lease still runs
	for _, s := range r.fleet {
		r.live(s, good)
	}
	settled := r.shape(ro.ID)
	_, err = r.loop.Step(t.Context())
	must(t, err)
	if got := r.shape(ro.ID); got != settled || got == had {
		t.Error("a second server acted beside the first")
	}
	for range 2 { // the bake begins, the bake is over
		r.now = r.now.Add(20 * time.Second)
		_, err = r.loop.Step(t.Context())
		must(t, err)
	}
	taken := r.shape(ro.ID)
	if taken == settled {
		t.Error("a lease that is over was not taken")
	}
	_, err = first.Step(t.Context())
	must(t, err)
	if got := r.shape(ro.ID); got != taken {
		t.Error("the former server acted on")
	}
}

// TestTheFirstDevicesStopTheRest: a stage admits many at once; two that fail while
// others are still being admitted stop the rest.
func TestTheFirstDevicesStopTheRest(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 200})
	w := &watched{dying: dying{Service: r.director}}
	r.restart(w)
	ro := r.create("1.0.0", fleet.StageSpec{Percent: 100})
	_, err := r.loop.Step(t.Context())
	must(t, err)
	var first *simulated
	for _, s := range r.fleet {
		if r.wish(s.id).Generation > 0 {
			first = s
		}
	}
	r.live(first, good)
	failed := 0
	w.admitted = func(device string) {
		if failed == 2 {
			return
		}
		for _, s := range r.fleet {
			if s.id == device {
				failed++
				r.live(s, func(string, string) string { return "install.disk" })
			}
		}
	}
	_, err = r.loop.Step(t.Context())
	must(t, err)
	got, err := r.db.Rollout(t.Context(), ro.ID)
	must(t, err)
	n := 0
	for _, m := range r.members(ro.ID) {
		if !m.Assigned.IsZero() {
			n++
		}
	}
	if got.Status != fleet.RolloutHalted || n > 1+64 {
		t.Errorf("%s after %d of 200 devices", got.Status, n)
	}
}

func TestADeviceWithoutRuntimeFailsAndHoldsNobodyUp(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 2})
	r.enrol("old-0", "pi5", "arm64")
	must(t, r.db.UpdateDevice(t.Context(), "old-0", func(d *fleet.Device) error { d.Facts = nil; return nil }))
	ro := r.run(r.create("1.0.0").ID, good)
	for _, m := range r.members(ro.ID) {
		if m.Device != "old-0" {
			continue
		}
		if m.Outcome != fleet.OutcomeFailed || m.Code != "install.runtime" || len(r.wish(m.Device).Items) != 0 {
			t.Errorf("%+v", m)
		}
	}
	if ro.Status != fleet.RolloutCompleted {
		t.Errorf("%s: %s", ro.Status, ro.Reason)
	}
}
