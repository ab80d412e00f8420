package rollout

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

// TestARevokedCanaryIsReplaced revokes whoever is in the first stages: others take
// the place, one after the other, and control never goes first.
func TestARevokedCanaryIsReplaced(t *testing.T) {
	for gone := range 9 {
		w := newWorld(spec(fleet.StageSpec{Count: 1}, fleet.StageSpec{Count: 2}, fleet.StageSpec{Percent: 100}), devices(8))
		for i := range gone {
			w.members[i].Revoked = true
		}
		w.settle()
		if len(w.passed) > 0 {
			t.Fatalf("%d gone: stages %v passed on nothing", gone, w.passed)
		}
		for range 100 {
			w.settle()
			w.answer(good)
			w.now = w.now.Add(time.Minute)
		}
		want := fleet.RolloutCompleted
		if gone >= 7 { // all but control, all
			want = fleet.RolloutHalted
		}
		if w.r.Status != want || want == fleet.RolloutHalted && w.r.Code != "gate.unknown" {
			t.Errorf("%d gone: %s %s, waits: %s", gone, w.r.Status, w.r.Code, Waiting(w.r, w.tallies(), w.now))
		}
		if n := w.admitted[w.members[7].Device]; n > 0 != (gone < 7) {
			t.Errorf("%d gone: control was admitted %d times", gone, n)
		}
	}
}

// TestARevokedStageIsReplaced revokes those of a later stage before they are
// changed: the stage takes another and bakes, or, where nobody is left to be
// taken, goes on with those who are good.
func TestARevokedStageIsReplaced(t *testing.T) {
	for gone := 1; gone <= 6; gone++ {
		w := newWorld(spec(fleet.StageSpec{Count: 1}, fleet.StageSpec{Count: 3}, fleet.StageSpec{Percent: 100}), devices(8))
		w.settle()
		w.answer(good)
		for i := range gone {
			w.members[1+i].Revoked = true
		}
		for range 100 {
			if w.r.Status != fleet.RolloutRunning {
				break
			}
			w.settle()
			w.answer(good)
			w.now = w.now.Add(time.Minute)
		}
		if w.r.Status != fleet.RolloutCompleted || len(w.admitted) != 8-gone {
			t.Errorf("%d gone: %s, %d admitted", gone, w.r.Status, len(w.admitted))
		}
		if baked := !w.r.Stages[1].Baking.IsZero(); baked != (gone < 6) {
			t.Errorf("%d gone: the second stage baked %v", gone, baked)
		}
	}
}

// TestFaultsOfTheDeviceAreNoVerdict has one device fail for reasons of its own: the
// rollout goes on; what a release does wrong halts it at once.
func TestFaultsOfTheDeviceAreNoVerdict(t *testing.T) {
	for code, halts := range map[string]bool{
		"prove.golden": true, "prove.latency": true, "check.model.check": true, "check.hardware": true, "probation.score": true, "probation.crash": true,
		"prove.digest": false, "check.blob.digest": false, "place.lost": false, "try.serve": false, "probation.restarts": false,
		"update.restarts": false, "rollback.by_hand": false, "install.runtime": false,
	} {
		w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(12))
		first := ""
		for range 100 {
			w.settle()
			w.answer(func(d string) (string, string) {
				if first == "" || first == d {
					first = d
					return fleet.OutcomeFailed, code
				}
				return good(d)
			})
			w.now = w.now.Add(time.Minute)
		}
		if got := w.r.Status == fleet.RolloutHalted; got != halts {
			t.Errorf("%s: %s, %s", code, w.r.Status, w.r.Reason)
		}
	}
}

