package observe

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// What alarms are about.
const (
	MeasureScore   = "score"
	MeasureEntropy = "entropy"
	MeasureErrors  = "errors"
)

// Constants of alarms.
const (
	// falseEvery is the number of requests in which one false alarm of a measure is
	// to be had, if requests are independent and as usual.
	falseEvery  = 1e7
	usualErrors = 0.01 // share of failed requests that is no news
	badErrors   = 0.05 // share that is to be found
	learnt      = 300  // requests that tell what is usual where the contract does not
	alarmPause  = 10 * time.Minute
)

// Alarm says that a model's answers are no longer as they were, or with Over that
// they are again.
type Alarm struct {
	Key      Key
	Measure  string
	Over     bool
	At       time.Time // when it was told
	Since    time.Time // when it began, as far as the answers tell
	Requests uint64    // since then
	Mean     float64   // since then: of the measure, for errors the share that failed
	Usual    float64   // what it was compared with
	Learnt   bool      // Usual is the device's own, not the contract's
	Times    int       // how often it began since the last alarm was told, at least 1
}

// guard watches the answers of a model for a lasting change.
type guard struct {
	key     Key // bundle and runtime that it knows
	score   stream
	entropy stream
	rate    sketch.Rate
	failed  run
	told    told
}

// stream is one measure with what is usual of it.
type stream struct {
	usual    sketch.Histogram
	learning bool
	learnt   bool
	ph       sketch.PageHinkley
	up, down run
	told     told
}

// run adds up what came since a sum was zero.
type run struct {
	since time.Time
	n     uint64
	sum   float64
}

func (r *run) add(sum, v float64, now time.Time) {
	if sum == 0 {
		*r = run{}
		return
	}
	if r.n == 0 {
		r.since = now
	}
	r.n++
	r.sum += v
}

func (r *run) mean() float64 { return r.sum / float64(max(r.n, 1)) }

// told is what has been said of an alarm, so that one that flutters is counted and
// not repeated.
type told struct {
	on, said bool
	at       time.Time
	times    int
}

// next returns whether something is to be said now.
func (t *told) next(on bool, now time.Time) bool {
	if on && !t.on {
		t.times++
	}
	t.on = on
	if on == t.said {
		return false
	}
	if since := now.Sub(t.at); on && !t.at.IsZero() && since >= 0 && since < alarmPause {
		return false
	}
	if on {
		t.at = now
	}
	t.said = on
	return true
}

func newStream(usual *sketch.Histogram, lo, hi float64, bins int) stream {
	if usual != nil && usual.Total() > 0 {
		return stream{usual: *usual, ph: sketch.NewPageHinkley(*usual, falseEvery)}
	}
	return stream{usual: sketch.NewHistogram(lo, hi, bins), learning: true}
}

func newGuard(o *Observation) *guard {
	g := &guard{key: o.Key, rate: sketch.NewRate(usualErrors, badErrors, falseEvery)}
	var ref bundle.Reference
	if o.Plan != nil && o.Plan.contract.Reference != nil {
		ref = *o.Plan.contract.Reference
	}
	lo, hi := 0.0, 1.0
	if o.Bins != nil {
		lo, hi = o.Bins.Lo, o.Bins.Hi
	}
	g.score = newStream(&ref.Score, lo, hi, scoreBins)
	g.entropy = newStream(ref.Entropy, 0, 1, scoreBins)
	return g
}

// guard looks for a change in what a request did.
func (m *Monitor) guard(o *Observation, now time.Time) {
	g := m.guards[o.Key.Model]
	if g == nil || g.key.Bundle != o.Key.Bundle || g.key.Runtime != o.Key.Runtime {
		if g == nil && len(m.guards) >= maxGuards {
			clear(m.guards) // their windows go on; alarms begin anew
		}
		g = newGuard(o)
		m.guards[o.Key.Model] = g
	}
	g.key = o.Key
	v := 0.0
	if o.Code != "" {
		v = 1
	}
	on := g.rate.Add(o.Code != "")
	g.failed.add(g.rate.Sum, v, now)
	if g.told.next(on, now) {
		m.alarm(g.key, MeasureErrors, &g.told, &g.failed, Alarm{At: now, Usual: usualErrors})
	}
	if o.Code != "" {
		return
	}
	if o.Watched {
		m.stream(g.key, MeasureScore, &g.score, o.Score, now)
	}
	if o.Sure {
		m.stream(g.key, MeasureEntropy, &g.entropy, o.Entropy, now)
	}
}

func (m *Monitor) stream(k Key, measure string, s *stream, v float64, now time.Time) {
	if s.learning {
		s.usual.Add(v)
		if s.usual.Total() >= learnt {
			s.learning, s.learnt = false, true
			s.ph = sketch.NewPageHinkley(s.usual, falseEvery)
		}
		return
	}
	on := s.ph.Add(v)
	s.up.add(s.ph.Up.Sum, v, now)
	s.down.add(s.ph.Down.Sum, v, now)
	if !s.told.next(on, now) {
		return
	}
	r := &s.up
	if s.ph.Down.Sum > s.ph.Up.Sum {
		r = &s.down
	}
	m.alarm(k, measure, &s.told, r, Alarm{At: now, Usual: s.usual.Mean(), Learnt: s.learnt})
}

// alarm keeps an alarm to be taken; the oldest gives way.
func (m *Monitor) alarm(k Key, measure string, t *told, r *run, a Alarm) {
	a.Key, a.Measure, a.Over = k, measure, !t.said
	a.Since, a.Requests, a.Mean, a.Times = r.since, r.n, r.mean(), max(t.times, 1)
	t.times = 0
	if len(m.alarms) >= maxAlarms {
		m.alarms = m.alarms[1:]
	}
	m.alarms = append(m.alarms, a)
}

// Alarms returns what began and ended since the last call.
func (m *Monitor) Alarms() []Alarm {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.alarms
	m.alarms = nil
	return out
}
