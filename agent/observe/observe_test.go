package observe

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func answered(k Key, class int, score float64) *Observation {
	return &Observation{Key: k, Took: time.Millisecond, Watched: true, Class: class, Score: score}
}

func TestWindowsAreAligned(t *testing.T) {
	c := &clock{t: noon.Add(17*time.Minute + 3*time.Second)}
	m := NewMonitor(c.now)
	m.SetWindow(time.Minute)
	k := Key{Model: "m", Path: "dev/m/1", Bundle: "sha256:b", Runtime: "sha256:r", Rollout: "rol_1", Arm: "treated"}
	m.Add(answered(k, 3, 0.9))
	m.Add(&Observation{Key: k, Code: "worker.crash"})
	if got := m.Take(false); got != nil {
		t.Fatalf("an open window was taken: %+v", got)
	}
	c.set(noon.Add(18 * time.Minute))
	got := m.Take(false)
	if len(got) != 1 {
		t.Fatalf("%d samples", len(got))
	}
	q, err := got[0].Latency.Decode()
	if err != nil || q.Count() != 1 || math.Abs(q.Quantile(0.5)-1000) > 20 {
		t.Errorf("latency: %v %v", q, err)
	}
	score := sketch.NewHistogram(0, 1, scoreBins)
	score.Add(0.9)
	want := wire.Sample{
		Start: noon.Add(17 * time.Minute).Unix(), Seconds: 60, Model: "m", Path: "dev/m/1", Bundle: "sha256:b", Runtime: "sha256:r", Rollout: "rol_1", Arm: "treated",
		Requests: 2, Errors: map[string]uint64{"worker.crash": 1}, Latency: got[0].Latency, Classes: []uint64{0, 0, 0, 1}, Score: &score,
		Wait: got[0].Wait,
	}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Error(d)
	}
	if got := m.Take(true); got != nil {
		t.Errorf("taken twice: %+v", got)
	}
}

func TestWindowChangesLength(t *testing.T) {
	c := &clock{t: noon.Add(90 * time.Second)}
	m := NewMonitor(c.now)
	m.Add(answered(Key{Model: "m"}, 0, 1))
	m.SetWindow(time.Minute)
	m.Add(answered(Key{Model: "m"}, 0, 1))
	got := m.Take(true)
	if len(got) != 2 || got[0].Seconds != 3600 || got[0].Start != noon.Unix() || got[1].Seconds != 60 || got[1].Start != noon.Add(time.Minute).Unix() {
		t.Errorf("%+v", got)
	}
	m.SetWindow(0)
	if m.Window() != time.Minute {
		t.Errorf("a window of %v was set", m.Window())
	}
}

// TestNothingIsCountedTwiceOrLost: whatever the clock does, the samples add up to
// the observations.
func TestNothingIsCountedTwiceOrLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &clock{t: noon}
		m := NewMonitor(c.now)
		m.SetWindow(time.Minute)
		var requests, failed, nan, classes uint64
		var samples []wire.Sample
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			c.set(c.now().Add(time.Duration(rapid.IntRange(-30, 90).Draw(t, "seconds")) * time.Second))
			o := answered(Key{Model: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "model")}, rapid.IntRange(-1, 20).Draw(t, "class"), rapid.Float64().Draw(t, "score"))
			o.Bins = &sketch.Histogram{Lo: -1, Hi: 1, Bins: make([]uint64, 8)}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				o.Code = "worker.deadline"
				failed++
			case 1:
				o.NaN = true
				nan++
				fallthrough
			default:
				if o.Class >= 0 {
					classes++
				}
			}
			requests++
			m.Add(o)
			if rapid.Bool().Draw(t, "take") {
				samples = append(samples, m.Take(false)...)
			}
		}
		for _, s := range append(samples, m.Take(true)...) {
			if s.Start%60 != 0 || s.Seconds != 60 {
				t.Fatalf("not aligned: %+v", s)
			}
			requests -= s.Requests
			failed -= s.Errors["worker.deadline"]
			nan -= s.NaN
			for _, n := range s.Classes {
				classes -= n
			}
			if s.Score != nil && (s.Score.Lo != -1 || s.Score.Hi != 1 || len(s.Score.Bins) != 8) {
				t.Fatalf("other bins than the reference's: %+v", s.Score)
			}
		}
		if requests != 0 || failed != 0 || nan != 0 || classes != 0 {
			t.Fatalf("left over: %d requests, %d failed, %d not numbers, %d classes", requests, failed, nan, classes)
		}
	})
}

// reader is a model as its answers look: the share of each class and the mean
// score.
type reader struct {
	classes []float64
	score   float64
	spread  float64
	nan     float64
	fails   float64
	took    time.Duration
}

func (r reader) observe(rng *rand.Rand, k Key) *Observation {
	took := r.took + time.Duration(rng.ExpFloat64()*float64(r.took)/10)
	if rng.Float64() < r.fails {
		return &Observation{Key: k, Took: took, Code: "worker.run"}
	}
	if rng.Float64() < r.nan {
		return &Observation{Key: k, Took: took, NaN: true, Class: -1}
	}
	class, x := 0, rng.Float64()
	for x -= r.classes[0]; x > 0 && class < len(r.classes)-1; {
		class++
		x -= r.classes[class]
	}
	return &Observation{Key: k, Took: took, Watched: true, Class: class, Score: min(max(r.score+r.spread*rng.NormFloat64(), 0), 1)}
}

