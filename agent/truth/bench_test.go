package truth_test

import (
	"strconv"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// BenchmarkAnswered is what every request pays for feedback: ten scores looked at, an
// id remembered.
func BenchmarkAnswered(b *testing.B) {
	r := newRig(b)
	c := &bundle.Contract{Watch: &bundle.Watch{Output: "scores"}, Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 10}}}}
	a := &oip.Answered{Slot: infer.Slot{Key: old, Contract: c}, Labels: func() []string { return nil }, Outputs: [][]byte{make([]byte, 40)}}
	b.ReportAllocs()
	for i := range b.N {
		a.ID = strconv.Itoa(i)
		r.Answered(a, truth.See(a))
	}
}
