package elements

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
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
		b, err := Pack(dtype, []int{3}, 3, data)
		if err != nil || len(b) != 3*bundle.DTypeSize(dtype) {
			t.Errorf("%s: %d bytes, %v", dtype, len(b), err)
			continue
		}
		if back := string(JSON(dtype, b)); back != data {
			t.Errorf("%s: %s came back as %s", dtype, data, back)
		}
	}
	if got := string(JSON("FP32", []byte{0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0x7f})); got != "[null,null]" {
		t.Errorf("not numbers: %s", got)
	}
	if got := string(JSON("FP32", nil)); got != "[]" {
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
		if _, err := Pack("FP32", c.shape, c.n, c.data); (err == nil) != c.ok {
			t.Errorf("%v of %s: %v", c.shape, c.data, err)
		}
	}
}

// FuzzNumbers: a list of FP32 that is accepted is what encoding/json reads.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte("[1, -2.5e3]"))
	f.Add([]byte("[[1],[2]]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		packed, err := Pack("FP32", []int{2}, 2, string(b))
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

// TestContents packs typed contents as JSON numbers are packed.
func TestContents(t *testing.T) {
	type c = oippb.InferTensorContents
	for _, x := range []struct {
		dtype, data string
		in          *c
	}{
		{"BOOL", "[true,false]", &c{BoolContents: []bool{true, false}}},
		{"INT8", "[-128,127]", &c{IntContents: []int32{-128, 127}}},
		{"INT16", "[-32768,7]", &c{IntContents: []int32{-32768, 7}}},
		{"INT32", "[-2147483648,7]", &c{IntContents: []int32{math.MinInt32, 7}}},
		{"INT64", "[-9223372036854775808,7]", &c{Int64Contents: []int64{math.MinInt64, 7}}},
		{"UINT8", "[255,0]", &c{UintContents: []uint32{255, 0}}},
		{"UINT16", "[65535,0]", &c{UintContents: []uint32{65535, 0}}},
		{"UINT32", "[4294967295,0]", &c{UintContents: []uint32{math.MaxUint32, 0}}},
		{"UINT64", "[18446744073709551615,0]", &c{Uint64Contents: []uint64{math.MaxUint64, 0}}},
		{"FP32", "[0.1,-3]", &c{Fp32Contents: []float32{0.1, -3}}},
		{"FP64", "[0.1,-3]", &c{Fp64Contents: []float64{0.1, -3}}},
	} {
		want, err := Pack(x.dtype, []int{2}, 2, x.data)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := Contents(x.dtype, x.in); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s: %v, %v; want %v", x.dtype, have, err, want)
		}
	}
	for says, x := range map[string]struct {
		dtype string
		in    *c
	}{
		"data is missing":           {"FP32", nil},
		"has no contents":           {"FP16", &c{Fp32Contents: []float32{1}}},
		"another datatype":          {"FP32", &c{Fp64Contents: []float64{1}}},
		"element 1 does not fit":    {"INT8", &c{IntContents: []int32{0, 128}}},
		"element 0 does not fit":    {"UINT8", &c{UintContents: []uint32{256, 0}}},
		"datatype \"BYTES\" has no": {"BYTES", &c{BytesContents: [][]byte{{1}}}},
	} {
		if b, err := Contents(x.dtype, x.in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", says, b, err)
		}
	}
}
