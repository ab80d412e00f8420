package sketch

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// TestInputMerge: however requests are split over windows, the sum is what one
// window counts: every count exactly, the moments within rounding.
func TestInputMerge(t *testing.T) {
	request := rapid.SliceOfN(value, 0, 20)
	rapid.Check(t, func(t *rapid.T) {
		requests := rapid.SliceOf(request).Draw(t, "requests")
		want, parts := NewInput(0, 1), [3]Input{NewInput(0, 1), NewInput(0, 1), NewInput(0, 1)}
		for _, r := range requests {
			want.Add(r)
			parts[rapid.IntRange(0, 2).Draw(t, "part")].Add(r)
		}
		got := parts[2]
		for _, p := range parts[:2] {
			if err := got.Merge(p); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Input{}, "Values")); d != "" {
			t.Fatal(d)
		}
		if got.Values.N != want.Values.N || got.Values.Min != want.Values.Min || got.Values.Max != want.Values.Max {
			t.Fatalf("%+v, want %+v", got.Values, want.Values)
		}
	})
	in := NewInput(0, 1)
	for _, o := range []Input{{}, NewInput(0, 2)} {
		if in.Merge(o) != ErrShape {
			t.Errorf("%+v is merged", o)
		}
	}
}

func TestInputCounts(t *testing.T) {
	in := NewInput(0, 255)
	if m := in.Add([]float64{0, 0, 255, 100, math.NaN(), 45}); m != 80 {
		t.Errorf("mean %v", m)
	}
	if in.Low != 2 || in.High != 1 || in.NaN != 1 || in.Requests != 1 || in.Bins.Total() != 5 || in.Means.Total() != 1 {
		t.Errorf("%+v", in)
	}
	none := NewInput(1, 1)
	if m := none.Add([]float64{3, 5}); m != 4 || none.Bins != nil || none.Values.N != 2 || !none.Valid() {
		t.Errorf("without a range: %v %+v", m, none)
	}
	if half := (Input{Bins: in.Bins}); half.Valid() {
		t.Error("one histogram of two is called valid")
	}
}

// TestStride: few enough elements, and every channel of a picture among them.
func TestStride(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 64, 784, 224 * 224, 224 * 224 * 3, 640 * 640 * 3, 1 << 24} {
		s := Stride(n)
		if got := (n + s - 1) / s; got > InputElements {
			t.Errorf("%d elements: %d are looked at", n, got)
		}
		if n <= InputElements {
			continue
		}
		for _, channels := range []int{2, 3, 4} {
			seen := map[int]bool{}
			for i := 0; i < n; i += s {
				seen[i%channels] = true
			}
			if len(seen) != channels {
				t.Errorf("%d elements, stride %d: %d of %d channels are seen", n, s, len(seen), channels)
			}
		}
	}
}