// TestEveryCodeHasItsGate judges one failure of each code among twenty devices by
// every gate: one counts it, and that one says at once whether it halts.
func TestEveryCodeHasItsGate(t *testing.T) {
	table := map[string]string{
		"check.release": "prove", "check.runtime": "prove", "check.hardware": "prove", "check.name": "prove", "check.below_floor": "prove",
		"check.contract.invalid": "prove", "check.manifest.path": "prove", "check.model.mismatch": "prove", "check.golden.invalid": "prove",
		"check.blob.digest": "install", "check.blob.size": "install",
		"prove.golden": "prove", "prove.nan": "prove", "prove.shape": "prove", "prove.latency": "prove", "prove.memory": "prove", "prove.start": "prove", "prove.crash": "prove", "prove.hang": "prove",
		"prove.repeat": "prove", "prove.slices": "prove", "prove.cases": "prove", "prove.latency_p99": "prove",
		"prove.cold_start": "install", "prove.relative_latency": "install", "prove.relative_start": "install", "prove.shadow": "install",
		"prove.digest": "install", "place.lost": "install", "try.serve": "install", "probation.restarts": "install", "update.restarts": "install",
		"probation.score": "probation", "probation.class": "probation", "probation.crash": "probation", "probation.errors": "probation", "probation.latency": "probation", "probation.nan": "probation",
		"rollback.by_hand": "install", "rollback.other": "probation", "try.other": "probation",
		"install.runtime": "install", "install.disk": "install", "": "install", "checked": "install",
	}
	for code, want := range table {
		w := newWorld(spec(), devices(20))
		for i := range w.members {
			w.members[i].Outcome, w.members[i].Settled = fleet.OutcomeGood, w.now
		}
		w.members[0].Outcome, w.members[0].Code = fleet.OutcomeFailed, code
		evals, failed := evaluate(w.r, w.members, w.now)
		for _, g := range evals {
			var e Evidence
			if err := json.Unmarshal([]byte(g.Evidence), &e); err != nil {
				t.Fatal(err)
			}
			if e.Failed > 0 != (g.Gate == want) {
				t.Errorf("%s: gate %s counts %d", code, g.Gate, e.Failed)
			}
			if hand := code == byHand && g.Gate == want; e.ByHand > 0 != hand {
				t.Errorf("%s: gate %s counts %d by hand", code, g.Gate, e.ByHand)
			}
		}
		if halts := failed != nil; halts != (want != "install") {
			t.Errorf("%s: halts %v", code, halts)
		}
	}
}

// TestThePageOfGates holds docs/gates.md against the code.
func TestThePageOfGates(t *testing.T) {
	page, err := os.ReadFile("../../docs/gates.md")
	if err != nil {
		t.Fatal(err)
	}
	devices, _, _ := strings.Cut(string(page), "\n## What the release does\n")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\w+)").FindAllStringSubmatch(devices, -1)
	told := map[string]bool{}
	for _, row := range rows {
		code := strings.Replace(row[1], "*", "other", 1)
		told[strings.TrimSuffix(row[1], "*")] = true
		for _, g := range gates {
			if g.outcome == fleet.OutcomeFailed && g.counts(&fleet.Member{Outcome: fleet.OutcomeFailed, Code: code}) != (g.name == row[2]) {
				t.Errorf("%s: the page says %s, gate %s thinks otherwise", row[1], row[2], g.name)
			}
		}
	}
	for _, code := range ownFaults {
		if !told[code] {
			t.Errorf("the page does not tell of %s", code)
		}
	}
}

// TestAPersonsVerdict takes two devices back by hand: that halts, and says who.
func TestAPersonsVerdict(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Percent: 100}), devices(12))
	for range 10 {
		w.settle()
		w.answer(func(string) (string, string) { return fleet.OutcomeFailed, byHand })
		w.now = w.now.Add(time.Minute)
	}
	if w.r.Status != fleet.RolloutHalted || w.r.Code != "gate.install" || !strings.Contains(w.r.Reason, "2 taken back by hand") || len(w.admitted) != 2 {
		t.Errorf("%s %s, %d devices: %s", w.r.Status, w.r.Code, len(w.admitted), w.r.Reason)
	}
}

