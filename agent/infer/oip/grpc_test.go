package oip

import (
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
)

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
