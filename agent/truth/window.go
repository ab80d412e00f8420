package truth

import (
	"cmp"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// window is what was said in one span of one release, or with an empty key of the
// whole device.
type window struct {
	key     observe.Key
	start   time.Time
	length  time.Duration
	truth   wire.Truth // without pairs
	pairs   map[[2]uint32]uint64
	metrics map[string]sketch.Moments
}

// maxDone bounds the samples that wait to be taken, maxWindows the windows that are
// open.
const (
	maxDone    = 256
	maxWindows = 256
)

// window returns the open window of a key; the caller holds the lock.
func (b *Book) window(k observe.Key, now time.Time) *window {
	length := b.c.Window()
	start := now.UTC().Truncate(length)
	w := b.windows[k]
	if w != nil && (!w.start.Equal(start) || w.length != length) {
		b.finish(w)
		w = nil
	}
	if w == nil {
		if len(b.windows) >= maxWindows {
			b.close(now, true)
		}
		w = &window{key: k, start: start, length: length, pairs: map[[2]uint32]uint64{}, metrics: map[string]sketch.Moments{}}
		b.windows[k] = w
	}
	return w
}

func (b *Book) finish(w *window) {
	delete(b.windows, w.key)
	if len(b.done) < maxDone {
		b.done = append(b.done, w.sample())
	}
}

func (b *Book) close(now time.Time, all bool) {
	for _, w := range b.windows {
		if all || !now.Before(w.start.Add(w.length)) {
			b.finish(w)
		}
	}
}

// wrong counts a wrong answer; right is its class in truth, -1: not said.
func (w *window) wrong(right, answered int32) {
	w.truth.Wrong++
	pair := [2]uint32{uint32(right), uint32(answered)}
	if _, known := w.pairs[pair]; right < 0 || answered < 0 || right >= wire.MaxSampleClasses || answered >= wire.MaxSampleClasses || !known && len(w.pairs) >= wire.MaxConfused {
		w.truth.Other++
		return
	}
	w.pairs[pair]++
}

func (w *window) sample() wire.Sample {
	k := w.key
	s := wire.Sample{Start: w.start.Unix(), Seconds: int64(w.length / time.Second), Model: k.Model, Path: k.Path, Bundle: k.Bundle, Runtime: k.Runtime, Rollout: k.Rollout, Arm: k.Arm}
	t := w.truth
	for pair, n := range w.pairs {
		t.Confused = append(t.Confused, wire.Confused{Right: pair[0], Answered: pair[1], Count: n})
	}
	slices.SortFunc(t.Confused, func(a, b wire.Confused) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Right, b.Right), cmp.Compare(a.Answered, b.Answered))
	})
	if t.Right+t.Wrong+t.Late > 0 {
		s.Truth = &t
	}
	if len(w.metrics) > 0 {
		s.Metrics = w.metrics
	}
	return s
}

// Join takes the samples of windows that are over, all also ends the others, and
// puts what was said into the sample of the same window of the same release; what
// has none is appended as a sample of its own.
func (b *Book) Join(samples []wire.Sample, all bool) []wire.Sample {
	now := b.c.Now()
	b.mu.Lock()
	b.close(now, all)
	done := b.done
	b.done = nil
	b.mu.Unlock()
	for _, d := range done {
		at := slices.IndexFunc(samples, func(s wire.Sample) bool { return sameWindow(&s, &d) && s.Truth == nil && s.Metrics == nil })
		if at < 0 {
			samples = append(samples, d)
			continue
		}
		samples[at].Truth, samples[at].Metrics = d.Truth, d.Metrics
	}
	return samples
}

func sameWindow(a, b *wire.Sample) bool {
	return a.Start == b.Start && a.Seconds == b.Seconds && a.Model == b.Model && a.Path == b.Path &&
		a.Bundle == b.Bundle && a.Runtime == b.Runtime && a.Rollout == b.Rollout && a.Arm == b.Arm
}
