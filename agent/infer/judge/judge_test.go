package judge

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestCompare: each tolerance by what it takes and what it refuses, and how it says so.
func TestCompare(t *testing.T) {
	boxes := []float64{0, 0, 10, 10, 20, 20, 30, 40, 0, 0, 0, 0}
	for name, c := range map[string]struct {
		tol        bundle.Tolerance
		want, have []float64
		why        string
	}{
		"relative":        {bundle.Tolerance{Relative: 0.1}, []float64{1, 2}, []float64{1.09, 2}, ""},
		"beyond relative": {bundle.Tolerance{Relative: 0.1}, []float64{1, 2}, []float64{1, 2.2}, "element 1 is 2.2, expected 2 within 0.1"},
		"absolute":        {bundle.Tolerance{Relative: 1, Absolute: 0.01}, []float64{1}, []float64{1.02}, "element 0 is 1.02, expected 1 within 0.01"},
		"nothing but NaN": {bundle.Tolerance{Top: 1}, []float64{1, 0}, []float64{1, math.NaN()}, "element 1 is NaN, a number is wanted"},
		"infinity":        {bundle.Tolerance{Absolute: math.MaxFloat64}, []float64{1}, []float64{math.Inf(1)}, "element 0 is +Inf"},
		"length":          {bundle.Tolerance{Absolute: 1}, []float64{1}, []float64{1, 1}, "2 values, 1 expected"},
		"top":             {bundle.Tolerance{Top: 2}, []float64{9, 0, 0}, []float64{2, 3, 1}, ""},
		"not in the top":  {bundle.Tolerance{Top: 2}, []float64{9, 0, 0}, []float64{1, 3, 2}, "highest at element 1 with 3, expected at 0, which has 1 and is number 3"},
		"cosine":          {bundle.Tolerance{Cosine: 0.99}, []float64{1, 1}, []float64{2, 2.1}, ""},
		"other angle":     {bundle.Tolerance{Cosine: 0.99}, []float64{1, 0}, []float64{1, 1}, "the cosine to the expected values is 0.7071, at least 0.99 is wanted"},
		"zeros":           {bundle.Tolerance{Cosine: 1}, []float64{0, 0}, []float64{0, 0}, ""},
		"a zero":          {bundle.Tolerance{Cosine: 0.1}, []float64{0, 0}, []float64{1, 0}, "cosine"},
		"boxes":           {bundle.Tolerance{IoU: 0.8}, boxes, []float64{0, 0, 10, 9, 20, 20, 30, 40, 5, 5, 6, 6}, ""},
		"boxes moved on":  {bundle.Tolerance{IoU: 0.8}, boxes, []float64{1, 1, 1, 1, 0, 0, 10, 10, 20, 20, 30, 40}, ""},
		"a box is gone":   {bundle.Tolerance{IoU: 0.8}, boxes, []float64{0, 0, 10, 10, 20, 20, 30, 30, 0, 0, 0, 0}, "box 1 [20 20 30 40] overlaps none by 0.8, at most by 0.500"},
		"one box for two": {bundle.Tolerance{IoU: 0.8}, []float64{0, 0, 9, 9, 0, 0, 9, 9}, []float64{0, 0, 9, 9, 0, 0, 0, 0}, "box 1"},
	} {
		got := compare(c.tol, c.want, c.have, 1)
		if c.why == "" && got != "" || !strings.Contains(got, c.why) {
			t.Errorf("%s: %q, want %q", name, got, c.why)
		}
	}
}

// TestCorners: a centre with a size and a corner with a size are the same box.
func TestCorners(t *testing.T) {
	for layout, v := range map[string][]float64{"xyxy": {1, 2, 5, 10}, "xywh": {1, 2, 4, 8}, "cxcywh": {3, 6, 4, 8}} {
		if got := corners(layout, v); got[0] != 1 || got[1] != 2 || got[2] != 5 || got[3] != 10 {
			t.Errorf("%s: %v", layout, got)
		}
	}
}

