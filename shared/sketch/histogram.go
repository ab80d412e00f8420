package sketch

import (
	"errors"
	"math"
)

// MaxBins is the greatest number of bins of a histogram.
const MaxBins = 1024

// ErrShape is returned when two values cannot be added because their bins
// differ.
var ErrShape = errors.New("the bins differ")

// Histogram counts values in equal bins over [Lo, Hi]. Values outside fall
// into Under and Over, non-finite ones into NaN; none is lost. Two histograms
// with the same Lo, Hi and number of bins merge exactly by addition.
type Histogram struct {
	Lo    float64  `json:"lo" cbor:"1,keyasint"`
	Hi    float64  `json:"hi" cbor:"2,keyasint"`
	Bins  []uint64 `json:"bins" cbor:"3,keyasint"`
	Under uint64   `json:"under,omitempty" cbor:"4,keyasint,omitempty"`
	Over  uint64   `json:"over,omitempty" cbor:"5,keyasint,omitempty"`
	NaN   uint64   `json:"nan,omitempty" cbor:"6,keyasint,omitempty"`
}

// NewHistogram returns an empty histogram. bins is brought into [1, MaxBins].
func NewHistogram(lo, hi float64, bins int) Histogram {
	return Histogram{Lo: lo, Hi: hi, Bins: make([]uint64, min(max(bins, 1), MaxBins))}
}

// Valid says whether h can count: finite ends in order, 1 to MaxBins bins.
// Ask it of every histogram that came from outside.
func (h *Histogram) Valid() bool {
	width := h.Hi - h.Lo
	return h.Lo < h.Hi && width > 0 && !math.IsInf(width, 0) && len(h.Bins) >= 1 && len(h.Bins) <= MaxBins
}

// Add counts one value. Bins hold [low, high), the last one its end as well.
func (h *Histogram) Add(v float64) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		h.NaN = sum(h.NaN, 1)
	case v < h.Lo:
		h.Under = sum(h.Under, 1)
	case v > h.Hi:
		h.Over = sum(h.Over, 1)
	case h.Valid():
		i := h.index(v) - 1
		h.Bins[i] = sum(h.Bins[i], 1)
	}
}

// Fits says whether o has the same bins.
func (h *Histogram) Fits(o *Histogram) bool {
	return h.Lo == o.Lo && h.Hi == o.Hi && len(h.Bins) == len(o.Bins)
}

// index is where Counts has a number: 0 under, then the bins, then over.
func (h *Histogram) index(v float64) int {
	switch {
	case v < h.Lo:
		return 0
	case v > h.Hi:
		return len(h.Bins) + 1
	}
	return 1 + min(int((v-h.Lo)/(h.Hi-h.Lo)*float64(len(h.Bins))), len(h.Bins)-1)
}

// Merge adds o to h. It returns ErrShape, and changes nothing, if their bins
// differ.
func (h *Histogram) Merge(o Histogram) error {
	if !h.Fits(&o) {
		return ErrShape
	}
	for i, n := range o.Bins {
		h.Bins[i] = sum(h.Bins[i], n)
	}
	h.Under, h.Over, h.NaN = sum(h.Under, o.Under), sum(h.Over, o.Over), sum(h.NaN, o.NaN)
	return nil
}

// Total is the number of finite values counted.
func (h *Histogram) Total() uint64 {
	n := sum(h.Under, h.Over)
	for _, c := range h.Bins {
		n = sum(n, c)
	}
	return n
}

// Counts returns every finite count in order: under, the bins, over. It is what
// Compare wants.
func (h *Histogram) Counts() []uint64 {
	list := make([]uint64, 0, len(h.Bins)+2)
	list = append(list, h.Under)
	list = append(list, h.Bins...)
	return append(list, h.Over)
}

// Mean is the mean of the finite values as far as bins can tell: a value
// counts as its bin's middle, one outside as the end it passed. Zero if empty.
func (h *Histogram) Mean() float64 {
	n := float64(h.Total())
	if n == 0 || !h.Valid() {
		return 0
	}
	s := 0.0
	h.each(func(at float64, c uint64) { s += float64(c) / n * at })
	return h.Lo + (h.Hi-h.Lo)*min(s, 1)
}

// SD is the standard deviation of the finite values as far as bins can tell, with
// the same reading as Mean.
func (h *Histogram) SD() float64 {
	n := float64(h.Total())
	if n == 0 || !h.Valid() {
		return 0
	}
	mean, s := (h.Mean()-h.Lo)/(h.Hi-h.Lo), 0.0
	h.each(func(at float64, c uint64) { s += float64(c) / n * (at - mean) * (at - mean) })
	return (h.Hi - h.Lo) * math.Sqrt(s)
}

// each gives every count with its place between Lo, 0, and Hi, 1: no product of
// counts and ends, which may be as large as they like, overflows.
func (h *Histogram) each(take func(at float64, n uint64)) {
	take(0, h.Under)
	for i, c := range h.Bins {
		take((float64(i)+0.5)/float64(len(h.Bins)), c)
	}
	take(1, h.Over)
}

// MergeCounts returns the sum of two lists of counts, of the longer one's length.
func MergeCounts(a, b []uint64) []uint64 {
	if len(a) < len(b) {
		a, b = b, a
	}
	list := append([]uint64(nil), a...)
	for i, n := range b {
		list[i] = sum(list[i], n)
	}
	return list
}

// sum adds without wrapping: counts from outside may be as large as they like.
func sum(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
