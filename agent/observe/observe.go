// Package observe turns what requests did into measurements: windows for the
// fleet, and the judgement of a candidate in probation. Memory is bounded by the
// number of models and classes, never by traffic. No input and no output is kept.
//
// A Monitor is safe for concurrent use.
package observe

import (
	"math"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Key is what a window is about.
type Key struct {
	Model, Path, Bundle, Runtime, Rollout, Arm string
}

// Observation is one request that a worker answered or failed.
type Observation struct {
	Key     Key
	Took    time.Duration // of the model's run, without waiting
	Code    string        // of the failure; empty: answered
	Watched bool          // Class and Score are set
	Class   int           // index of the highest watched output
	Score   float64       // its value
	NaN     bool          // an output held a non-finite value
	Input   float64       // mean of the first input; NaN: not measured
	// Bins are the contract's reference scores: live ones are counted in the same
	// bins, so that they can be compared and added up. Nil: 20 over 0..1.
	Bins *sketch.Histogram
}

const (
	scoreBins  = 20
	maxClasses = 4096
)

// window is one span of one key.
type window struct {
	key      Key
	start    time.Time
	requests uint64
	errors   map[string]uint64
	latency  sketch.Quantiles
	classes  []uint64
	score    sketch.Histogram
	input    sketch.Moments
	nan      uint64
}

func newWindow(k Key, start time.Time) *window {
	return &window{key: k, start: start, errors: map[string]uint64{}}
}

func (w *window) add(o Observation) {
	if w.requests == 0 {
		w.score = sketch.NewHistogram(0, 1, scoreBins)
		if o.Bins != nil && o.Bins.Valid() {
			w.score = sketch.NewHistogram(o.Bins.Lo, o.Bins.Hi, len(o.Bins.Bins))
		}
	}
	w.requests++
	if o.Code != "" {
		w.errors[o.Code]++
		return
	}
	w.latency.Add(o.Took.Microseconds())
	if o.NaN {
		w.nan++
	}
	if !math.IsNaN(o.Input) {
		w.input.Add(o.Input)
	}
	if !o.Watched || o.Class < 0 || o.Class >= maxClasses {
		return
	}
	for len(w.classes) <= o.Class {
		w.classes = append(w.classes, 0)
	}
	w.classes[o.Class]++
	w.score.Add(o.Score)
}

func (w *window) sample(length time.Duration) wire.Sample {
	s := wire.Sample{
		Start: w.start.Unix(), Seconds: int64(length / time.Second), Model: w.key.Model, Path: w.key.Path, Bundle: w.key.Bundle, Runtime: w.key.Runtime,
		Rollout: w.key.Rollout, Arm: w.key.Arm, Requests: w.requests, Latency: w.latency.Encode(), Classes: w.classes, NaN: w.nan,
	}
	if len(w.errors) > 0 {
		s.Errors = w.errors
	}
	if w.score.Total() > 0 {
		s.Score = &w.score
	}
	if w.input.N > 0 {
		s.Input = &w.input
	}
	return s
}

// Monitor collects windows and trials.
type Monitor struct {
	// Now is the trusted time, which windows are aligned to.
	Now func() time.Time

	mu      sync.Mutex
	length  time.Duration
	windows map[Key]*window
	done    []wire.Sample
	trials  map[Key]*trial
}

// maxDone bounds the samples that wait to be taken.
const maxDone = 256

// NewMonitor starts with windows of an hour.
func NewMonitor(now func() time.Time) *Monitor {
	return &Monitor{Now: now, length: time.Hour, windows: map[Key]*window{}, trials: map[Key]*trial{}}
}

// SetWindow changes the length of windows; those that are open end now.
func (m *Monitor) SetWindow(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d == m.length || d < time.Second {
		return
	}
	m.close(m.Now(), true)
	m.length = d
}

// Window is the present length.
func (m *Monitor) Window() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.length
}

// Add takes in one request.
func (m *Monitor) Add(o Observation) {
	now := m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	start := now.UTC().Truncate(m.length)
	w := m.windows[o.Key]
	if w != nil && !w.start.Equal(start) {
		m.finish(w)
		w = nil
	}
	if w == nil {
		w = newWindow(o.Key, start)
		m.windows[o.Key] = w
	}
	w.add(o)
	if t := m.trials[o.Key]; t != nil {
		t.w.add(o)
	}
}

func (m *Monitor) finish(w *window) {
	delete(m.windows, w.key)
	if len(m.done) < maxDone {
		m.done = append(m.done, w.sample(m.length))
	}
}

// close ends the windows that are over, or all.
func (m *Monitor) close(now time.Time, all bool) {
	for _, w := range m.windows {
		if all || !now.Before(w.start.Add(m.length)) {
			m.finish(w)
		}
	}
}

// Take returns the samples of windows that are over; all also ends those that are
// not.
func (m *Monitor) Take(all bool) []wire.Sample {
	now := m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.close(now, all)
	out := m.done
	m.done = nil
	return out
}
