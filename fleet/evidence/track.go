package evidence

import (
	"math"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// track is one device in steps.
type track struct {
	l     *ledger
	steps []step
	at    int // first step of the new release, gate.Never: not yet
	hours *fleet.Hours
	last  map[uint64]uint64 // newest sequence of each epoch
}

// step is what was measured in windows that began in it.
type step struct {
	present bool
	path    string // of the release; mixed: of more than one
	mean           // of everything counted
}

// mean is sums whose quotients are measures.
type mean struct {
	n, errors, nan, crashes float64
	latency                 *sketch.Quantiles
	classes                 []float64 // of the ledger's watch, and the rest
	score, entropy          [2]float64
	memory                  float64 // kB, last
	right, wrong            float64
	metrics                 map[string][2]float64
}

// mixed is the path of a step in which a device changed.
const mixed = "\x00"

// first tells whether a record was not seen before. What the store holds is read once
// and in any order; the records of an epoch come in order after that.
func (t *track) first(epoch, sequence uint64, stored bool) bool {
	if !stored && sequence <= t.last[epoch] {
		return false
	}
	t.last[epoch] = max(t.last[epoch], sequence)
	return true
}

func (t *track) grow(n int) {
	for len(t.steps) < n {
		t.steps = append(t.steps, step{})
	}
}

func (s *step) add(l *ledger, w *wire.Sample) {
	switch {
	case s.path == "":
		s.path = w.Path
	case s.path != w.Path:
		s.path = mixed
	}
	s.n += float64(w.Requests)
	for _, n := range w.Errors {
		s.errors += float64(n)
	}
	s.nan += float64(w.NaN)
	s.crashes += float64(w.Crashes)
	if q, err := w.Latency.Decode(); err == nil && q.Count() > 0 {
		if s.latency == nil {
			s.latency = &sketch.Quantiles{}
		}
		s.latency.Merge(q)
	}
	if s.classes == nil && len(w.Classes) > 0 {
		s.classes = make([]float64, len(l.watch)+1)
	}
	for c, n := range w.Classes {
		i, ok := l.column[c]
		if !ok {
			i = len(l.watch)
		}
		s.classes[i] += float64(n)
	}
	s.score, s.entropy = summed(s.score, w.Score), summed(s.entropy, w.Entropy)
	if w.Memory > 0 {
		s.memory = float64(w.Memory)
	}
	if w.Truth != nil {
		s.right, s.wrong = s.right+float64(w.Truth.Right), s.wrong+float64(w.Truth.Wrong)
	}
	for name, m := range w.Metrics {
		if s.metrics == nil {
			s.metrics = map[string][2]float64{}
		}
		x := s.metrics[name]
		s.metrics[name] = [2]float64{x[0] + float64(m.N)*m.Mean, x[1] + float64(m.N)}
	}
}

// summed adds a histogram's sum and count.
func summed(x [2]float64, h *sketch.Histogram) [2]float64 {
	if h == nil {
		return x
	}
	if n := float64(h.Total()); n > 0 {
		return [2]float64{x[0] + h.Mean()*n, x[1] + n}
	}
	return x
}

// changed is the first step after the assignment that is wholly the new release's.
func (t *track) changed(from int) int {
	for s := max(from, 0); s < len(t.steps); s++ {
		if p := t.steps[s].path; p == t.l.path || p == mixed {
			return s + 1
		}
	}
	return gate.Never
}

// base is the release that served when the rollout began.
func (t *track) base() string {
	for s := min(t.l.start, len(t.steps)-1); s >= 0; s-- {
		if p := t.steps[s].path; p != "" && p != mixed && p != t.l.path {
			return p
		}
	}
	return ""
}

// of calls take with the steps of a range in which the release was at work that
// belongs there: the new one after the change, the one of before until then.
func (t *track) of(from, to int, take func(i int, s *step)) {
	want := t.l.path
	if from < t.at {
		want = t.base()
	}
	for i := max(from, 0); i < to && i < len(t.steps); i++ {
		if s := &t.steps[i]; s.path == want && want != "" {
			take(i, s)
		}
	}
}

// Value implements gate.Series.
func (t *track) Value(m gate.Measure, from, to int) (v, n float64) {
	switch m.Kind {
	case gate.Latency:
		return t.quantile(m.Quantile, from, to)
	case gate.Memory:
		return t.slope(from, to)
	}
	var sum float64
	t.of(from, to, func(_ int, s *step) {
		var x [2]float64
		switch m.Kind {
		case gate.Errors:
			x = [2]float64{s.errors, s.n}
		case gate.Wrong:
			x = [2]float64{s.wrong, s.right + s.wrong}
		case gate.Class:
			if m.Class < len(s.classes) {
				x[0] = s.classes[m.Class]
			}
			for _, c := range s.classes {
				x[1] += c
			}
		case gate.Score:
			x = s.score
		case gate.Entropy:
			x = s.entropy
		case gate.Metric:
			x = s.metrics[m.Name]
		}
		sum, n = sum+x[0], n+x[1]
	})
	switch {
	case n == 0:
		return 0, 0
	case m.Kind == gate.Errors, m.Kind == gate.Wrong:
		return math.Sqrt((sum + 0.375) / (n + 0.75)), n
	}
	return sum / n, n
}

func (t *track) quantile(p float64, from, to int) (v, n float64) {
	var q sketch.Quantiles
	t.of(from, to, func(_ int, s *step) {
		if s.latency != nil {
			q.Merge(s.latency)
		}
	})
	if q.Count() == 0 {
		return 0, 0
	}
	return math.Log(max(q.Quantile(p), 1)), float64(q.Count())
}

// slope of memory over the usual memory, per hour of the gates' timing, from the
// first to the last step that knows it; n is the span in such hours, squared.
func (t *track) slope(from, to int) (v, n float64) {
	first, last := -1, -1
	var a, b float64
	t.of(from, to, func(i int, s *step) {
		if s.memory == 0 {
			return
		}
		if first < 0 {
			first, a = i, s.memory
		}
		last, b = i, s.memory
	})
	if first < 0 || last == first {
		return 0, 0
	}
	hours := float64(last-first) / float64(t.l.collect.Timing.Hour)
	return (b - a) / a / hours, hours * hours
}

// Presence implements gate.Series.
func (t *track) Presence(from, to int) (present, expected int) {
	for i := max(from, 0); i < to; i++ {
		if i < len(t.steps) && t.steps[i].present {
			present++
		}
		if t.hours == nil || t.hours.Expected(t.l.origin.Add(time.Duration(i)*t.l.step)) {
			expected++
		}
	}
	return present, expected
}

func (t *track) crashed(from, to int) (yes bool) {
	t.of(from, to, func(_ int, s *step) { yes = yes || s.crashes > 0 })
	return yes
}

func (t *track) notFinite(from, to int) (n, bad float64) {
	t.of(from, to, func(_ int, s *step) { n, bad = n+s.n, bad+s.nan })
	return n, bad
}
