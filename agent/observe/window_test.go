package observe

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func floats(v ...float64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
	}
	return b
}

// classifier is a contract of n classes and a gray picture of side x side bytes.
func classifier(n, side int, kind string) *bundle.Contract {
	return &bundle.Contract{
		Inputs:  []bundle.Tensor{{Name: "image", DType: "UINT8", Shape: []int{1, side, side, 1}}, {Name: "gain", DType: "FP32", Shape: []int{1}}},
		Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, n}, Meaning: &bundle.Meaning{Kind: "classes", Score: kind}}, {Name: "more", DType: "FP32", Shape: []int{2}}},
		Watch:   &bundle.Watch{Output: "scores"},
	}
}

// TestEverythingIsMeasured sends three requests and one that fails, and wants all
// that they show in the sample.
func TestEverythingIsMeasured(t *testing.T) {
	c := &clock{t: noon}
	m := NewMonitor(c.now)
	p := NewPlan(classifier(4, 2, "softmax"))
	k := Key{Model: "m"}
	ask := func(image []byte, scores, more []byte, source [2]int) {
		o := &Observation{Key: k, Took: time.Millisecond, Wait: 10 * time.Millisecond, Plan: p, Inputs: [][]byte{image, floats(2)}, Source: source}
		p.Answer(o, [][]byte{scores, more})
		m.Add(o)
		c.set(c.now().Add(lookEvery))
	}
	ask([]byte{0, 0, 255, 100}, floats(1, 0, 0, 0), floats(1, 2), [2]int{640, 480})
	ask([]byte{10, 10, 10, 10}, floats(.25, .25, .25, .25), floats(1, math.Inf(1)), [2]int{640, 480})
	ask([]byte{20, 20, 20, 20}, floats(.5, .5, 0, 0), floats(1, 2), [2]int{1920, 1080})
	m.Add(&Observation{Key: k, Code: "worker.deadline", Plan: p})
	s := m.Take(true)[0]
	if s.Requests != 4 || s.NaN != 1 || s.Errors["worker.deadline"] != 1 {
		t.Errorf("%d requests, %d NaN, %v", s.Requests, s.NaN, s.Errors)
	}
	wait, err := s.Wait.Decode()
	if err != nil || wait.Count() != 3 || math.Abs(wait.Quantile(0.5)-10_000) > 100 {
		t.Errorf("wait %v, %v", wait, err)
	}
	h := func(v ...float64) *sketch.Histogram {
		h := sketch.NewHistogram(0, 1, 20)
		for _, x := range v {
			h.Add(x)
		}
		return &h
	}
	image, gain := sketch.NewInput(0, 255), sketch.NewInput(0, 0)
	for _, v := range [][]float64{{0, 0, 255, 100}, {10, 10, 10, 10}, {20, 20, 20, 20}} {
		image.Add(v)
		gain.Add([]float64{2})
	}
	want := wire.Sample{Score: h(1, .25, .5), Entropy: h(0, 1, .5), Margin: h(1, 0, 0), Classes: []uint64{3}, Inputs: []sketch.Input{image, gain}, Sizes: map[string]uint64{"640x480": 2, "1920x1080": 1}}
	got := wire.Sample{Score: s.Score, Entropy: s.Entropy, Margin: s.Margin, Classes: s.Classes, Inputs: s.Inputs, Sizes: s.Sizes}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s.Inputs[0].Low != 2 || s.Inputs[0].High != 1 || s.Input == nil || s.Input.N != 3 {
		t.Errorf("%+v, %+v", s.Inputs[0], s.Input)
	}
	b, err := wire.Encode(&s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(b))
	if err := wire.Decode(b, &wire.Sample{}); err != nil {
		t.Error(err)
	}
}

