package rollout

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func devices(classes ...int) []*fleet.Device {
	var out []*fleet.Device
	for c, n := range classes {
		for i := range n {
			out = append(out, &fleet.Device{ID: fmt.Sprintf("d-%d-%d", c, i), Facts: map[string]string{"class": fmt.Sprintf("class-%d", c)}})
		}
	}
	return out
}

// world carries actions out on rows as the loop and the store do.
type world struct {
	r        *fleet.Rollout
	members  []fleet.Member
	now      time.Time
	judged   []Judged
	admitted map[string]int
	passed   []int
	widened  int
}

func newWorld(spec fleet.Spec, ds []*fleet.Device) *world {
	w := &world{now: start, admitted: map[string]int{}}
	w.r, w.members = New(spec, ds, "test", start)
	return w
}

func (w *world) at(device string) *fleet.Member {
	return &w.members[slices.IndexFunc(w.members, func(m fleet.Member) bool { return m.Device == device })]
}

func (w *world) act(a Action) {
	st := &w.r.Stages[w.r.Stage]
	switch a.Kind {
	case StartStage:
		st.Started = w.now
	case Admit:
		w.at(a.Device).Assigned, w.at(a.Device).Stage = w.now, a.Stage
		w.admitted[a.Device]++
	case Silent:
		m := w.at(a.Device)
		m.Outcome, m.Settled = fleet.OutcomeSilent, w.now
	case Bake:
		st.Baking = w.now
	case PassStage:
		st.Passed = w.now
		w.passed = append(w.passed, w.r.Stage)
		w.r.Stage++
	case Complete:
		w.r.Status = fleet.RolloutCompleted
	case Halt:
		w.r.Status, w.r.Code, w.r.Reason = fleet.RolloutHalted, a.Code, a.Reason
	case Widen:
		for _, d := range a.Devices {
			w.at(d).Stage = a.Stage
		}
		w.r.Stages[w.r.Stage].Baking = time.Time{}
		w.widened++
	case Hold:
		st.Held = w.now
		w.r.Status = fleet.RolloutPaused
	case Undo:
		w.at(a.Device).Undone = w.now
	}
}

// settle plans and acts until nothing is due.
func (w *world) settle() {
	for range 10_000 {
		as := Plan(w.r, Facts{w.members, w.judged}, w.now)
		if len(as) == 0 {
			return
		}
		for _, a := range as {
			w.act(a)
		}
	}
	panic("the plan does not come to rest")
}

// tallies counts each device alone.
func (w *world) tallies() []fleet.Tally {
	var out []fleet.Tally
	for _, m := range w.members {
		out = append(out, fleet.Tally{Stage: m.Stage, Outcome: m.Outcome, Assigned: !m.Assigned.IsZero(), Acked: !m.Acked.IsZero(), Revoked: m.Revoked, Devices: 1})
	}
	return out
}

// answer gives every device that was admitted its outcome.
func (w *world) answer(outcome func(device string) (string, string)) {
	for i := range w.members {
		m := &w.members[i]
		if m.Assigned.IsZero() || m.Outcome != "" {
			continue
		}
		if m.Acked.IsZero() {
			m.Acked = w.now
		}
		if o, code := outcome(m.Device); o != "" {
			m.Outcome, m.Code, m.Settled = o, code, w.now
		}
	}
}

// outcomes lets devices that acknowledged tell theirs.
func (w *world) outcomes(outcome func(device string) (string, string)) {
	for i := range w.members {
		m := &w.members[i]
		if m.Acked.IsZero() || m.Outcome != "" {
			continue
		}
		if o, code := outcome(m.Device); o != "" {
			m.Outcome, m.Code, m.Settled = o, code, w.now
		}
	}
}

func good(string) (string, string) { return fleet.OutcomeGood, "" }

func spec(stages ...fleet.StageSpec) fleet.Spec {
	return fleet.Spec{Model: "m", Version: "1.0.0", Channel: "production", Stages: stages, Bake: fleet.Duration(time.Minute)}
}

