package sketch

import "math"

// Bounds of what is looked at of an input, and the bins of its histograms.
const (
	InputElements = 256 // elements of one request
	inputBins     = 32
	meanBins      = 64
)

// Input is how the values of one input tensor were distributed over some requests.
// Elements of one request hang together, so only Means, one value a request, has
// as many values as the tests of this package want to be told.
type Input struct {
	Requests uint64     `json:"requests,omitempty" cbor:"1,keyasint,omitempty"` // looked at
	Values   Moments    `json:"values,omitzero" cbor:"2,keyasint,omitzero"`     // of the elements
	Bins     *Histogram `json:"bins,omitempty" cbor:"3,keyasint,omitempty"`     // of the elements; nil: the range is not known
	Means    *Histogram `json:"means,omitempty" cbor:"4,keyasint,omitempty"`    // of the mean of each request
	NaN      uint64     `json:"nan,omitempty" cbor:"5,keyasint,omitempty"`      // elements that are not finite
	Low      uint64     `json:"low,omitempty" cbor:"6,keyasint,omitempty"`      // elements at the lower end of the range
	High     uint64     `json:"high,omitempty" cbor:"7,keyasint,omitempty"`     // and at the upper one
}

// NewInput counts over lo..hi; without a range, lo not below hi, there are no
// histograms.
func NewInput(lo, hi float64) Input {
	bins, means := NewHistogram(lo, hi, inputBins), NewHistogram(lo, hi, meanBins)
	if !bins.Valid() {
		return Input{}
	}
	return Input{Bins: &bins, Means: &means}
}

// Stride is the distance between the elements that are looked at, of n: at most
// InputElements of them, never only one channel of a picture.
func Stride(n int) int {
	s := (n + InputElements - 1) / InputElements
	for s > 1 && (s%2 == 0 || s%3 == 0) {
		s++
	}
	return max(s, 1)
}

// Add takes in the elements at Stride of one request and returns their mean, NaN
// without a finite one.
func (in *Input) Add(values []float64) (mean float64) {
	s, n := 0.0, 0
	for _, v := range values {
		if !in.Values.Add(v) {
			in.NaN = sum(in.NaN, 1)
			continue
		}
		s += v
		n++
		if in.Bins == nil {
			continue
		}
		in.Bins.Add(v)
		if v <= in.Bins.Lo {
			in.Low = sum(in.Low, 1)
		}
		if v >= in.Bins.Hi {
			in.High = sum(in.High, 1)
		}
	}
	in.Requests = sum(in.Requests, 1)
	if n == 0 {
		return math.NaN()
	}
	if in.Means != nil {
		in.Means.Add(s / float64(n))
	}
	return s / float64(n)
}

// Merge adds o to in. It returns ErrShape, and changes nothing, if their bins
// differ.
func (in *Input) Merge(o Input) error {
	for _, pair := range [][2]*Histogram{{in.Bins, o.Bins}, {in.Means, o.Means}} {
		if (pair[0] == nil) != (pair[1] == nil) || pair[0] != nil && !pair[0].Fits(pair[1]) {
			return ErrShape
		}
	}
	in.Values.Merge(o.Values)
	in.Requests, in.NaN, in.Low, in.High = sum(in.Requests, o.Requests), sum(in.NaN, o.NaN), sum(in.Low, o.Low), sum(in.High, o.High)
	if o.Bins == nil {
		return nil
	}
	_ = in.Bins.Merge(*o.Bins) // they fit
	return in.Means.Merge(*o.Means)
}

// Valid says whether in can be added up: ask it of every one that came from
// outside.
func (in *Input) Valid() bool {
	if (in.Bins == nil) != (in.Means == nil) {
		return false
	}
	return in.Bins == nil || in.Bins.Valid() && in.Means.Valid()
}