// TestOpenGates: what a stage does after its bake, by what the gates say.
func TestOpenGates(t *testing.T) {
	pass := gate.Result{Verdict: gate.Pass}
	open := gate.Result{Verdict: gate.NotYet, Decidable: true, Harm: 1}
	small := gate.Result{Verdict: gate.NotYet, Harm: 1}
	suspicious := gate.Result{Verdict: gate.NotYet, Harm: gate.Suspicion}
	for _, c := range []struct {
		name    string
		results []gate.Result
		devices int
		wait    time.Duration
		want    Kind
	}{
		{"all pass", []gate.Result{pass, pass}, 20, 0, PassStage},
		{"one is not decided", []gate.Result{pass, open}, 20, 0, ""},
		{"nor after the longest wait", []gate.Result{pass, open}, 20, DefaultLongest, PassStage},
		{"one could not be decided at this size", []gate.Result{pass, small}, 20, 0, PassStage},
		{"one suspects something", []gate.Result{pass, suspicious}, 20, 0, Widen},
		{"and all that may be changed are", []gate.Result{pass, suspicious}, 6, 0, ""},
		{"for the longest wait", []gate.Result{pass, suspicious}, 6, DefaultLongest, Hold},
		{"one failed", []gate.Result{{Verdict: gate.Fail}, pass}, 20, 0, Halt},
	} {
		w := newWorld(spec(fleet.StageSpec{Count: 2}, fleet.StageSpec{Percent: 100}), devices(c.devices))
		for w.r.Stages[0].Baking.IsZero() {
			w.settle()
			w.answer(good)
		}
		w.now = w.now.Add(max(bakeOf(w.r), c.wait))
		var judged []Judged
		for _, r := range c.results {
			judged = append(judged, Judged{"latency_p95", r})
		}
		got := Kind("")
		if as := Plan(w.r, Facts{w.members, judged}, w.now); len(as) > 0 {
			got = as[0].Kind
			if got == Widen && len(as[0].Devices) != 2 {
				t.Errorf("%s: %d devices more", c.name, len(as[0].Devices))
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if c.want == Hold {
			w.judged = judged
			w.settle()
			w.r.Status = fleet.RolloutRunning // a person resumes it
			if as := Plan(w.r, Facts{w.members, judged}, w.now); len(as) == 0 || as[0].Kind != PassStage {
				t.Errorf("a person lets it go on, and it does not: %v", as)
			}
		}
	}
}

// TestNightsAreNoBake: time in which devices are expected to be off does not count,
// for the bake and for silence.
func TestNightsAreNoBake(t *testing.T) {
	w := newWorld(spec(fleet.StageSpec{Count: 2}, fleet.StageSpec{Percent: 100}), devices(20))
	for i := range w.members {
		w.members[i].Hours = fleet.DayHours(1 << ((start.Hour() + 5) % 24)) // one hour a day, five hours from now
	}
	w.r.Spec.Bake = fleet.Duration(30 * time.Minute)
	for w.r.Stages[0].Baking.IsZero() {
		w.settle()
		w.answer(good)
	}
	w.now = start.Truncate(time.Hour).Add(5*time.Hour + 29*time.Minute)
	if as := Plan(w.r, Facts{Members: w.members}, w.now); len(as) != 0 {
		t.Fatalf("before the half hour is over: %v", as)
	}
	w.now = w.now.Add(time.Minute)
	if as := Plan(w.r, Facts{Members: w.members}, w.now); len(as) == 0 || as[0].Kind != PassStage {
		t.Fatalf("after it: %v", as)
	}
	m := fleet.Member{Assigned: start, Acked: start, Heard: start, Hours: w.members[0].Hours}
	if at := silentAt(w.r, m); !at.Equal(start.Truncate(time.Hour).Add(5*time.Hour + DefaultSilence)) {
		t.Errorf("silent at %v", at)
	}
}
