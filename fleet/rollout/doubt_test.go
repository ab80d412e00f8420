package rollout

import (
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
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
			t.Errorf("%d gone: %s %s, waits: %s", gone, w.r.Status, w.r.Code, Waiting(w.r, w.members))
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
