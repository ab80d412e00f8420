// Package observe turns what requests did into measurements: windows for the
// fleet, alarms within seconds, and the judgement of a candidate in probation.
// Memory is bounded by the number of models and classes, never by traffic. No
// input and no output is kept.
//
// A Monitor is safe for concurrent use.
package observe

import (
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Key is what a window is about.
type Key struct {
	Model, Path, Bundle, Runtime, Rollout, Arm string
}

// Observation is one request that a worker answered or failed. Plan.Answer fills
// in what the answer holds.
type Observation struct {
	Key    Key
	Took   time.Duration // of the model's run, without waiting
	Wait   time.Duration // of the rest of the request: in the queue and on the way
	Code   string        // of the failure; empty: answered
	Plan   *Plan         // nil: inputs are not looked at, and alarms learn what is usual
	Inputs [][]byte      // as the model had them; used during the call only, and not of every request
	Source [2]int        // width and height of the picture that came; zero: none did

	NaN        bool    // an output holds a non-finite value
	Watched    bool    // Class and Score are set
	Class      int     // index of the highest watched output
	Score      float64 // its value
	Sure       bool    // Entropy and Margin are set, as sketch.Certainty has them
	Entropy    float64
	Margin     float64
	Counted    bool // Detections is set
	Detections int  // things found
	// Bins are the contract's reference scores: live ones are counted in the same
	// bins, so that they can be compared and added up. Nil: 20 over 0..1.
	Bins *sketch.Histogram
}

// Monitor collects windows, trials and alarms.
type Monitor struct {
	// Now is the trusted time, which windows are aligned to.
	Now func() time.Time

	mu      sync.Mutex
	length  time.Duration
	windows map[Key]*window
	done    []wire.Sample
	lost    uint64 // windows
	trials  map[Key]*trial
	guards  map[string]*guard // by model
	alarms  []Alarm
}

// Bounds of memory. They hold more than a device with a hundred models needs; see
// TestMemoryIsBounded for what they come to in bytes.
const (
	maxWindows = 128 // open; beyond, the one that was idle longest ends early
	maxDone    = 128 // that ended early and wait to be taken; beyond, they are lost and counted
	maxGuards  = 256 // models with alarms
	maxAlarms  = 256 // that wait to be taken
)

// NewMonitor starts with windows of an hour.
func NewMonitor(now func() time.Time) *Monitor {
	return &Monitor{Now: now, length: time.Hour, windows: map[Key]*window{}, trials: map[Key]*trial{}, guards: map[string]*guard{}}
}

// SetWindow changes the length of windows; those that are open end now.
func (m *Monitor) SetWindow(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d == m.length || d < time.Second {
		return
	}
	m.done = append(m.done, m.close(m.Now(), true)...)
	m.length = d
}

// Window is the present length.
func (m *Monitor) Window() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.length
}

// Add takes in one request.
func (m *Monitor) Add(o *Observation) {
	now := m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.window(o.Key, now)
	w.add(o)
	w.look(o, now)
	if t := m.trials[o.Key]; t != nil {
		t.w.add(o)
	}
	m.guard(o, now)
}

// Memory takes in what a model's workers hold, in kB. Where no request came there is
// no window that it could tell something of.
func (m *Monitor) Memory(k Key, kb int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.windows[k]; w != nil && kb > 0 {
		w.memoryKB = kb
	}
}

// window is the open one of a key.
func (m *Monitor) window(k Key, now time.Time) *window {
	start := now.UTC().Truncate(m.length)
	w := m.windows[k]
	if w != nil && w.start.Equal(start) {
		w.used = now
		return w
	}
	if w != nil {
		m.early(w)
	} else if len(m.windows) >= maxWindows {
		m.early(m.idle())
	}
	w = newWindow(k, start)
	w.used = now
	m.windows[k] = w
	return w
}

// idle is the window that was used least lately.
func (m *Monitor) idle() (idle *window) {
	for _, w := range m.windows {
		if idle == nil || w.used.Before(idle.used) {
			idle = w
		}
	}
	return idle
}

// early ends a window between two calls of Take.
func (m *Monitor) early(w *window) {
	delete(m.windows, w.key)
	if len(m.done) >= maxDone {
		m.lost++
		return
	}
	m.done = append(m.done, w.sample(m.length))
}

// close ends the windows that are over, or all.
func (m *Monitor) close(now time.Time, all bool) (out []wire.Sample) {
	for _, w := range m.windows {
		if all || !now.Before(w.start.Add(m.length)) || now.Before(w.start) {
			delete(m.windows, w.key)
			out = append(out, w.sample(m.length))
		}
	}
	return out
}

// Take returns the samples of windows that are over; all also ends those that are
// not.
func (m *Monitor) Take(all bool) []wire.Sample {
	now := m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := append(m.done, m.close(now, all)...)
	m.done = nil
	return out
}

// Lost returns how many windows were dropped since the last call, because more
// models and arms took turns than are kept.
func (m *Monitor) Lost() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.lost
	m.lost = 0
	return n
}