func TestGoodReleaseReachesEveryDevice(t *testing.T) {
	for _, ds := range [][]*fleet.Device{devices(1), devices(2), devices(6), devices(100), devices(40, 3, 1)} {
		w := newWorld(spec(), ds)
		for range 400 {
			w.settle()
			if w.r.Status != fleet.RolloutRunning {
				break
			}
			w.answer(good)
			w.now = w.now.Add(time.Minute)
		}
		if w.r.Status != fleet.RolloutCompleted {
			t.Fatalf("%d devices: %s in stage %d, waits: %s", len(ds), w.r.Status, w.r.Stage, Waiting(w.r, w.tallies(), w.now))
		}
		for _, d := range ds {
			if w.admitted[d.ID] != 1 {
				t.Errorf("%s admitted %d times", d.ID, w.admitted[d.ID])
			}
		}
	}
}

func TestRefusalHaltsAtTheFirstDevice(t *testing.T) {
	for _, code := range []string{"prove.golden", "check.model.mismatch", "probation.crash", "probation.score"} {
		w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(50))
		for range 20 {
			w.settle()
			w.answer(func(string) (string, string) { return fleet.OutcomeFailed, code })
		}
		if w.r.Status != fleet.RolloutHalted || len(w.admitted) != 1 {
			t.Errorf("%s: %s after %d devices", code, w.r.Status, len(w.admitted))
		}
		for _, m := range w.members {
			if !m.Assigned.IsZero() && m.Undone.IsZero() {
				t.Errorf("%s: %s keeps the wish of a halted rollout", code, m.Device)
			}
		}
	}
}

func TestOneFailedInstallHoldsTwoHalt(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(50))
	w.settle()
	w.answer(good)
	w.now = w.now.Add(time.Second)
	w.settle()
	first := ""
	w.answer(func(d string) (string, string) {
		if first == "" {
			first = d
			return fleet.OutcomeFailed, "install.disk"
		}
		return "", ""
	})
	before := len(w.admitted)
	w.settle()
	if w.r.Status != fleet.RolloutRunning || len(w.admitted) != before {
		t.Fatalf("after one failure: %s, %d devices admitted, before %d", w.r.Status, len(w.admitted), before)
	}
	second := false
	w.answer(func(string) (string, string) {
		if !second {
			second = true
			return fleet.OutcomeFailed, "install.disk"
		}
		return "", ""
	})
	w.settle()
	if w.r.Status != fleet.RolloutHalted || w.r.Code != "gate.install" {
		t.Fatalf("after two failures among the first ten: %s %s", w.r.Status, w.r.Code)
	}
}

// TestAHeldClassIsTriedOneByOne: after a failure one more device is admitted; its
// success frees the class.
func TestAHeldClassIsTriedOneByOne(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Count: 3}, fleet.StageSpec{Percent: 100}), devices(40))
	w.settle()
	w.answer(good)
	w.settle()
	w.now = w.now.Add(time.Second)
	failed := false
	w.answer(func(string) (string, string) {
		if !failed {
			failed = true
			return fleet.OutcomeFailed, "install.disk"
		}
		return good("")
	})
	if len(w.admitted) != 3 {
		t.Fatalf("%d devices in the first stage", len(w.admitted))
	}
	// The failure and the success came together: that does not free the class.
	w.settle()
	w.now = w.now.Add(time.Minute)
	w.settle()
	if w.r.Stage != 1 || len(w.admitted) != 4 {
		t.Fatalf("stage %d, %d devices admitted to a held class", w.r.Stage, len(w.admitted))
	}
	w.answer(good)
	w.settle()
	if len(w.admitted) != 36 {
		t.Fatalf("%d devices after the success that frees the class", len(w.admitted))
	}
}

