package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/evidence"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// behaving is a fleet that serves for two days before a rollout begins, and whose
// devices send their windows while it goes on.
type behaving struct {
	*rig
	evidence *evidence.Service
	rand     *rand.Rand
	sent     map[string]uint64
	latency  map[string]float64 // factor of each device
	bad      func(s *wire.Sample)
	windows  time.Time // sent up to here
}

const (
	former  = "production/digits/1.0.0"
	release = "production/digits/1.1.0"
)

func newBehaving(t *testing.T, devices int) *behaving {
	b := &behaving{rig: newRig(t, map[string]int{"pi5": devices}), rand: rand.New(rand.NewPCG(1, 2)), sent: map[string]uint64{}, latency: map[string]float64{}, bad: func(*wire.Sample) {}}
	b.evidence = &evidence.Service{Store: b.db}
	b.gates = b.evidence
	b.restart(b.director)
	b.now = b.now.Truncate(time.Hour)
	for _, s := range b.fleet {
		s.active, s.verdicts[former] = former, ""
		b.latency[s.id] = 0.8 + 0.4*b.rand.Float64()
	}
	for at := b.now.Add(-49 * time.Hour); at.Before(b.now); at = at.Add(time.Hour) {
		b.send(at, time.Hour, 600)
	}
	b.windows = b.now
	return b
}

// send stores a window of every device.
func (b *behaving) send(at time.Time, d time.Duration, requests int) {
	var out []fleet.Sample
	for _, s := range b.fleet {
		w := wire.Sample{Start: at.Unix(), Seconds: int64(d / time.Second), Model: "digits", Path: s.active, Classes: make([]uint64, 4), Memory: uint64(20_000 + b.rand.IntN(200))}
		h := sketch.NewHistogram(0, 1, 50)
		w.Score = &h
		var q sketch.Quantiles
		slow := b.latency[s.id] * (0.97 + 0.06*b.rand.Float64())
		for range requests {
			w.Requests++
			w.Classes[b.rand.IntN(4)]++
			h.Add(min(0.999, 0.9+0.03*b.rand.NormFloat64()))
			q.Add(int64(5000 * slow * (1 + 0.3*b.rand.ExpFloat64())))
		}
		w.Latency = q.Encode()
		if s.active == release {
			b.bad(&w)
		}
		b.sent[s.id]++
		out = append(out, fleet.Sample{Device: s.id, Epoch: 1, Sequence: b.sent[s.id], Sample: w})
	}
	must(b.t, b.db.InsertSamples(b.t.Context(), out))
	b.evidence.Add(out)
}

// until lives on until the rollout rests or so much time is over.
func (b *behaving) until(id string, d time.Duration) *fleet.Rollout {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		_, err := b.loop.Step(b.t.Context())
		must(b.t, err)
		ro, err := b.db.Rollout(b.t.Context(), id)
		must(b.t, err)
		if ro.Status != fleet.RolloutRunning {
			return ro
		}
		for _, s := range b.fleet {
			if b.wish(s.id).Generation != s.knows {
				b.live(s, good)
			}
		}
		b.now = b.now.Add(5 * time.Minute)
		for ; b.windows.Add(5 * time.Minute).Before(b.now.Add(time.Second)); b.windows = b.windows.Add(5 * time.Minute) {
			b.send(b.windows, 5*time.Minute, 60)
		}
	}
	ro, err := b.db.Rollout(b.t.Context(), id)
	must(b.t, err)
	return ro
}

func (b *behaving) begin(spec fleet.Spec) *fleet.Rollout {
	b.t.Helper()
	spec.Model, spec.Version, spec.Channel = "digits", "1.1.0", "production"
	ro, err := b.service.Create(b.t.Context(), spec, "me")
	must(b.t, err)
	return ro
}

// TestBehaviourGates: real samples in a real database, the engine as it runs.
func TestBehaviourGates(t *testing.T) {
	for _, c := range []struct {
		name, status, code string
		bad                func(s *wire.Sample)
	}{
		{"good", fleet.RolloutCompleted, "", func(*wire.Sample) {}},
		{"slow", fleet.RolloutHalted, "gate.latency_p95", func(s *wire.Sample) {
			var q sketch.Quantiles
			for range s.Requests {
				q.Add(13000)
			}
			s.Latency = q.Encode()
		}},
		{"classes", fleet.RolloutHalted, "gate.classes", func(s *wire.Sample) { s.Classes[0], s.Classes[1] = 0, s.Classes[1]+s.Classes[0] }},
		{"score", fleet.RolloutHalted, "gate.score", func(s *wire.Sample) {
			h := sketch.NewHistogram(0, 1, 50)
			for range s.Requests {
				h.Add(0.5)
			}
			s.Score = &h
		}},
		{"errors", fleet.RolloutHalted, "gate.errors", func(s *wire.Sample) { s.Errors = map[string]uint64{"worker.run": s.Requests / 5} }},
		{"not finite", fleet.RolloutHalted, "gate.nan", func(s *wire.Sample) { s.NaN = s.Requests / 10 }},
		{"crashes", fleet.RolloutHalted, "gate.crash", func(s *wire.Sample) { s.Crashes = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBehaving(t, 24)
			b.bad = c.bad
			ro := b.until(b.begin(fleet.Spec{}).ID, 60*time.Hour)
			if ro.Status != c.status || ro.Code != c.code {
				t.Fatalf("%s %s %s in stage %d, want %s %s", ro.Status, ro.Code, ro.Reason, ro.Stage, c.status, c.code)
			}
			b.replay(ro.ID, strings.TrimPrefix(c.code, "gate."))
		})
	}
}

