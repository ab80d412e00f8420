package infer

import (
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestOffer: without room a live request costs nothing and is counted; with room
// its bytes are copied, because they are its caller's.
func TestOffer(t *testing.T) {
	v, in, r := &served{slot: Slot{Contract: &bundle.Contract{}}}, [][]byte{make([]byte, 1<<16)}, result{outputs: [][]byte{{1}}}
	h := &shadow{every: 1, queue: make(chan copied, 1)}
	h.offer(v, in, r)
	if n := testing.AllocsPerRun(100, func() { h.offer(v, in, r) }); n != 0 || h.dropped.Load() == 0 {
		t.Errorf("%v allocations, %d dropped", n, h.dropped.Load())
	}
	in[0][0], r.outputs[0][0] = 9, 9
	if c := <-h.queue; c.inputs[0][0] == 9 || c.answer.Outputs[0][0] == 9 {
		t.Error("the caller's bytes were kept")
	}
	h = &shadow{every: 10, queue: make(chan copied, 1000)}
	for range 1000 {
		h.offer(v, in, r)
	}
	if len(h.queue) != 100 {
		t.Errorf("%d of 1000 were chosen, a tenth was asked for", len(h.queue))
	}
}
