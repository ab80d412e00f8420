package rollout_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
)

// saying are gates that say what a test wants, by how many devices are good.
type saying func(good int) gate.Result

func (s saying) Judge(_ context.Context, r *fleet.Rollout, members []fleet.Member, now time.Time) ([]rollout.Judged, []fleet.GateEvaluation, error) {
	n := 0
	for _, m := range members {
		if m.Outcome == fleet.OutcomeGood {
			n++
		}
	}
	res := s(n)
	return []rollout.Judged{{Gate: gate.NameScore, Result: res}}, []fleet.GateEvaluation{{Rollout: r.ID, Stage: r.Stage, Gate: gate.NameScore, At: now, Verdict: string(res.Verdict), Evidence: "{}"}}, nil
}

func (saying) Forget(string) {}

// home lives on until a rollout has ended, through holds, which a person resumes, and
// through a way back. A loop that dies is followed by another process.
func (r *rig) home(id string) *fleet.Rollout {
	r.t.Helper()
	for range 200 {
		_, err := r.loop.Step(r.t.Context())
		if errors.Is(err, errDied) {
			r.restart(r.director)
			continue
		}
		must(r.t, err)
		ro, err := r.db.Rollout(r.t.Context(), id)
		must(r.t, err)
		switch ro.Status {
		case fleet.RolloutCompleted, fleet.RolloutReverted:
			return ro
		case fleet.RolloutPaused:
			_, err := r.service.Resume(r.t.Context(), id, "I looked", "me")
			must(r.t, err)
		}
		for _, s := range r.fleet {
			if r.wish(s.id).Generation != s.knows {
				r.live(s, good)
			}
		}
		r.now = r.now.Add(time.Minute)
	}
	r.t.Fatal("the rollout does not end")
	return nil
}

// TestTheServerMayDieWhereGatesSpeak kills the loop before and after each commit of
// rollouts that gates widen, hold and take back; the end is that without a death.
func TestTheServerMayDieWhereGatesSpeak(t *testing.T) {
	suspicious := gate.Result{Verdict: gate.NotYet, Harm: gate.Suspicion, Units: 3}
	base := newRig(t, map[string]int{"pi5": 16})
	must(t, base.db.Close())
	deaths := 0
	for name, c := range map[string]struct {
		gates  saying
		status string
		kinds  []string // acts that the story must have
	}{
		"fails and goes back": {func(n int) gate.Result {
			if n >= 8 {
				return gate.Result{Verdict: gate.Fail, Units: 8, Harm: 1e6}
			}
			return gate.Result{Verdict: gate.Pass}
		}, fleet.RolloutReverted, []string{"rollout.halt", "rollout.reverted"}},
		"suspects, widens, holds and is let go on": {func(n int) gate.Result {
			if n <= 8 {
				return suspicious
			}
			return gate.Result{Verdict: gate.Pass}
		}, fleet.RolloutCompleted, []string{"rollout.widen", "rollout.hold", "rollout.resume"}},
	} {
		clean, commits := "", 1
		for at := 0; at <= commits; at++ { // 0: never
			for _, after := range []bool{false, true} {
				r := base.copied()
				r.gates = c.gates
				d := &dying{Service: r.director, at: at, after: after}
				r.restart(d)
				spec := fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "production", Bake: fleet.Duration(time.Second), Longest: fleet.Duration(time.Minute), OnFail: fleet.OnFailRevert,
					Stages: []fleet.StageSpec{{Count: 2}, {Percent: 50}, {Percent: 100}}}
				ro, err := r.service.Create(t.Context(), spec, "me")
				must(t, err)
				if got := r.home(ro.ID); got.Status != c.status {
					t.Fatalf("%s: %s %s", name, got.Status, got.Reason)
				}
				got := r.shape(ro.ID)
				if at == 0 {
					clean, commits = got, d.n
					r.acts(ro.ID, c.kinds)
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
	if deaths < 100 {
		t.Errorf("only %d deaths", deaths)
	}
}

// acts wants these in the audit of a rollout.
func (r *rig) acts(id string, want []string) {
	r.t.Helper()
	as, err := r.db.Audit(r.t.Context(), id, "", 1000)
	must(r.t, err)
	for _, w := range want {
		if !slices.ContainsFunc(as, func(a fleet.Audit) bool { return a.Act == w }) {
			r.t.Errorf("the audit tells of no %s", w)
		}
	}
}

// TestPeopleRaceTheLoop lets people pause, resume, abort and revert while stages
// finish. Whatever wins: no device is assigned twice, what the audit tells is one
// after the other, and where the rollout ended, no device is left between.
func TestPeopleRaceTheLoop(t *testing.T) {
	for seed := range uint64(6) {
		r := newRig(t, map[string]int{"pi5": 12})
		ro := r.create("1.0.0", fleet.StageSpec{Count: 2}, fleet.StageSpec{Percent: 50}, fleet.StageSpec{Percent: 100})
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for person := range 3 {
			rnd := rand.New(rand.NewPCG(seed, uint64(person)))
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					act := r.service.Pause
					switch x := rnd.IntN(100); {
					case x < 60:
						act = r.service.Resume
					case x >= 99:
						act = r.service.Revert
					case x == 98:
						act = r.service.Abort
					}
					if _, err := act(t.Context(), ro.ID, "race", "p"); err != nil && !errors.Is(err, fleet.ErrRolloutState) {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 150 {
			if _, err := r.loop.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.fleet {
				if r.wish(s.id).Generation != s.knows {
					r.live(s, good)
				}
			}
		}
		close(stop)
		wg.Wait()
		r.settled(ro.ID)
	}
}

// settled lets a rollout that people left anywhere end, and looks at every device.
func (r *rig) settled(id string) {
	r.t.Helper()
	if ro, err := r.db.Rollout(r.t.Context(), id); err != nil {
		r.t.Fatal(err)
	} else if ro.Status == fleet.RolloutAborted {
		_, err := r.service.Revert(r.t.Context(), id, "end", "me")
		must(r.t, err)
	}
	ro := r.home(id)
	assigned := map[string]int{}
	as, err := r.db.Audit(r.t.Context(), id, "", 1000)
	must(r.t, err)
	for _, a := range as {
		if a.Act == "rollout.admit" {
			assigned[a.Detail]++
		}
	}
	for _, m := range r.members(id) {
		_, runs := r.wish(m.Device).Item("digits")
		if assigned[m.Device] > 1 {
			r.t.Errorf("%s was assigned %d times", m.Device, assigned[m.Device])
		}
		if want := ro.Status == fleet.RolloutCompleted; runs != want {
			r.t.Errorf("%s: the rollout is %s, and the device's wish has the release: %v", m.Device, ro.Status, runs)
		}
	}
}
