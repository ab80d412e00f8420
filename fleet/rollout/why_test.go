package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// TestWhy leads one device of a rollout through everything that can be in its way.
func TestWhy(t *testing.T) {
	now := begin.Add(time.Hour)
	base := func() rollout.Known {
		r, ms := rollout.Arrange("rol_1", fleet.Spec{Model: "digits", Version: "1.1.0", Channel: "production", Stages: []fleet.StageSpec{{Count: 1}, {Percent: 100}}},
			[]*fleet.Device{{ID: "a", Facts: map[string]string{"class": "pi5"}}, {ID: "b", Facts: map[string]string{"class": "pi5"}}, {ID: "c", Facts: map[string]string{"class": "pi5"}}}, "me", begin)
		r.Stages[0].Started = begin
		// The device of the story is the second: others are the first and the last.
		d := &fleet.Device{ID: ms[1].Device, Status: fleet.DeviceActive, Facts: map[string]string{"class": "pi5"}, Online: true}
		return rollout.Known{Device: d, Model: "digits", Wish: &fleet.Wish{Device: d.ID}, Rollout: r, Members: ms, Now: now}
	}
	item := fleet.Item{Model: "digits", Path: "production/digits/1.1.0", Rollout: "rol_1"}
	assigned := func(k *rollout.Known) {
		k.Rollout.Stage = 1
		k.Members[0].Outcome, k.Members[0].Assigned, k.Members[0].Settled = fleet.OutcomeGood, begin, begin
		k.Members[1].Assigned = begin
		k.Wish.Items, k.Wish.Generation = []fleet.Item{item}, 1
	}
	state := func(k *rollout.Known, st wire.ModelState) {
		assigned(k)
		k.Device.Generation = 1
		st.Model = "digits"
		k.Device.Models = []wire.ModelState{st}
	}
	for _, c := range []struct {
		name string
		set  func(*rollout.Known)
		rule string // that blocks; empty: none
		says string // in it, or in the last rule
		who  string
	}{
		{"pending", func(k *rollout.Known) { k.Device.Status = fleet.DevicePending }, "identity", "dunlin device accept", "operator"},
		{"revoked", func(k *rollout.Known) { k.Device.Status = fleet.DeviceRevoked }, "identity", "revoked", "operator"},
		{"no rollout", func(k *rollout.Known) { k.Rollout, k.Members = nil, nil }, "rollout", "no rollout of digits", "operator"},
		{"paused", func(k *rollout.Known) { k.Rollout.Status, k.Rollout.Reason = fleet.RolloutPaused, "lunch" }, "status", "because lunch", "operator"},
		{"halted", func(k *rollout.Known) { k.Rollout.Status, k.Rollout.Reason = fleet.RolloutHalted, "wrong" }, "status", "halted because wrong", "nobody"},
		{"quarantine", func(k *rollout.Known) {
			k.Quarantines = []fleet.Quarantine{{ID: "qua_1", Path: item.Path, Class: "pi5", Reason: "wrong"}}
		}, "quarantine", "qua_1 on pi5", "operator"},
		{"quarantine of another class", func(k *rollout.Known) {
			k.Quarantines = []fleet.Quarantine{{ID: "qua_1", Path: item.Path, Class: "pi4", Reason: "wrong"}}
		}, "stage", "it belongs to stage 2", "time"},
		{"a later stage", func(*rollout.Known) {}, "stage", "stage 1 of 2 is under way", "time"},
		{"control", func(k *rollout.Known) { k.Device.ID = k.Members[2].Device }, "stage", "control, the last stage", "time"},
		{"gates are open", func(k *rollout.Known) {
			k.Rollout.Stages[0].Baking = begin
			k.Readings = []fleet.GateReading{{Gate: "score", Verdict: fleet.GateNotYet, Decidable: true}, {Gate: "errors", Verdict: fleet.GatePass}}
		}, "stage", "not decided: score", "time"},
		{"the first of its class is tried", func(k *rollout.Known) { k.Rollout.Stage, k.Members[0].Assigned, k.Members[0].Acked = 1, now, now }, "class", "first pi5", "time"},
		{"one of its class failed", func(k *rollout.Known) {
			k.Rollout.Stage = 1
			k.Members[0].Assigned, k.Members[0].Outcome, k.Members[0].Settled = begin, fleet.OutcomeFailed, begin
			k.Members[2].Assigned, k.Members[2].Acked = now, now
		}, "class", "one pi5 failed", "time"},
		{"next", func(k *rollout.Known) {
			k.Rollout.Stage, k.Members[0].Outcome, k.Members[0].Assigned = 1, fleet.OutcomeGood, begin
			k.Members[0].Settled = begin
		}, "assignment", "it is next", "time"},
		{"offline", func(k *rollout.Known) { assigned(k); k.Device.Online, k.Device.LastSeen = false, begin }, "heard", "last seen 2026-11-23 12:00:00", "device"},
		{"off at this hour", func(k *rollout.Known) {
			assigned(k)
			k.Device.Online = false
			k.Members[1].Hours = fleet.DayHours(1 << 3)
		}, "heard", "as usual at this hour", "time"},
		{"online", assigned, "heard", "heartbeat", "time"},
		{"at work", func(k *rollout.Known) {
			state(k, wire.ModelState{Step: "prove", Candidate: &wire.SlotState{Path: item.Path}})
		}, "verdict", "at work: prove", "time"},
		{"refused", func(k *rollout.Known) {
			state(k, wire.ModelState{Candidate: &wire.SlotState{Path: item.Path, Verdict: "bad", Code: "prove.golden", Reason: "case 0\x1b[2J"}})
		}, "verdict", "case 0 [2J (prove.golden)", "mended release"},
		{"claimed", func(k *rollout.Known) { state(k, wire.ModelState{Active: &wire.SlotState{Path: item.Path}}) }, "proof", "not proven", "time"},
		{"proven", func(k *rollout.Known) {
			state(k, wire.ModelState{Active: &wire.SlotState{Path: item.Path}})
			k.Device.Proof = fleet.Proven
		}, "", "proven", ""},
	} {
		k := base()
		c.set(&k)
		w := rollout.Explain(k)
		last := w.Rules[len(w.Rules)-1]
		blocker := ""
		if w.Blocker != nil {
			blocker = w.Blocker.Rule
		}
		if blocker != c.rule || !strings.Contains(last.Says, c.says) || !strings.Contains(last.Who, c.who) || last.Holds != (c.rule == "") {
			t.Errorf("%s: %q blocks, %+v; want %q %q %q", c.name, blocker, last, c.rule, c.says, c.who)
		}
	}
}