func code(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// TestWithin: each budget has its code, and what is not bounded or not measured is
// not refused.
func TestWithin(t *testing.T) {
	p := &bundle.Proof{
		Cost:   bundle.Cost{P50US: 100, P95US: 200, P99US: 300, Start: 4000, Cold: 5000, PeakKB: 600},
		Base:   &bundle.Cost{P50US: 50, P95US: 100, P99US: 100, Start: 4000, PeakKB: 600},
		Slices: []bundle.SliceShare{{Slice: "light=dim", Cases: 10, Held: 5}, {Slice: "site=a", Cases: 10, Held: 10}, {Slice: "site=b", Cases: 10, Held: 8}},
	}
	for want, b := range map[string]bundle.Budget{
		"":                       {LatencyP95US: 200, PeakMemoryKB: 600, StartMS: 4, ColdStartMS: 5, MaxSliceGap: 0.21, Relative: &bundle.Relative{LatencyP95: 2, Start: 1}},
		"prove.latency_p50":      {LatencyP50US: 99},
		"prove.latency":          {LatencyP95US: 199},
		"prove.latency_p99":      {LatencyP99US: 299},
		"prove.memory":           {PeakMemoryKB: 599},
		"prove.start":            {StartMS: 3},
		"prove.cold_start":       {ColdStartMS: 4},
		"prove.slices":           {MaxSliceGap: 0.19},
		"prove.relative_latency": {Relative: &bundle.Relative{LatencyP99: 2.9}},
		"prove.relative_memory":  {Relative: &bundle.Relative{PeakMemory: 0.9}},
		"prove.relative_start":   {Relative: &bundle.Relative{Start: 0.9}},
	} {
		if err := Within(p, b); code(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	p.Base = nil
	if err := Within(p, bundle.Budget{Relative: &bundle.Relative{Start: 0.1}}); err != nil {
		t.Errorf("without an active slot: %v", err)
	}
}

// agreement of a model with one output of two classes.
func agreement(requests uint64) *Agreement {
	c := &bundle.Contract{Outputs: []bundle.Tensor{{Name: "scores", DType: "UINT8", Shape: []int{2}}}, Watch: &bundle.Watch{Output: "scores"},
		Shadow: &bundle.Shadow{Share: 1, Minutes: 1, Requests: requests, Duty: 1, Agree: 0.9}}
	return NewAgreement(c, nil)
}

// TestAgreement: enough that agree pass, too many others end it early, and too few
// say nothing.
func TestAgreement(t *testing.T) {
	for name, c := range map[string]struct {
		requests     uint64
		agree, other int
		code         string
		over, note   bool
	}{
		"nothing came":      {100, 0, 0, "", false, true},
		"too few":           {100, 19, 0, "", false, true},
		"few but enough":    {100, 20, 0, "", false, false},
		"all agree":         {100, 100, 0, "", true, false},
		"just enough agree": {100, 90, 10, "", true, false},
		"too many others":   {100, 0, 11, "prove.shadow", true, false},
		"of few too many":   {100, 20, 5, "prove.shadow", false, false},
	} {
		a := agreement(c.requests)
		live := a.c
		for range c.agree {
			a.Take(live, Answer{[][]byte{{1, 9}}, time.Millisecond}, Answer{[][]byte{{5, 6}}, 2 * time.Millisecond})
		}
		for range c.other {
			a.Take(live, Answer{[][]byte{{1, 9}}, time.Millisecond}, Answer{[][]byte{{9, 6}}, 2 * time.Millisecond})
		}
		over := a.Over()
		s, err := a.Verdict(3)
		if code(err) != c.code || over != c.over || (s.Note != "") != c.note || s.Requests != uint64(c.agree+c.other) || s.Agreed != uint64(c.agree) || s.Dropped != 3 {
			t.Errorf("%s: %+v %v, over %v", name, s, err, over)
		}
	}
}

// TestAlike: who takes other inputs, or shares no output to compare, is no measure.
func TestAlike(t *testing.T) {
	c, other := agreement(1).c, agreement(1).c
	c.Inputs = []bundle.Tensor{{Name: "x", DType: "FP32", Shape: []int{1}}}
	if other.Inputs = []bundle.Tensor{{Name: "x", DType: "FP32", Shape: []int{2}}}; Alike(other, c) {
		t.Error("other inputs")
	}
	if other.Inputs = c.Inputs; !Alike(other, c) {
		t.Error("the same are not alike")
	}
	if other.Outputs[0].Name = "other"; Alike(other, c) {
		t.Error("other outputs")
	}
}

// numbers is a list of float32.
func numbers(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// TestGolden: each output has its share of cases that must hold, and no share makes
// up for what is no number, not even in an output that nothing is compared with.
func TestGolden(t *testing.T) {
	c := &bundle.Contract{
		Outputs: []bundle.Tensor{{Name: "a", DType: "FP32", Shape: []int{1}}, {Name: "b", DType: "FP32", Shape: []int{1}}, {Name: "free", DType: "FP32", Shape: []int{1}}},
		Golden:  &bundle.Golden{Tolerance: map[string]bundle.Tolerance{"a": {Absolute: 0.1, Pass: 0.5}, "b": {Absolute: 0.1}}},
	}
	list := func() *bundle.Array { return &bundle.Array{DType: "FP32", Shape: []int{2, 1}, Data: numbers(1, 2)} }
	nan := float32(math.NaN())
	for name, x := range map[string]struct {
		out  [2][3]float32
		code string
		held int
	}{
		"all":             {[2][3]float32{{1, 1, 0}, {2, 2, 0}}, "", 2},
		"half of a":       {[2][3]float32{{9, 1, 0}, {2, 2, 0}}, "", 1},
		"all of a":        {[2][3]float32{{9, 1, 0}, {9, 2, 0}}, "prove.golden", 0},
		"one of b":        {[2][3]float32{{1, 1, 0}, {2, 9, 0}}, "prove.golden", 1},
		"NaN in a":        {[2][3]float32{{nan, 1, 0}, {2, 2, 0}}, "prove.nan", 1},
		"NaN for nobody":  {[2][3]float32{{1, 1, nan}, {2, 2, 0}}, "prove.nan", 1},
		"infinite in a":   {[2][3]float32{{float32(math.Inf(-1)), 1, 0}, {2, 2, 0}}, "prove.nan", 1},
		"half and half b": {[2][3]float32{{9, 9, 0}, {2, 2, 0}}, "prove.golden", 1},
	} {
		j := NewGolden(c, &bundle.Cases{N: 2, Outputs: map[string]*bundle.Array{"a": list(), "b": list()}})
		for n, out := range x.out {
			j.Look(n, [][]byte{numbers(out[0]), numbers(out[1]), numbers(out[2])})
		}
		if err := j.Verdict(); code(err) != x.code || j.Held() != x.held {
			t.Errorf("%s: %v, %d held", name, err, j.Held())
		}
	}
}
