package sketch

import (
	"encoding/binary"
	"errors"
	"math"
)

// Accuracy is the greatest relative error of a quantile.
const Accuracy = 0.01

// A value v lies in bin ceil(ln v / ln gamma), so that the middle of the bin is
// within Accuracy of it (Masson, Rim & Lee, "DDSketch", 2019, section 2.1). With
// both ends fixed no bins are ever collapsed and merging is plain addition.
const (
	gamma         = (1 + Accuracy) / (1 - Accuracy)
	latencyBins   = 1100 // up to 3.5e9 us, an hour
	latencyFormat = 1
)

var lnGamma = math.Log(gamma)

// ErrLatency is returned for bytes that are no latency sketch.
var ErrLatency = errors.New("not a latency sketch")

// Latency is a mergeable quantile sketch of durations in microseconds with a
// relative error of one percent. Its encoded form is Bytes; the zero value is
// empty. Equal sketches have equal bytes.
type Latency struct {
	Bytes []byte `json:"bytes,omitempty" cbor:"1,keyasint,omitempty"`
}

// Quantiles is a Latency while it is being counted. The zero value is empty.
type Quantiles struct {
	n    uint64
	bins []uint64
}

// Add counts one duration in microseconds. Durations below one count as one,
// those beyond an hour as an hour.
func (q *Quantiles) Add(us int64) {
	i := 0
	if us > 1 {
		i = min(int(math.Ceil(math.Log(float64(us))/lnGamma)), latencyBins-1)
	}
	q.count(i, 1)
}

func (q *Quantiles) count(i int, n uint64) {
	if i >= len(q.bins) {
		q.bins = append(q.bins, make([]uint64, i+1-len(q.bins))...)
	}
	q.bins[i] = sum(q.bins[i], n)
	q.n = sum(q.n, n)
}

// Count is the number of durations counted.
func (q *Quantiles) Count() uint64 { return q.n }

// Merge adds o to q.
func (q *Quantiles) Merge(o *Quantiles) {
	for i := len(o.bins) - 1; i >= 0; i-- {
		if o.bins[i] > 0 {
			q.count(i, o.bins[i])
		}
	}
}

// Quantile returns the duration in microseconds below which the share p of all
// lies, p in [0, 1]; zero if nothing was counted.
func (q *Quantiles) Quantile(p float64) float64 {
	if q.n == 0 {
		return 0
	}
	rank := min(max(p, 0), 1) * float64(q.n-1)
	seen, last := uint64(0), 0
	for i, n := range q.bins {
		if n == 0 {
			continue
		}
		seen, last = sum(seen, n), i
		if float64(seen) > rank {
			break
		}
	}
	if last == 0 {
		return 1
	}
	return 2 * math.Pow(gamma, float64(last)) / (gamma + 1)
}

// Encode returns the sketch as bytes: a format number, then for each bin that
// is not empty the distance to the one before and its count, as uvarints.
func (q *Quantiles) Encode() Latency {
	if q.n == 0 {
		return Latency{}
	}
	b := []byte{latencyFormat}
	previous := -1
	for i, n := range q.bins {
		if n > 0 {
			b = binary.AppendUvarint(b, uint64(i-previous))
			b = binary.AppendUvarint(b, n)
			previous = i
		}
	}
	return Latency{Bytes: b}
}

// Decode reads the sketch; it accepts only what Encode writes.
func (l Latency) Decode() (*Quantiles, error) {
	q := &Quantiles{}
	if len(l.Bytes) == 0 {
		return q, nil
	}
	if l.Bytes[0] != latencyFormat || len(l.Bytes) == 1 {
		return nil, ErrLatency
	}
	b, i := l.Bytes[1:], -1
	for len(b) > 0 {
		gap, a := binary.Uvarint(b)
		if a <= 0 || gap == 0 || gap > latencyBins || i+int(gap) >= latencyBins {
			return nil, ErrLatency
		}
		n, c := binary.Uvarint(b[a:])
		if c <= 0 || n == 0 {
			return nil, ErrLatency
		}
		i += int(gap)
		q.count(i, n)
		b = b[a+c:]
	}
	return q, nil
}

// MergeLatency adds encoded sketches.
func MergeLatency(list ...Latency) (Latency, error) {
	all := &Quantiles{}
	for _, l := range list {
		q, err := l.Decode()
		if err != nil {
			return Latency{}, err
		}
		all.Merge(q)
	}
	return all.Encode(), nil
}
