package observe

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// trial is everything that a candidate did since it first served.
type trial struct {
	w       *window
	crashes int
}

// Begin starts the trial of a key anew.
func (m *Monitor) Begin(k Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trials[k] = &trial{w: newWindow(k, m.Now())}
}

// End forgets the trial of a key.
func (m *Monitor) End(k Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.trials, k)
}

// Crashed counts a worker that died by itself.
func (m *Monitor) Crashed(k Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.window(k, m.Now()).crashes++
	if t := m.trials[k]; t != nil {
		t.crashes++
	}
}

// Expect is what the contract says of a model's behaviour. Zero values: nothing.
type Expect struct {
	Score    *sketch.Histogram // of the reference
	Classes  []uint64          // of the reference
	P95      time.Duration     // budget
	Duration time.Duration     // of probation
	Requests uint64            // of probation
}

// Verdict of a trial.
type Verdict struct {
	Passed, Failed bool // neither: not yet
	Code           string
	Reason         string
	Answered       uint64
}

// Limits of a trial. They are wide on purpose: probation finds what is broken;
// what is merely worse is found by comparing devices.
const (
	minRequests = 30   // before anything about shares is said
	minBad      = 5    // failed or non-finite answers that are no accident, or a client's
	maxErrors   = 0.05 // share of failed requests
	maxNaN      = 0.01 // share of answers with a non-finite value
	minShift    = 0.15 // of the mean score, of its range, that is a collapse
	minPSI      = 0.5  // of the score's distribution that is a collapse
	collapsed   = 0.95 // share of one class that is a collapse
	usualShare  = 0.6  // of that class in the reference that makes it none
)

// Judge says what a trial has shown after it ran for d.
func (m *Monitor) Judge(k Key, e Expect, d time.Duration) Verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trials[k]
	if t == nil {
		return Verdict{}
	}
	v := Verdict{Answered: t.w.latency.Count()}
	v.Code, v.Reason = t.finding(e)
	v.Failed = v.Code != ""
	v.Passed = !v.Failed && d >= e.Duration && t.w.requests >= e.Requests
	return v
}

// finding is the first thing wrong; an empty code: nothing.
func (t *trial) finding(e Expect) (code, reason string) {
	w := t.w
	if t.crashes > 0 {
		return "probation.crash", fmt.Sprintf("its worker died %d times after %d requests", t.crashes, w.requests)
	}
	if w.requests < minRequests {
		return "", ""
	}
	failed := uint64(0)
	for _, n := range w.errors {
		failed += n
	}
	answered := w.requests - failed
	switch {
	case tooMany(failed, w.requests, maxErrors):
		return "probation.errors", fmt.Sprintf("%d of %d requests failed", failed, w.requests)
	case tooMany(w.nan, answered, maxNaN):
		return "probation.nan", fmt.Sprintf("%d of %d answers are not numbers", w.nan, answered)
	case e.P95 > 0 && w.latency.Quantile(0.95) > float64(e.P95.Microseconds()) && w.latency.Quantile(0.5) > float64(e.P95.Microseconds())/2:
		// A slow tail alone is more often a busy device than a slow model.
		return "probation.latency", fmt.Sprintf("the 95th percentile is %.0f us, the budget %d us", w.latency.Quantile(0.95), e.P95.Microseconds())
	}
	if reason := collapsedScore(&w.score, e.Score); reason != "" {
		return "probation.score", reason
	}
	if reason := collapsedClass(w.classes, e.Classes); reason != "" {
		return "probation.class", reason
	}
	return "", ""
}

// tooMany says whether bad of n are more than the share and more than chance adds
// to it: three standard deviations of the binomial, because one looks often.
func tooMany(bad, n uint64, share float64) bool {
	at := share * float64(n)
	return bad >= minBad && float64(bad) > at+3*math.Sqrt(at*(1-share))
}

// collapsedScore compares live scores with the reference: the mean has moved far,
// and the distribution by more than chance explains at this number of requests.
func collapsedScore(live, ref *sketch.Histogram) string {
	if ref == nil || ref.Total() == 0 || live.Total() < minRequests {
		return ""
	}
	was, is := ref.Mean(), live.Mean()
	if math.Abs(is-was) < minShift*(ref.Hi-ref.Lo) || !sketch.Compare(ref.Counts(), live.Counts()).Significant(minPSI) {
		return ""
	}
	return fmt.Sprintf("live scores have a mean of %.2f, the reference has %.2f", is, was)
}

func collapsedClass(live, ref []uint64) string {
	n, m := total(live), total(ref)
	if n < minRequests || m == 0 {
		return ""
	}
	i := slices.Index(live, slices.Max(live))
	share := float64(live[i]) / float64(n)
	usual := 0.0
	if i < len(ref) {
		usual = float64(ref[i]) / float64(m)
	}
	if share < collapsed || usual > usualShare {
		return ""
	}
	return fmt.Sprintf("%.0f %% of the answers are class %d, %.0f %% in the reference", 100*share, i, 100*usual)
}

func total(v []uint64) uint64 {
	var n uint64
	for _, x := range v {
		n += x
	}
	return n
}