// TestTwoOfTheFirstTen puts two failures at places in the order of outcomes.
func TestTwoOfTheFirstTen(t *testing.T) {
	for _, c := range []struct {
		first, second int
		want          string
	}{
		{9, 10, fleet.RolloutHalted}, {3, 10, fleet.RolloutHalted}, {9, 11, fleet.RolloutRunning}, {11, 12, fleet.RolloutRunning},
	} {
		w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(50))
		for n := 1; n <= 12; n++ {
			w.settle()
			w.now = w.now.Add(time.Second)
			answered := false
			w.answer(func(string) (string, string) {
				switch {
				case answered:
					return "", ""
				case n == c.first || n == c.second:
					answered = true
					return fleet.OutcomeFailed, "install.disk"
				}
				answered = true
				return fleet.OutcomeGood, ""
			})
		}
		w.settle()
		if w.r.Status != c.want {
			t.Errorf("failures at %d and %d: %s, want %s", c.first, c.second, w.r.Status, c.want)
		}
	}
}

func TestSilenceNeedsAnAcknowledgement(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Count: 1}, fleet.StageSpec{Percent: 100}), devices(20))
	w.settle()
	w.now = w.now.Add(24 * time.Hour)
	w.settle()
	if w.members[0].Outcome == fleet.OutcomeSilent || w.r.Stage != 0 {
		t.Fatal("a device that never acknowledged became silent, or the stage went on without it")
	}
	if n := slices.IndexFunc(w.members, func(m fleet.Member) bool { return m.Assigned.IsZero() }); n != 2 {
		t.Fatalf("%d devices are assigned, want the one that is late and one in its place", n)
	}
	for i := range w.members {
		if !w.members[i].Assigned.IsZero() {
			w.members[i].Acked = w.now
		}
	}
	if next := Next(w.r, w.members, w.now); !next.Equal(w.now.Add(DefaultSilence)) {
		t.Fatalf("next look at %v", next)
	}
	w.now = w.now.Add(DefaultSilence)
	w.settle()
	silent := 0
	for _, m := range w.members {
		if m.Outcome == fleet.OutcomeSilent {
			silent++
		}
	}
	if silent != 2 {
		t.Fatalf("%d devices silent", silent)
	}
}

func TestADeviceThatIsHeardOfIsNotSilent(t *testing.T) {
	w := newWorld(spec(), devices(1))
	w.settle()
	m := &w.members[0]
	m.Acked = w.now
	for range 20 { // a long download
		w.now = w.now.Add(DefaultSilence / 2)
		m.Heard = w.now
		w.settle()
	}
	if m.Outcome != "" {
		t.Fatalf("%s while it was heard of", m.Outcome)
	}
	if next := Next(w.r, w.members, w.now); !next.Equal(m.Heard.Add(DefaultSilence)) {
		t.Fatalf("next look at %v", next)
	}
	w.now = w.now.Add(DefaultSilence)
	w.settle()
	if m.Outcome != fleet.OutcomeSilent {
		t.Fatal("a device that is not heard of does not become silent")
	}
}

func TestARevokedDeviceHoldsNobodyUp(t *testing.T) {
	for _, assigned := range []bool{false, true} {
		w := newWorld(spec(), devices(8))
		if assigned {
			w.settle()
		}
		w.members[0].Revoked = true
		for range 100 {
			w.settle()
			w.answer(func(d string) (string, string) {
				if d == w.members[0].Device {
					return "", ""
				}
				return good(d)
			})
			w.now = w.now.Add(time.Minute)
		}
		if w.r.Status != fleet.RolloutCompleted {
			t.Errorf("assigned %v: %s, waits: %s", assigned, w.r.Status, Waiting(w.r, w.tallies(), w.now))
		}
		if n := w.admitted[w.members[0].Device]; n > 0 != assigned {
			t.Errorf("assigned %v: admitted %d times", assigned, n)
		}
	}
}

