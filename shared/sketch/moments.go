package sketch

import "math"

// Moments are count, mean and sum of squared deviations (Welford), with the
// extremes; they merge by Chan's formula.
type Moments struct {
	N    uint64  `json:"n" cbor:"1,keyasint"`
	Mean float64 `json:"mean" cbor:"2,keyasint"`
	M2   float64 `json:"m2" cbor:"3,keyasint"`
	Min  float64 `json:"min" cbor:"4,keyasint"`
	Max  float64 `json:"max" cbor:"5,keyasint"`
}

// maxMoment keeps squares, and sums of them, finite.
const maxMoment = 1e140

// Add takes one value in. It refuses a non-finite one, and one whose square would
// not be, and returns false; the caller counts those apart.
func (m *Moments) Add(v float64) bool {
	if !(math.Abs(v) <= maxMoment) {
		return false
	}
	if m.N == 0 {
		m.Min, m.Max = v, v
	}
	m.N = sum(m.N, 1)
	d := v - m.Mean
	m.Mean += d / float64(m.N)
	m.M2 += d * (v - m.Mean)
	m.Min, m.Max = min(m.Min, v), max(m.Max, v)
	return true
}

// Merge adds o to m; the order matters only within the rounding of float64
// (Chan, Golub & LeVeque 1979).
func (m *Moments) Merge(o Moments) {
	if o.N == 0 {
		return
	}
	if m.N == 0 {
		*m = o
		return
	}
	n := float64(m.N) + float64(o.N)
	d := o.Mean - m.Mean
	m.Mean += d * float64(o.N) / n
	m.M2 += o.M2 + d*d*float64(m.N)*float64(o.N)/n
	m.N = sum(m.N, o.N)
	m.Min, m.Max = min(m.Min, o.Min), max(m.Max, o.Max)
}

// Variance is the sample variance; zero for fewer than two values.
func (m *Moments) Variance() float64 {
	if m.N < 2 {
		return 0
	}
	return m.M2 / float64(m.N-1)
}