// TestPlans checks what is read of outputs of other kinds.
func TestPlans(t *testing.T) {
	int8s := classifier(2, 2, "sigmoid")
	int8s.Outputs = int8s.Outputs[:1]
	int8s.Outputs[0].DType, int8s.Outputs[0].Quant = "INT8", &bundle.Quant{Scale: []float32{1. / 256}, Zero: []int64{-128}}
	boxes := &bundle.Contract{
		Outputs: []bundle.Tensor{{Name: "boxes", DType: "FP32", Meaning: &bundle.Meaning{Kind: "boxes"}}, {Name: "scores", DType: "FP32", Meaning: &bundle.Meaning{Kind: "tensor"}}},
		Watch:   &bundle.Watch{Output: "scores"},
	}
	blind := classifier(2, 2, "softmax")
	blind.Watch = nil
	for _, c := range []struct {
		name    string
		c       *bundle.Contract
		outputs [][]byte
		want    Observation
	}{
		{"logits", classifier(2, 2, "logits"), [][]byte{floats(3, 3), floats(0)}, Observation{Watched: true, Score: 3, Sure: true, Entropy: 1}},
		{"quantized", int8s, [][]byte{{0x80, 0}}, Observation{Watched: true, Class: 1, Score: 0.5, Sure: true, Entropy: 1, Margin: 0.5}},
		{"boxes", boxes, [][]byte{floats(0, 0, 1, 1), floats(.9, .6, .4, .1)}, Observation{Watched: true, Score: float64(float32(.9)), Counted: true, Detections: 2}},
		{"only NaN", classifier(2, 2, "softmax"), [][]byte{floats(math.NaN(), math.NaN()), floats(0)}, Observation{NaN: true, Class: -1}},
		{"NaN far behind", blind, [][]byte{floats(1), append(make([]byte, 4*70_000), floats(math.NaN(), math.NaN(), math.NaN())...)}, Observation{NaN: true}},
		{"nothing is watched", blind, [][]byte{floats(1, 0), floats(0)}, Observation{}},
	} {
		var got Observation
		NewPlan(c.c).Answer(&got, c.outputs)
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(Observation{})); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// TestInputsAreSampled: of a thousand requests in a second, ten are looked at.
func TestInputsAreSampled(t *testing.T) {
	c := &clock{t: noon}
	m, p := NewMonitor(c.now), NewPlan(classifier(2, 300, "softmax"))
	for range 1000 {
		m.Add(&Observation{Key: Key{Model: "m"}, Plan: p, Inputs: [][]byte{make([]byte, 90_000), floats(1)}})
		c.set(c.now().Add(time.Millisecond))
	}
	in := m.Take(true)[0].Inputs[0]
	if in.Requests != 10 || in.Values.N > 10*sketch.InputElements || in.Values.N < 5*sketch.InputElements {
		t.Errorf("%d requests, %d elements", in.Requests, in.Values.N)
	}
}

// TestMapsAreBounded: names and sizes that clients choose do not fill a window.
func TestMapsAreBounded(t *testing.T) {
	m := NewMonitor((&clock{t: noon}).now)
	for i := range 1000 {
		m.Add(&Observation{Key: Key{Model: "m"}, Code: fmt.Sprint("code.", i), Source: [2]int{i + 1, 1}})
	}
	s := m.Take(true)[0]
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var errors, sizes uint64
	for _, n := range s.Errors {
		errors += n
	}
	for _, n := range s.Sizes {
		sizes += n
	}
	if errors != 1000 || sizes != 1000 || s.Sizes[other] != 1000-wire.MaxSampleSizes {
		t.Errorf("%d errors of %d kinds, %d sizes of %d kinds", errors, len(s.Errors), sizes, len(s.Sizes))
	}
}

// maxBytes is what all windows together may hold: with all of them full; a device with
// a few models of ten classes needs some kilobytes.
const maxBytes = 16 << 20

// TestMemoryIsBounded drives a hundred models of 4,096 classes through rollouts and
// arms without end, with nobody taking the samples, and measures the heap.
func TestMemoryIsBounded(t *testing.T) {
	c := &clock{t: noon}
	m := NewMonitor(c.now)
	plans := make([]*Plan, 100)
	for i := range plans {
		plans[i] = NewPlan(classifier(4096, 8, "softmax"))
	}
	inputs := [][]byte{make([]byte, 64), floats(1)}
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	requests, n := uint64(0), uint64(0)
	for round := range 20 {
		for i, p := range plans {
			k := Key{Model: fmt.Sprint("m", i), Rollout: fmt.Sprint("rol_", round), Arm: []string{"treated", "control"}[i%2]}
			for class := 4095; class > 0; class -= 512 {
				m.Add(&Observation{Key: k, Took: time.Duration(class) * time.Second, Wait: time.Hour, Plan: p, Inputs: inputs, Watched: true, Class: class, Score: 1, Sure: true})
				requests++
			}
			c.set(c.now().Add(time.Millisecond))
		}
	}
	grew := heap() - before
	lost := m.Lost()
	t.Logf("2,000 keys: %d windows open, %d done, %d lost, %.1f MB", len(m.windows), len(m.done), lost, float64(grew)/(1<<20))
	if grew > maxBytes || len(m.windows) > maxWindows || len(m.done) > maxDone {
		t.Errorf("%d bytes, %d windows, %d done", grew, len(m.windows), len(m.done))
	}
	for _, s := range m.Take(true) {
		n += s.Requests
	}
	if n+lost*8 != requests {
		t.Errorf("%d requests, %d in samples, %d windows lost", requests, n, lost)
	}
	runtime.KeepAlive(plans)
}

// TestNothingIsAllocated: a request costs no memory once its window is there.
func TestNothingIsAllocated(t *testing.T) {
	m, p, o, outputs := steady(1000)
	if n := testing.AllocsPerRun(200, func() {
		answer := o
		p.Answer(&answer, outputs)
		m.Add(&answer)
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// steady is a request of a model with n classes whose window is open; every call
// of the clock is lookEvery later, so that inputs are looked at each time.
func steady(n int) (*Monitor, *Plan, Observation, [][]byte) {
	now := noon
	m := NewMonitor(func() time.Time { now = now.Add(time.Nanosecond); return now })
	p := NewPlan(classifier(n, 224, "softmax"))
	scores := make([]float64, n)
	for i := range scores {
		scores[i] = 0.1 / float64(n)
	}
	scores[n/2] = 0.9
	o := Observation{Key: Key{Model: "m"}, Took: time.Millisecond, Wait: time.Millisecond, Plan: p, Inputs: [][]byte{make([]byte, 224*224), floats(1)}, Source: [2]int{640, 480}}
	outputs := [][]byte{floats(scores...), floats(1, 2)}
	for range learnt + 10 {
		first := o
		p.Answer(&first, outputs)
		m.Add(&first)
	}
	return m, p, o, outputs
}

func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{10, 1000, 4096} {
		b.Run(fmt.Sprint(n, " classes"), func(b *testing.B) {
			m, p, o, outputs := steady(n)
			b.ReportAllocs()
			for b.Loop() {
				answer := o
				p.Answer(&answer, outputs)
				m.Add(&answer)
			}
		})
	}
	b.Run("look at inputs", func(b *testing.B) {
		_, p, o, _ := steady(10)
		into := p.newInputs()
		b.ReportAllocs()
		for b.Loop() {
			p.look(into, o.Inputs)
		}
	})
}

// TestWorkersInWindows: what workers hold is told where requests came, a crash always.
func TestWorkersInWindows(t *testing.T) {
	now := noon
	m := NewMonitor(func() time.Time { return now })
	k := Key{Model: "m"}
	m.Memory(k, 100)
	if got := m.Take(true); len(got) != 0 {
		t.Fatalf("memory alone makes a window: %+v", got)
	}
	m.Crashed(k)
	m.Memory(k, 200)
	m.Memory(k, 300)
	m.Memory(k, 0)
	got := m.Take(true)
	if len(got) != 1 || got[0].Crashes != 1 || got[0].Memory != 300 || got[0].Requests != 0 {
		t.Fatalf("%+v", got)
	}
}