func TestAFifthMayBePending(t *testing.T) {
	for _, c := range []struct {
		away int
		want string
	}{{20, fleet.RolloutCompleted}, {21, fleet.RolloutRunning}} {
		no := 0
		one := spec(fleet.StageSpec{Count: 1}, fleet.StageSpec{Count: 101})
		one.Control = &no
		w := newWorld(one, devices(101))
		for range 50 {
			w.settle()
			for _, m := range w.members[1 : 101-c.away] {
				if x := w.at(m.Device); !x.Assigned.IsZero() && x.Acked.IsZero() {
					x.Acked, x.Outcome, x.Settled = w.now, fleet.OutcomeGood, w.now
				}
			}
			if x := &w.members[0]; x.Outcome == "" {
				x.Acked, x.Outcome, x.Settled = w.now, fleet.OutcomeGood, w.now
			}
			w.now = w.now.Add(time.Minute)
		}
		if w.r.Status != c.want {
			t.Errorf("%d of 100 away: %s, want %s", c.away, w.r.Status, c.want)
		}
	}
}

// TestNextIsAhead guards the loop against spinning: a device that comes late,
// after the bake is over, leaves nothing that time alone makes due in the past.
func TestNextIsAhead(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Count: 1}, fleet.StageSpec{Percent: 100}), devices(12))
	w.settle()
	w.answer(good)
	w.settle()
	w.now = w.now.Add(time.Minute)
	w.settle()
	late := ""
	w.answer(func(d string) (string, string) {
		if late == "" {
			late = d
		}
		return good(d)
	})
	x := w.at(late)
	x.Acked, x.Outcome, x.Settled = time.Time{}, "", time.Time{}
	w.settle()
	if w.r.Stages[1].Baking.IsZero() {
		t.Fatal("one pending of ten keeps the stage from baking")
	}
	w.now = w.now.Add(30 * time.Second)
	w.at(late).Acked = w.now
	w.now = w.now.Add(time.Hour)
	w.at(late).Heard = w.now
	w.settle()
	if next := Next(w.r, w.members, w.now); !next.After(w.now) {
		t.Fatalf("next look at %v, it is %v", next, w.now)
	}
}

func TestPausedAndEndedRolloutsRest(t *testing.T) {
	for _, status := range []string{fleet.RolloutPaused, fleet.RolloutCompleted} {
		w := newWorld(spec(), devices(10))
		w.r.Status = status
		if as := Plan(w.r, Facts{w.members, w.judged}, w.now); len(as) != 0 {
			t.Errorf("%s: %v", status, as)
		}
	}
}

func TestStoredEvidenceGivesTheStoredVerdict(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(30))
	for range 20 {
		w.settle()
		w.answer(func(d string) (string, string) {
			if rank(w.r.ID, d)[0] < 64 {
				return fleet.OutcomeFailed, "install.disk"
			}
			return good(d)
		})
		evals, _ := evaluate(w.r, w.members, w.now)
		for _, g := range evals {
			var e Evidence
			if err := json.Unmarshal([]byte(g.Evidence), &e); err != nil {
				t.Fatal(err)
			}
			if e.Judge() != g.Verdict {
				t.Fatalf("gate %s: stored %s, replayed %s: %s", g.Gate, g.Verdict, e.Judge(), g.Evidence)
			}
		}
	}
}

// TestPlanKeepsItsPromises runs random fleets with random outcomes and clocks.
func TestPlanKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 30), 1, 3).Draw(t, "classes")
		var stages []fleet.StageSpec
		for p := 0; p < 100; {
			p = min(100, p+rapid.IntRange(1, 60).Draw(t, "percent"))
			stages = append(stages, fleet.StageSpec{Percent: p, Count: rapid.IntRange(0, 3).Draw(t, "count")})
		}
		w := newWorld(spec(stages...), devices(sizes...))
		faults := rapid.IntRange(0, 3).Draw(t, "faults")
		for range 300 {
			was, stage := w.r.Status, w.r.Stage
			w.settle()
			w.promises(t, was, stage)
			if w.r.Status != fleet.RolloutRunning {
				break
			}
			away := rapid.IntRange(0, 20).Draw(t, "away")
			for i := range w.members {
				m := &w.members[i]
				switch x := (i*7 + away) % 21; {
				case x == 0 && faults > 2:
					m.Revoked = true
				case x > 2 && !m.Assigned.IsZero() && m.Acked.IsZero():
					m.Acked, m.Heard = w.now, w.now
				}
			}
			w.outcomes(func(string) (string, string) {
				switch x := rapid.IntRange(0, 20).Draw(t, "outcome"); {
				case x < faults:
					return fleet.OutcomeFailed, rapid.SampledFrom([]string{"prove.golden", "install.disk"}).Draw(t, "code")
				case x < 6:
					return "", ""
				}
				return fleet.OutcomeGood, ""
			})
			w.judged = judgedAtRandom(t)
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second)
		}
	})
}