// expectOf is the contract of a reader from so many validation samples.
func expectOf(r reader, samples int) Expect {
	rng := rand.New(rand.NewPCG(1, 2))
	h := sketch.NewHistogram(0, 1, scoreBins)
	classes := make([]uint64, len(r.classes))
	for range samples {
		o := r.observe(rng, Key{})
		h.Add(o.Score)
		classes[o.Class]++
	}
	return Expect{Score: &h, Classes: classes, P95: 5 * time.Millisecond, Duration: time.Minute, Requests: 100}
}

func uniform(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1 / float64(n)
	}
	return out
}

func (r reader) with(change func(*reader)) reader { change(&r); return r }

// TestVerdicts puts 40 devices each through a whole probation, judged after every
// tenth request, as an agent does. What is good must never fail on any of them;
// what is broken must fail on all.
func TestVerdicts(t *testing.T) {
	good := reader{classes: uniform(10), score: 0.9, spread: 0.1, took: 500 * time.Microsecond}
	for name, c := range map[string]struct {
		r    reader
		code string // empty: passes
	}{
		"as in the reference":      {good, ""},
		"1.3 times as slow":        {good.with(func(r *reader) { r.took = 650 * time.Microsecond }), ""},
		"a little less sure":       {good.with(func(r *reader) { r.score = 0.85 }), ""},
		"another mix":              {good.with(func(r *reader) { r.classes = []float64{.4, .4, .05, .05, .05, .05} }), ""},
		"one request fails of 100": {good.with(func(r *reader) { r.fails = 0.01 }), ""},
		"NaN for one odd client":   {good.with(func(r *reader) { r.nan = 0.003 }), ""},
		"scores collapse":          {good.with(func(r *reader) { r.score = 0.1; r.spread = 0.02 }), "probation.score"},
		"scores lose a third":      {good.with(func(r *reader) { r.score = 0.6 }), "probation.score"},
		"always one class":         {good.with(func(r *reader) { r.classes = []float64{0, 0, 0, 1} }), "probation.class"},
		"NaN":                      {good.with(func(r *reader) { r.nan = 0.3 }), "probation.nan"},
		"NaN always":               {good.with(func(r *reader) { r.nan = 1 }), "probation.nan"},
		"a third fails":            {good.with(func(r *reader) { r.fails = 0.3 }), "probation.errors"},
		"too slow":                 {good.with(func(r *reader) { r.took = 8 * time.Millisecond }), "probation.latency"},
	} {
		t.Run(name, func(t *testing.T) {
			e := expectOf(good, 300)
			for device := range 40 {
				rng := rand.New(rand.NewPCG(uint64(device), 7))
				m := NewMonitor(func() time.Time { return noon })
				k := Key{Model: "m"}
				m.Begin(k)
				var v Verdict
				n := 0
				for n = 1; n <= 300 && !v.Failed; n++ {
					m.Add(c.r.observe(rng, k))
					if n%10 == 0 {
						v = m.Judge(k, e, time.Duration(n)*time.Second)
					}
				}
				if v.Code != c.code || v.Passed != (c.code == "") {
					t.Fatalf("device %d after %d requests: %+v, want %q", device, n, v, c.code)
				}
			}
		})
	}
}

func TestNotYet(t *testing.T) {
	good := reader{classes: uniform(10), score: 0.9, spread: 0.1, took: time.Millisecond}
	e := expectOf(good, 300)
	m := NewMonitor(func() time.Time { return noon })
	k := Key{Model: "m"}
	if v := m.Judge(k, e, time.Hour); v.Passed || v.Failed {
		t.Errorf("a trial that was never begun: %+v", v)
	}
	m.Begin(k)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 99 {
		m.Add(good.observe(rng, k))
	}
	if v := m.Judge(k, e, time.Hour); v.Passed || v.Failed || v.Answered != 99 {
		t.Errorf("one request short: %+v", v)
	}
	m.Add(good.observe(rng, k))
	if v := m.Judge(k, e, time.Minute-1); v.Passed || v.Failed {
		t.Errorf("one nanosecond short: %+v", v)
	}
	if v := m.Judge(k, e, time.Minute); !v.Passed || v.Failed {
		t.Errorf("both reached: %+v", v)
	}
	m.Crashed(k)
	if v := m.Judge(k, e, time.Minute); !v.Failed || v.Code != "probation.crash" {
		t.Errorf("after a crash: %+v", v)
	}
	m.Begin(k)
	if v := m.Judge(k, e, time.Minute); v.Failed || v.Passed {
		t.Errorf("begun anew: %+v", v)
	}
	m.End(k)
	m.Crashed(k)
	if v := m.Judge(k, e, time.Minute); v.Failed {
		t.Errorf("ended: %+v", v)
	}
}

// TestFewRequestsSayNothing: 29 wrong looking answers are no finding.
func TestFewRequestsSayNothing(t *testing.T) {
	m := NewMonitor(func() time.Time { return noon })
	k := Key{Model: "m"}
	m.Begin(k)
	for range 29 {
		m.Add(&Observation{Key: k, Code: "worker.run"})
	}
	if v := m.Judge(k, Expect{}, 0); v.Failed {
		t.Errorf("%+v after 29 requests", v)
	}
	m.Add(&Observation{Key: k, Code: "worker.run"})
	if v := m.Judge(k, Expect{}, 0); !v.Failed || v.Code != "probation.errors" {
		t.Errorf("%+v after 30 requests", v)
	}
}
