package oip

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
)

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
		want, err := pack(x.dtype, []int{2}, 2, x.data)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := contents(x.dtype, x.in); err != nil || !bytes.Equal(have, want) {
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
		if b, err := contents(x.dtype, x.in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", says, b, err)
		}
	}
}

// TestMessages reads requests that are wrong.
func TestMessages(t *testing.T) {
	type (
		in  = oippb.ModelInferRequest_InferInputTensor
		out = oippb.ModelInferRequest_InferRequestedOutputTensor
		par = map[string]*oippb.InferParameter
	)
	text := func(s string) *oippb.InferParameter {
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_StringParam{StringParam: s}}
	}
	number := func(n int64) *oippb.InferParameter {
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: n}}
	}
	a := &in{Name: "a", Datatype: "FP32", Shape: []int64{1}}
	typed := &in{Name: "a", Datatype: "FP32", Contents: &oippb.InferTensorContents{Fp32Contents: []float32{1}}}
	for says, m := range map[string]*oippb.ModelInferRequest{
		"not both":                    {Inputs: []*in{typed}, RawInputContents: [][]byte{{0, 0, 0, 0}}},
		"has no raw_input_contents":   {Inputs: []*in{a, a}, RawInputContents: [][]byte{{0, 0, 0, 0}}},
		"1 raw_input_contents are of": {Inputs: []*in{a}, RawInputContents: [][]byte{{0, 0, 0, 0}, {}}},
		"data is missing":             {Inputs: []*in{a}},
		"timeout: a whole number":     {Parameters: par{"timeout": text("soon")}},
		"timeout is -1":               {Parameters: par{"timeout": number(-1)}},
		"a name is wanted":            {Inputs: []*in{{Name: "a", Parameters: par{"shared_memory_region": number(1)}}}},
		"shared_memory_offset is":     {Inputs: []*in{{Name: "a", Parameters: par{"shared_memory_region": text("r"), "shared_memory_offset": number(-1)}}}},
		"classification is":           {Outputs: []*out{{Name: "y", Parameters: par{"classification": number(-1)}}}},
		"does not go to shared":       {Outputs: []*out{{Name: "y", Parameters: par{"classification": number(1), "shared_memory_region": text("r")}}}},
		"more than 256 tensors":       {Inputs: make([]*in, 257)},
	} {
		if r, err := requestOf(m); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", says, r, err)
		}
	}
}
