package oip

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestNumbersAreExact sends the ends of every datatype there and back.
func TestNumbersAreExact(t *testing.T) {
	for dtype, data := range map[string]string{
		"INT8": "[-128,127,0]", "UINT8": "[0,255,7]", "INT16": "[-32768,32767,0]", "UINT16": "[0,65535,1]",
		"INT32": "[-2147483648,2147483647,0]", "UINT32": "[0,4294967295,1]",
		"INT64": "[-9223372036854775808,9223372036854775807,9007199254740993]", "UINT64": "[0,18446744073709551615,9007199254740993]",
		"FP32": "[0.1,3.4028235e+38,-1e-45]", "FP64": "[0.1,1.7976931348623157e+308,-5e-324]", "BOOL": "[true,false,true]",
	} {
		b, err := pack(dtype, []int{3}, 3, data)
		if err != nil || len(b) != 3*bundle.DTypeSize(dtype) {
			t.Errorf("%s: %d bytes, %v", dtype, len(b), err)
			continue
		}
		if back := string(numbers(dtype, b)); back != data {
			t.Errorf("%s: %s came back as %s", dtype, data, back)
		}
	}
	if got := string(numbers("FP32", []byte{0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0x7f})); got != "[null,null]" {
		t.Errorf("not numbers: %s", got)
	}
	if got := string(numbers("FP32", nil)); got != "[]" {
		t.Errorf("nothing: %s", got)
	}
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		shape []int
		n     int
		data  string
		ok    bool
	}{
		{[]int{}, 1, "[5]", true},
		{[]int{0}, 0, "[]", true},
		{[]int{0}, 0, "[1]", false},
		{[]int{2, 2}, 4, "[[1,2],[3,4]]", true},
		{[]int{2, 2}, 4, " [ [ 1 , 2 ]\n,\t[3,4 ] ] ", true},
		{[]int{2, 2}, 4, "[1,2,3,4]", true},
		{[]int{2, 2}, 4, "[[1,2,3,4]]", false},
		{[]int{2, 2}, 4, "[[1,2],3,4]", false},
		{[]int{2, 0}, 0, "[[],[]]", true},
		{[]int{1 << 20, 1 << 20}, 1 << 40, "[1]", false},
	} {
		if _, err := pack("FP32", c.shape, c.n, c.data); (err == nil) != c.ok {
			t.Errorf("%v of %s: %v", c.shape, c.data, err)
		}
	}
}

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

// FuzzNumbers: a list of FP32 that is accepted is what encoding/json reads.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte("[1, -2.5e3]"))
	f.Add([]byte("[[1],[2]]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		packed, err := pack("FP32", []int{2}, 2, string(b))
		var want []float32
		same := json.Unmarshal(b, &want) == nil && len(want) == 2
		if err != nil {
			return
		}
		have := bundle.Values("FP32", packed)
		if !same || !reflect.DeepEqual(have, []float64{float64(want[0]), float64(want[1])}) && !math.IsNaN(have[0]) {
			t.Fatalf("%s: %v, want %v", b, have, want)
		}
	})
}