func judgedAtRandom(t *rapid.T) (out []Judged) {
	for range rapid.IntRange(0, 3).Draw(t, "gates") {
		r := gate.Result{Verdict: gate.Pass}
		if rapid.Bool().Draw(t, "open") {
			r = gate.Result{Verdict: gate.NotYet, Decidable: rapid.Bool().Draw(t, "decidable"), Harm: rapid.SampledFrom([]float64{1, 50}).Draw(t, "harm")}
		}
		if rapid.IntRange(0, 50).Draw(t, "fails") == 0 {
			r.Verdict = gate.Fail
		}
		out = append(out, Judged{Gate: "score", Result: r})
	}
	return out
}

// classGood tells whether a treated device of the class is good.
func (w *world) classGood(class string) bool {
	return slices.ContainsFunc(w.members, func(m fleet.Member) bool {
		return m.Stratum == class && !m.Control && m.Outcome == fleet.OutcomeGood
	})
}

func (w *world) promises(t *rapid.T, was string, stage int) {
	if was != fleet.RolloutRunning && w.r.Status != was {
		t.Fatalf("%s became %s by itself", was, w.r.Status)
	}
	if w.r.Stage < stage {
		t.Fatal("a stage went back")
	}
	for _, j := range w.judged {
		if j.Result.Verdict == gate.Fail && w.r.Status == fleet.RolloutRunning {
			t.Fatal("a rollout goes on although a gate failed")
		}
	}
	firstGood := map[string]bool{}
	openBefore := map[string]int{}
	for _, m := range w.members {
		if w.admitted[m.Device] > 1 {
			t.Fatalf("%s was admitted twice", m.Device)
		}
		if !m.Assigned.IsZero() && m.Stage > w.r.Stage {
			t.Fatalf("%s of stage %d was admitted in stage %d", m.Device, m.Stage, w.r.Stage)
		}
		if m.Control && !m.Assigned.IsZero() && (w.r.Stage < len(w.r.Spec.Stages) || !w.classGood(m.Stratum)) {
			t.Fatalf("control %s was admitted before the last gate, or with nobody good", m.Device)
		}
		firstGood[m.Stratum] = firstGood[m.Stratum] || m.Outcome == fleet.OutcomeGood
		if !m.Assigned.IsZero() && m.Outcome == "" && !m.Revoked {
			openBefore[m.Stratum]++
		}
	}
	for s, n := range openBefore {
		if !firstGood[s] && n > 1 {
			t.Fatalf("class %s has %d devices under way before its first success", s, n)
		}
	}
}

// BenchmarkPlan is one plan in the middle of a rollout: half of the devices are good.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(spec(), devices(n*6/10, n*3/10, n/10))
			w.r.Stage, w.r.Stages[4].Started = 4, start
			for i := range w.members {
				if m := &w.members[i]; i%2 == 0 && m.Stage <= 4 {
					m.Assigned, m.Acked, m.Settled, m.Outcome = start, start, start, fleet.OutcomeGood
				} else if m.Stage <= 4 {
					m.Assigned, m.Acked, m.Heard = start, start, start
				}
			}
			for b.Loop() {
				Plan(w.r, Facts{w.members, w.judged}, w.now)
			}
		})
	}
}
