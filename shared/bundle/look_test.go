package bundle

import (
	"slices"
	"testing"
)

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		name   string
		tensor Tensor
		lo, hi float64
	}{
		{"picture", Tensor{DType: "FP32", Meaning: &Meaning{Range: [2]float64{-1, 1}}}, -1, 1},
		{"negative picture", Tensor{DType: "FP32", Meaning: &Meaning{Range: [2]float64{255, 0}}}, 0, 255},
		{"bytes", Tensor{DType: "UINT8"}, 0, 255},
		{"quantized", Tensor{DType: "INT8", Quant: &Quant{Scale: []float32{0.5}, Zero: []int64{-128}}}, 0, 127.5},
		{"per axis", Tensor{DType: "INT8", Quant: &Quant{Scale: []float32{1, 2}, Zero: []int64{0, 0}}}, 0, 0},
		{"real numbers", Tensor{DType: "FP32"}, 0, 0},
	} {
		if lo, hi := c.tensor.Span(); lo != c.lo || hi != c.hi {
			t.Errorf("%s: %v..%v, want %v..%v", c.name, lo, hi, c.lo, c.hi)
		}
	}
}

func TestLook(t *testing.T) {
	q := Tensor{DType: "INT8", Quant: &Quant{Scale: []float32{0.5}, Zero: []int64{-128}}}
	if got := q.Look([]float64{9}, []byte{0x80, 0, 0x7f}); !slices.Equal(got, []float64{9, 0, 64, 127.5}) {
		t.Errorf("%v", got)
	}
	if got := (&Tensor{DType: "UINT8"}).Look(nil, make([]byte, 100_000)); len(got) > 256 || len(got) < 200 {
		t.Errorf("%d elements", len(got))
	}
	q.Quant = &Quant{Scale: []float32{1, 2}, Zero: []int64{0, 0}}
	if got := q.Look(nil, []byte{1, 2}); got != nil {
		t.Errorf("per axis: %v", got)
	}
}
