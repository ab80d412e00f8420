package sketch

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

// Moments are count, mean and sum of squared deviations (Welford), with the
// extremes; they merge by Chan's formula.
type Moments struct {
	N    uint64  `json:"n" cbor:"1,keyasint"`
	Mean float64 `json:"mean" cbor:"2,keyasint"`
	M2   float64 `json:"m2" cbor:"3,keyasint"`
	Min  float64 `json:"min" cbor:"4,keyasint"`
	Max  float64 `json:"max" cbor:"5,keyasint"`
}

// Latency is a mergeable quantile sketch of durations in microseconds with a
// relative error of one percent. Its encoded form is Bytes; the zero value is
// empty.
type Latency struct {
	Bytes []byte `json:"bytes,omitempty" cbor:"1,keyasint,omitempty"`
}