// TestWhyOfARealDevice asks the server's own rows.
func TestWhyOfARealDevice(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 3})
	asker := &rollout.Asker{Store: r.db, Now: func() time.Time { return r.now }}
	why := func(device string) fleet.Why {
		ws, err := asker.Why(t.Context(), device, "digits")
		must(t, err)
		return ws[0]
	}
	if w := why("pi5-0"); w.Blocker == nil || w.Blocker.Rule != "rollout" {
		t.Errorf("before a rollout: %+v", w)
	}
	r.run(r.create("1.1.0", fleet.StageSpec{Percent: 100}).ID, good)
	w := why("pi5-0")
	if w.Blocker != nil || w.Runs != "production/digits/1.1.0" || w.Wished != w.Runs {
		t.Errorf("after it: %+v", w)
	}
	if all, err := asker.Why(t.Context(), "pi5-0", ""); err != nil || len(all) != 1 {
		t.Errorf("of all models: %+v, %v", all, err)
	}
	if _, err := asker.Why(t.Context(), "nobody", ""); err == nil {
		t.Error("of nobody")
	}
}

func BenchmarkWhy(b *testing.B) {
	var ds []*fleet.Device
	for i := range 100_000 {
		ds = append(ds, &fleet.Device{ID: strings.Repeat("d", i%7+1) + time.Duration(i).String(), Facts: map[string]string{"class": "pi5"}})
	}
	r, ms := rollout.Arrange("rol_1", fleet.Spec{Model: "digits", Version: "1.1.0", Channel: "production"}, ds, "me", begin)
	r.Stage = 4
	k := rollout.Known{Device: &fleet.Device{ID: ms[50_000].Device, Status: fleet.DeviceActive}, Model: "digits", Wish: &fleet.Wish{}, Rollout: r, Members: ms, Now: begin}
	for b.Loop() {
		rollout.Explain(k)
	}
}
