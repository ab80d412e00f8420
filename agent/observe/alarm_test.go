package observe

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// watching is a monitor whose model is asked ten times a second.
type watching struct {
	t    *testing.T
	c    *clock
	m    *Monitor
	plan *Plan
	rng  *rand.Rand
}

func newWatching(t *testing.T, c *bundle.Contract) *watching {
	w := &watching{t: t, c: &clock{t: noon}, rng: rand.New(rand.NewPCG(5, 6))}
	w.m = NewMonitor(w.c.now)
	if c != nil {
		w.plan = NewPlan(c)
	}
	return w
}

// ask sends n requests and returns the alarms that came of them.
func (w *watching) ask(n int, score float64, fails float64) []Alarm {
	for range n {
		w.c.set(w.c.now().Add(100 * time.Millisecond))
		o := &Observation{Key: Key{Model: "m", Path: "dev/m/1", Bundle: "b"}, Plan: w.plan, Watched: true, Score: min(max(score+0.05*w.rng.NormFloat64(), 0), 1)}
		o.Sure, o.Entropy = true, (1-o.Score)/2
		if w.rng.Float64() < fails {
			o.Code = "worker.run"
		}
		w.m.Add(o)
	}
	return w.m.Alarms()
}

func referenceOf(score float64, n int) *bundle.Contract {
	rng, s, e := rand.New(rand.NewPCG(1, 1)), sketch.NewHistogram(0, 1, 20), sketch.NewHistogram(0, 1, 20)
	for range n {
		v := min(max(score+0.05*rng.NormFloat64(), 0), 1)
		s.Add(v)
		e.Add((1 - v) / 2)
	}
	return &bundle.Contract{Reference: &bundle.Reference{Samples: uint64(n), Score: s, Entropy: &e, Classes: []uint64{uint64(n)}}}
}

// TestAlarmWithinSeconds: a day of steady answers gives none; scores that fall are
// told within seconds, once, with how far and since when; so is their coming back.
func TestAlarmWithinSeconds(t *testing.T) {
	for name, contract := range map[string]*bundle.Contract{"reference": referenceOf(0.9, 500), "learnt": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWatching(t, contract)
			if a := w.ask(24*36_000, 0.9, 0.001); len(a) != 0 {
				t.Fatalf("a steady day: %+v", a)
			}
			began := w.c.now()
			a := w.ask(100, 0.6, 0)
			if len(a) != 2 {
				t.Fatalf("%d alarms: %+v", len(a), a)
			}
			for _, x := range a {
				if after := x.At.Sub(began); after > 5*time.Second || x.Since.Sub(began).Abs() > 3*time.Second || x.Over || x.Learnt != (contract == nil) || x.Times != 1 || x.Key.Path != "dev/m/1" {
					t.Errorf("%v after the move: %+v", after, x)
				}
				if x.Measure == MeasureScore && (x.Mean > 0.75 || x.Usual < 0.87) {
					t.Errorf("%+v", x)
				}
				t.Logf("%s: %s after %v, %d requests", name, x.Measure, x.At.Sub(began), x.Requests)
			}
			if a := w.ask(10_000, 0.6, 0); len(a) != 0 {
				t.Errorf("told again: %+v", a)
			}
			if a := w.ask(300, 0.9, 0); len(a) != 2 || !a[0].Over || !a[1].Over {
				t.Errorf("not over: %+v", a)
			}
		})
	}
}

// TestErrorsAlarm: one request of a hundred may fail for ever, a third may not.
func TestErrorsAlarm(t *testing.T) {
	w := newWatching(t, nil)
	if a := w.ask(36_000, 0.9, 0.01); len(a) != 0 {
		t.Fatalf("%+v", a)
	}
	began := w.c.now()
	a := w.ask(200, 0.9, 0.33)
	if len(a) != 1 || a[0].Measure != MeasureErrors || a[0].Over || a[0].At.Sub(began) > 20*time.Second || a[0].Mean < 0.1 {
		t.Fatalf("%+v", a)
	}
}

// TestAlarmsAreBounded: what flutters is told once in ten minutes, and how often it
// came in between.
func TestAlarmsAreBounded(t *testing.T) {
	w := newWatching(t, referenceOf(0.9, 500))
	began, times := 0, 0
	for range 36 { // an hour of 100 s each: 30 s bad, 70 s good
		for _, a := range append(w.ask(300, 0.5, 0), w.ask(700, 0.9, 0)...) {
			if a.Measure == MeasureScore && !a.Over {
				began++
				times += a.Times
			}
		}
	}
	if began < 5 || began > 7 || times < 30 {
		t.Errorf("told %d times, for %d that came", began, times)
	}
}

// TestAnotherReleaseBeginsAnew: what a model learnt is not the next one's.
func TestAnotherReleaseBeginsAnew(t *testing.T) {
	w := newWatching(t, nil)
	w.ask(1000, 0.9, 0)
	w.m.guards["m"].key.Bundle = "an older one"
	if a := w.ask(1000, 0.5, 0); len(a) != 0 {
		t.Errorf("%+v", a)
	}
}

// TestEvent: what travels says all of it and fits its type.
func TestEvent(t *testing.T) {
	a := Alarm{Key: Key{Model: "m", Path: "dev/m/1"}, Measure: MeasureScore, At: noon, Since: noon.Add(-3 * time.Second), Requests: 30, Mean: 0.61, Usual: 0.93, Times: 4}
	want := &wire.Event{
		Unix: noon.Unix(), Type: EventDrift, Model: "m", Path: "dev/m/1", Code: "drift.score",
		Detail: "the mean score is 0.610 over the 30 requests since 2026-11-23T11:59:57Z, 0.930 in the reference",
		Attrs: map[string]string{"measure": "score", "mean": "0.61", "usual": "0.93", "since": "2026-11-23T11:59:57Z", wire.AttrTimes: "4",
			wire.AttrNext: "see what the device sees; 'dunlin model drift m --by device' tells whether others have it"},
	}
	if d := cmp.Diff(want, a.Event()); d != "" {
		t.Error(d)
	}
	a.Over = true
	if e := a.Event(); e.Type != EventDriftOver || e.Detail != "the mean score is as usual again" {
		t.Errorf("%+v", e)
	}
}
