package sketch

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var value = rapid.OneOf(rapid.Float64Range(-2, 2), rapid.SampledFrom([]float64{
	math.NaN(), math.Inf(1), math.Inf(-1), 0, 1, math.Nextafter(1, 2), -math.SmallestNonzeroFloat64, math.MaxFloat64}))

func histogramOf(values []float64) Histogram {
	h := NewHistogram(0, 1, 20)
	for _, v := range values {
		h.Add(v)
	}
	return h
}

// Whatever way values are split and whatever the order of merging, the sum is
// what one pass over all of them counts, and nothing is lost.
func TestHistogramMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := rapid.SliceOf(value).Draw(t, "a"), rapid.SliceOf(value).Draw(t, "b"), rapid.SliceOf(value).Draw(t, "c")
		want := histogramOf(slices.Concat(a, b, c))
		left, right := histogramOf(a), histogramOf(c)
		_ = left.Merge(histogramOf(b))
		_ = left.Merge(histogramOf(c))
		_ = right.Merge(histogramOf(b))
		_ = right.Merge(histogramOf(a))
		for _, got := range []Histogram{left, right} {
			if d := cmp.Diff(want, got); d != "" {
				t.Fatal(d)
			}
		}
		if n := want.Total() + want.NaN; n != uint64(len(a)+len(b)+len(c)) {
			t.Fatalf("%d of %d values counted", n, len(a)+len(b)+len(c))
		}
	})
}

func TestHistogramBins(t *testing.T) {
	h := NewHistogram(0, 1, 4)
	for _, v := range []float64{0, 0.2499, 0.25, 0.5, 1, 1.001, -0.001, math.NaN(), math.Inf(-1)} {
		h.Add(v)
	}
	want := Histogram{Lo: 0, Hi: 1, Bins: []uint64{2, 1, 1, 1}, Under: 1, Over: 1, NaN: 2}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
	if err := h.Merge(NewHistogram(0, 1, 5)); err != ErrShape {
		t.Errorf("merge of other bins: %v", err)
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("a refused merge changed it: %s", d)
	}
}

func TestHistogramValid(t *testing.T) {
	for _, h := range []Histogram{{}, {Lo: 1, Hi: 0, Bins: []uint64{1}}, {Lo: 0, Hi: math.NaN(), Bins: []uint64{1}},
		{Lo: -math.MaxFloat64, Hi: math.MaxFloat64, Bins: []uint64{1}}, {Lo: 0, Hi: 1, Bins: make([]uint64, MaxBins+1)}} {
		if h.Valid() {
			t.Errorf("%v..%v with %d bins is called valid", h.Lo, h.Hi, len(h.Bins))
		}
		h.Add(0.5) // must not panic
	}
}

func TestMomentsMerge(t *testing.T) {
	finite := rapid.SliceOf(rapid.Float64Range(-1e3, 1e3))
	rapid.Check(t, func(t *rapid.T) {
		a, b := finite.Draw(t, "a"), finite.Draw(t, "b")
		var all, x, y Moments
		for _, v := range a {
			all.Add(v)
			x.Add(v)
		}
		for _, v := range b {
			all.Add(v)
			y.Add(v)
		}
		xy, yx := x, y
		xy.Merge(y)
		yx.Merge(x)
		for _, got := range []Moments{xy, yx} {
			if d := cmp.Diff(all, got, cmpopts.EquateApprox(1e-9, 1e-6)); d != "" {
				t.Fatal(d)
			}
		}
	})
	var m Moments
	if m.Add(math.NaN()) || m.Add(math.Inf(1)) || m.Add(-1e200) || m.N != 0 {
		t.Error("a non-finite value was taken in")
	}
}

func quantilesOf(list []int64) *Quantiles {
	q := &Quantiles{}
	for _, us := range list {
		q.Add(us)
	}
	return q
}

func TestLatencyMerge(t *testing.T) {
	durations := rapid.SliceOf(rapid.Int64Range(-1, 5_000_000_000))
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := durations.Draw(t, "a"), durations.Draw(t, "b"), durations.Draw(t, "c")
		want := quantilesOf(slices.Concat(a, b, c)).Encode()
		x, y, z := quantilesOf(a).Encode(), quantilesOf(b).Encode(), quantilesOf(c).Encode()
		xy, _ := MergeLatency(x, y)
		yz, _ := MergeLatency(z, y)
		left, err1 := MergeLatency(xy, z)
		right, err2 := MergeLatency(yz, x)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if !cmp.Equal(want, left) || !cmp.Equal(want, right) {
			t.Fatalf("merged %x and %x, one pass %x", left.Bytes, right.Bytes, want.Bytes)
		}
	})
}