// replay judges the stored evidence again, and wants the failed gate among it.
func (b *behaving) replay(id, failed string) {
	b.t.Helper()
	es, err := b.db.GateEvaluations(b.t.Context(), id)
	must(b.t, err)
	found := failed == ""
	for _, e := range es {
		if e.Gate == "prove" || e.Gate == "probation" || e.Gate == "install" || e.Gate == "silence" {
			continue
		}
		if got := replayed(b.t, e); string(got.Verdict) != e.Verdict {
			b.t.Fatalf("%s at %s: stored %s, replayed %+v", e.Gate, e.At, e.Verdict, got)
		}
		found = found || e.Gate == failed && e.Verdict == fleet.GateFail
	}
	if !found {
		b.t.Fatalf("the evidence that failed gate %s is not stored", failed)
	}
}

func replayed(t testing.TB, e fleet.GateEvaluation) gate.Result {
	t.Helper()
	res, err := rollout.Replay(e)
	must(t, err)
	return res
}

// TestARestartedServerJudgesAlike: another process reads the same samples and comes
// to the same evidence.
func TestARestartedServerJudgesAlike(t *testing.T) {
	b := newBehaving(t, 24)
	ro := b.until(b.begin(fleet.Spec{}).ID, 5*time.Hour)
	again := &evidence.Service{Store: b.db}
	_, first, err := b.evidence.Judge(t.Context(), ro, b.members(ro.ID), b.now)
	must(t, err)
	_, second, err := again.Judge(t.Context(), ro, b.members(ro.ID), b.now)
	must(t, err)
	if a, b := fmt.Sprint(first), fmt.Sprint(second); a != b {
		t.Errorf("first  %s\nsecond %s", a, b)
	}
}

// TestLittlePast: a fleet that was not watched for long has no behaviour gates, and
// the evidence says so; the rollout goes on with the others.
func TestLittlePast(t *testing.T) {
	b := newBehaving(t, 6)
	b.now = b.now.Add(100 * time.Hour)
	b.windows = b.now
	ro := b.until(b.begin(fleet.Spec{Stages: []fleet.StageSpec{{Percent: 100}}, Bake: fleet.Duration(time.Hour)}).ID, 20*time.Hour)
	if ro.Status != fleet.RolloutCompleted {
		t.Fatalf("%s %s %s", ro.Status, ro.Code, ro.Reason)
	}
	es, err := b.db.NewestEvaluations(t.Context(), ro.ID)
	must(t, err)
	for _, e := range es {
		if e.Gate == gate.NameP95 && replayed(t, e).Why != gate.TooFew {
			t.Errorf("%s: %+v", e.Gate, replayed(t, e))
		}
	}
}

func TestGatesOfASpecification(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 2})
	for want, g := range map[string]fleet.GatesSpec{
		`gates.use[0]: "speed"`:     {Use: []string{"speed"}},
		`gates.use[1]: "score"`:     {Use: []string{"score", "score"}},
		"gates.look":                {Look: 1},
		"gates.past":                {Past: fleet.Duration(1000 * time.Hour)},
		"gates.expect.speed":        {Expect: map[string]fleet.Bound{"speed": {Harm: 1}}},
		"gates.expect.score":        {Expect: map[string]fleet.Bound{"score": {Margin: 1, Harm: 0.5}}},
		"gates.metrics.corrections": {Metrics: map[string]fleet.Bound{"corrections": {}}},
	} {
		_, err := r.service.Create(t.Context(), fleet.Spec{Model: "digits", Version: "1.1.0", Channel: "production", Gates: &g}, "me")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", g, err, want)
		}
	}
}

// TestRevert: a person, or a failed gate, has every changed device go back, good ones
// included, and the rollout ends when each has said that it did.
func TestRevert(t *testing.T) {
	for _, onFail := range []string{"", fleet.OnFailRevert} {
		b := newBehaving(t, 24)
		if onFail != "" {
			b.bad = func(s *wire.Sample) { s.NaN = s.Requests / 10 }
		}
		ro := b.until(b.begin(fleet.Spec{OnFail: onFail}).ID, 60*time.Hour)
		if onFail == "" {
			if ro.Status != fleet.RolloutCompleted {
				t.Fatalf("%s %s", ro.Status, ro.Reason)
			}
			_, err := b.service.Revert(t.Context(), ro.ID, "the shop wants the old one", "me")
			must(t, err)
		} else if ro.Status != fleet.RolloutReverting || ro.Code != "gate.nan" {
			t.Fatalf("%s %s %s", ro.Status, ro.Code, ro.Reason)
		}
		away := 0
		for range 200 {
			_, err := b.loop.Step(t.Context())
			must(t, err)
			leaving := 0
			for _, m := range b.members(ro.ID) {
				if !m.Undone.IsZero() && !m.Back {
					leaving++
				}
			}
			away = max(away, leaving)
			if ro, err = b.db.Rollout(t.Context(), ro.ID); err != nil || ro.Status != fleet.RolloutReverting {
				must(t, err)
				break
			}
			for i, s := range b.fleet {
				if b.wish(s.id).Generation != s.knows && (int(b.now.Unix())/60+i)%3 == 0 {
					b.live(s, good)
				}
			}
			b.now = b.now.Add(time.Minute)
		}
		if ro.Status != fleet.RolloutReverted || ro.Finished.IsZero() {
			t.Fatalf("%q: %s", onFail, ro.Status)
		}
		if onFail == "" && away > 10 {
			t.Errorf("%d devices were on their way at once", away)
		}
		for _, s := range b.fleet {
			if _, ok := b.wish(s.id).Item("digits"); ok {
				t.Errorf("%s is still to run the release", s.id)
			}
		}
		if _, err := b.service.Revert(t.Context(), ro.ID, "", "me"); err == nil {
			t.Error("a rollout that is back goes back again")
		}
	}
}
