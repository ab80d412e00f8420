package oip

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// FuzzRequest: whatever comes, a request that is accepted has each input once, as
// long as its tensor.
func FuzzRequest(f *testing.F) {
	c := &bundle.Contract{
		Inputs:  []bundle.Tensor{{Name: "a", DType: "FP32", Shape: []int{1, 2}}, {Name: "b", DType: "INT8", Shape: []int{-1, 2}}, {Name: "c", DType: "BOOL", Shape: []int{}}},
		Outputs: []bundle.Tensor{{Name: "y", DType: "FP32", Shape: []int{1}}},
	}
	f.Add([]byte(`{"id":"x","inputs":[{"name":"a","datatype":"FP32","shape":[1,2],"data":[[1,2]]},{"name":"b","datatype":"INT8","shape":[3,2],"data":[1,2,3,4,5,6]},{"name":"c","datatype":"BOOL","shape":[],"data":[true]}],"outputs":[{"name":"y"}]}`))
	f.Add([]byte(`{"inputs":[{"name":"a","datatype":"FP32","shape":[1,2],"data":[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			return
		}
		in, err := r.bytes(c)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatal("what is no JSON was accepted")
		}
		if len(in) != 3 || len(in[0]) != 8 || len(in[1])%2 != 0 || len(in[2]) != 1 || in[2][0] > 1 {
			t.Fatalf("inputs %v", in)
		}
	})
}

// TestClassify: the highest first, equal ones in their order, what is not a number
// last, a row for each of the other dimensions, real values of quantized ones.
func TestClassify(t *testing.T) {
	nan := float32(math.NaN())
	fp32 := func(v ...float32) []byte {
		var b []byte
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		return b
	}
	for _, c := range []struct {
		tensor bundle.Tensor
		b      []byte
		shape  []int
		k      int
		labels []string
		want   []string
		out    []int
	}{
		{bundle.Tensor{DType: "FP32"}, fp32(0.25, 0.5, 0.25), []int{3}, 2, []string{"a", "b", "c"}, []string{"0.5:1:b", "0.25:0:a"}, []int{2}},
		{bundle.Tensor{DType: "FP32"}, fp32(nan, -1, 2), []int{1, 3}, 9, []string{"a"}, []string{"2:2", "-1:1", "NaN:0:a"}, []int{1, 3}},
		{bundle.Tensor{DType: "FP32"}, fp32(1, 2, 4, 3), []int{2, 2}, 1, nil, []string{"2:1", "4:0"}, []int{2, 1}},
		{bundle.Tensor{DType: "INT8", Quant: &bundle.Quant{Scale: []float32{0.5}, Zero: []int64{-2}}}, []byte{0, 2}, []int{2}, 1, nil, []string{"2:1"}, []int{1}},
		{bundle.Tensor{DType: "FP32"}, fp32(7), nil, 3, nil, []string{"7:0"}, []int{1}},
		{bundle.Tensor{DType: "FP32"}, nil, []int{0, 3}, 1, nil, nil, []int{0, 1}},
	} {
		out, have := classify(&c.tensor, c.b, c.shape, c.k, c.labels)
		if !reflect.DeepEqual(have, c.want) || !reflect.DeepEqual(out, c.out) {
			t.Errorf("%v: %v %v, want %v %v", c.b, out, have, c.out, c.want)
		}
	}
}

// FuzzBody: whatever comes behind whatever length, bytes that are accepted are as
// many as were announced, and nothing is left over.
func FuzzBody(f *testing.F) {
	head := `{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},{"name":"b","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}]}`
	f.Add([]byte(head+"12345"), strconv.Itoa(len(head)))
	f.Add([]byte(head), "")
	f.Fuzz(func(t *testing.T, b []byte, length string) {
		r, err := read(b, length)
		if err != nil {
			return
		}
		n, total := 0, int64(0)
		for _, in := range r.inputs {
			n += len(in.raw)
			total += max(in.size, 0)
		}
		if int64(n) != total || n > len(b) {
			t.Fatalf("%d bytes of %d", n, total)
		}
	})
}

// TestChecked: what was checked against one slot may be answered by another only if its
// inputs mean the same.
func TestChecked(t *testing.T) {
	slot := func(bundled string, change func(t *bundle.Tensor)) infer.Slot {
		x := bundle.Tensor{Name: "image", DType: "UINT8", Shape: []int{1, 2, 2, 1}, Meaning: &bundle.Meaning{Kind: "image", Colour: "gray", Range: [2]float64{0, 1}}}
		change(&x)
		return infer.Slot{Key: observe.Key{Bundle: bundled}, Version: bundled, Contract: &bundle.Contract{Inputs: []bundle.Tensor{x}}}
	}
	as := func(*bundle.Tensor) {}
	a := slot("a", as)
	for name, c := range map[string]struct {
		version string
		by      infer.Slot
		want    bool
	}{
		"itself":              {"a", a, true},
		"the same":            {"", slot("b", as), true},
		"another version":     {"a", slot("b", as), false},
		"another shape":       {"", slot("b", func(t *bundle.Tensor) { t.Shape[1] = 3 }), false},
		"another range":       {"", slot("b", func(t *bundle.Tensor) { t.Meaning.Range[1] = 2 }), false},
		"another scale":       {"", slot("b", func(t *bundle.Tensor) { t.Quant = &bundle.Quant{Scale: []float32{1}, Zero: []int64{0}} }), false},
		"a meaning no longer": {"", slot("b", func(t *bundle.Tensor) { t.Meaning = nil }), false},
	} {
		if have := checked(c.version, a, c.by); have != c.want {
			t.Errorf("%s: %v", name, have)
		}
	}
}