func TestLatencyAccuracy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Int64Range(1, 3_000_000_000), 1, 300).Draw(t, "us")
		q := quantilesOf(list)
		slices.Sort(list)
		for _, p := range []float64{0, 0.5, 0.95, 0.99, 1} {
			want := float64(list[int(p*float64(len(list)-1))])
			if got := q.Quantile(p); math.Abs(got-want) > Accuracy*want*1.0000001 {
				t.Fatalf("p%v of %d: %v, sorted %v", 100*p, len(list), got, want)
			}
		}
	})
}

func TestLatencyRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"other format": {2, 1, 1}, "no bins": {latencyFormat}, "gap of none": {latencyFormat, 0, 1}, "count of none": {latencyFormat, 1, 0},
		"count cut off": {latencyFormat, 1, 0x80}, "gap cut off": {latencyFormat, 0x80}, "beyond the bins": {latencyFormat, 0xff, 0x7f, 1},
		"beyond by steps": slices.Concat([]byte{latencyFormat}, bytes.Repeat([]byte{100, 1}, 11), []byte{1, 1}),
	} {
		if q, err := (Latency{Bytes: b}).Decode(); err != ErrLatency {
			t.Errorf("%s: %v, %v", name, q, err)
		}
	}
}

func FuzzLatencyDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(quantilesOf([]int64{1, 5, 5, 2_000_000}).Encode().Bytes)
	f.Add(binary.AppendUvarint([]byte{latencyFormat}, math.MaxUint64))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Latency{Bytes: b}.Decode()
		if err != nil {
			return
		}
		q.Quantile(0.99)
		if _, err := q.Encode().Decode(); err != nil {
			t.Fatalf("%x is decoded, what it encodes to is not: %v", b, err)
		}
	})
}

func TestCBOR(t *testing.T) {
	h := histogramOf([]float64{0.1, 2, math.NaN()})
	b, err := cbor.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back Histogram
	if err := cbor.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(h, back); d != "" {
		t.Error(d)
	}
}

func TestChi2(t *testing.T) {
	for df, want := range map[float64]float64{1: 6.635, 4: 13.277, 9: 21.666, 19: 36.191} {
		if got := chi2(df); math.Abs(got-want) > 0.02*want {
			t.Errorf("chi2(%v) = %v, want %v", df, got, want)
		}
	}
}

// Samples of one distribution must pass, at small sizes too; a real shift must
// not. The raw rule "PSI > 0.1" fails the first half of this.
func TestCompare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int, shift float64) []uint64 {
		h := NewHistogram(0, 1, 20)
		for range n {
			h.Add(1 - math.Abs(r.NormFloat64()*0.2) - shift)
		}
		return h.Counts()
	}
	false1, false2, raw, missed := 0, 0, 0, 0
	const runs = 400
	for range runs {
		ref := draw(300, 0)
		d := Compare(ref, draw(100, 0))
		if d.PSI > 0.1 {
			raw++
		}
		if d.Significant(0) {
			false1++
		}
		if d.Significant(0.25) {
			false2++
		}
		if !Compare(ref, draw(100, 0.3)).Significant(0.25) {
			missed++
		}
	}
	t.Logf("of %d: raw rule alarms %d, corrected %d, corrected with effect size %d; shifts missed %d", runs, raw, false1, false2, missed)
	if false1 > runs*5/100 || false2 > runs*5/100 || missed > 0 {
		t.Error("too many false or missed alarms")
	}
	if raw < runs/4 {
		t.Error("the raw rule does not alarm here: the comparison shows nothing")
	}
}

func TestCompareEdges(t *testing.T) {
	collapsed := Compare([]uint64{0, 0, 0, 1000}, []uint64{0, 100, 0, 0})
	if !collapsed.Significant(0.25) || collapsed.JS < 0.9 {
		t.Errorf("all reference in one bin, all live in another: %+v", collapsed)
	}
	for _, c := range [][2][]uint64{{nil, nil}, {{1}, {1, 2}}, {{0, 0}, {5, 5}}, {{3}, {2}}} {
		if d := Compare(c[0], c[1]); d.Significant(0) || math.IsNaN(d.PSI) {
			t.Errorf("%v: %+v", c, d)
		}
	}
}
