package observe

import (
	"fmt"
	"math"
	"time"

	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Bins of what has no others given.
const (
	scoreBins     = 20
	detectionBins = 32 // 0 to 31 things; more are over
)

// lookEvery is the least time between two requests whose inputs are looked at:
// at most 10 a second, sketch.InputElements of each of the first
// wire.MaxSampleInputs tensors.
const lookEvery = 100 * time.Millisecond

// other is the key under which a full map counts what is new.
const other = "other"

// window is one span of one key. What a model does not have stays nil.
type window struct {
	key      Key
	start    time.Time
	used     time.Time
	requests uint64
	errors   map[string]uint64
	latency  sketch.Quantiles
	wait     sketch.Quantiles
	nan      uint64
	crashes  uint64
	memoryKB int64 // 0: not looked at

	classes    []uint64
	score      sketch.Histogram
	entropy    *sketch.Histogram
	margin     *sketch.Histogram
	detections *sketch.Histogram

	looked time.Time // at inputs
	inputs []sketch.Input
	first  sketch.Moments // of the first input's mean
	sizes  map[[2]int]uint64
	odd    uint64 // pictures of sizes beyond those
}

func newWindow(k Key, start time.Time) *window { return &window{key: k, start: start} }

// add counts a request, what a trial needs of it included.
func (w *window) add(o *Observation) {
	w.requests++
	if o.Code != "" {
		w.fail(o.Code)
		return
	}
	w.latency.Add(o.Took.Microseconds())
	if o.NaN {
		w.nan++
	}
	if !o.Watched || o.Class < 0 || o.Class >= wire.MaxSampleClasses {
		return
	}
	if o.Class >= len(w.classes) {
		w.classes = append(w.classes, make([]uint64, o.Class+1-len(w.classes))...)
	}
	w.classes[o.Class]++
	if w.score.Bins == nil {
		w.score = sketch.NewHistogram(0, 1, scoreBins)
		if o.Bins != nil && o.Bins.Valid() {
			w.score = sketch.NewHistogram(o.Bins.Lo, o.Bins.Hi, len(o.Bins.Bins))
		}
	}
	w.score.Add(o.Score)
}

func (w *window) fail(code string) {
	if w.errors == nil {
		w.errors = map[string]uint64{}
	}
	if _, known := w.errors[code]; !known && len(w.errors) >= wire.MaxSampleErrors-1 {
		code = other
	}
	w.errors[code]++
}

// look measures what only the fleet wants to know.
func (w *window) look(o *Observation, now time.Time) {
	if o.Source[0] > 0 && o.Source[1] > 0 {
		w.size(o.Source)
	}
	if o.Code == "" {
		w.wait.Add(o.Wait.Microseconds())
	}
	if o.Sure {
		count(&w.entropy, 0, 1, scoreBins, o.Entropy)
		count(&w.margin, 0, 1, scoreBins, o.Margin)
	}
	if o.Counted {
		count(&w.detections, -0.5, detectionBins-0.5, detectionBins, float64(o.Detections))
	}
	if since := now.Sub(w.looked); o.Plan == nil || len(o.Inputs) == 0 || since >= 0 && since < lookEvery {
		return
	}
	w.looked = now
	if w.inputs == nil {
		w.inputs = o.Plan.newInputs()
	}
	if mean := o.Plan.look(w.inputs, o.Inputs); !math.IsNaN(mean) {
		w.first.Add(mean)
	}
}

// count adds a value to a histogram that is made when the first one comes.
func count(h **sketch.Histogram, lo, hi float64, bins int, v float64) {
	if *h == nil {
		n := sketch.NewHistogram(lo, hi, bins)
		*h = &n
	}
	(*h).Add(v)
}

func (w *window) size(s [2]int) {
	if w.sizes == nil {
		w.sizes = map[[2]int]uint64{}
	}
	if _, known := w.sizes[s]; !known && len(w.sizes) >= wire.MaxSampleSizes {
		w.odd++
		return
	}
	w.sizes[s]++
}

func (w *window) sample(length time.Duration) wire.Sample {
	s := wire.Sample{
		Start: w.start.Unix(), Seconds: int64(length / time.Second), Model: w.key.Model, Path: w.key.Path, Bundle: w.key.Bundle, Runtime: w.key.Runtime,
		Rollout: w.key.Rollout, Arm: w.key.Arm, Requests: w.requests, Errors: w.errors, Latency: w.latency.Encode(), Classes: w.classes, NaN: w.nan,
		Wait: w.wait.Encode(), Entropy: w.entropy, Margin: w.margin, Detections: w.detections, Inputs: w.inputs,
		Memory: uint64(w.memoryKB), Crashes: w.crashes,
	}
	if w.score.Total() > 0 {
		s.Score = &w.score
	}
	if w.first.N > 0 {
		s.Input = &w.first
	}
	if len(w.sizes) > 0 {
		s.Sizes = make(map[string]uint64, len(w.sizes)+1)
		for d, n := range w.sizes {
			s.Sizes[fmt.Sprintf("%dx%d", d[0], d[1])] = n
		}
		if w.odd > 0 {
			s.Sizes[other] = w.odd
		}
	}
	return s
}
