package modelview

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

// file is a model with metadata, labels behind it and two tensors of data.
func file(t *testing.T, labels string) []byte {
	t.Helper()
	m := tflitetest.Classifier(3)
	g := &m.Subgraphs[0]
	m.Buffers = append(m.Buffers, tflite.Buffer{}, tflite.Buffer{Size: 12}, tflite.Buffer{Size: 12})
	g.Tensors = append(g.Tensors, tflite.Tensor{Name: "w", Type: tflite.Float32, Shape: []int32{3}, Buffer: 2},
		tflite.Tensor{Name: "b", Type: tflite.Int8, Shape: []int32{12}, Buffer: 3})
	m.OpCodes = append(m.OpCodes, tflite.OpCode{Builtin: 32, Custom: "Mfcc", Version: 1})
	g.Tensors = append(g.Tensors, tflite.Tensor{Name: "x", Type: tflite.Float32, Shape: []int32{1, 3}})
	g.Operators = append(g.Operators, tflite.Operator{OpCode: 1, Inputs: []int32{0}, Outputs: []int32{4}})
	m.Metadata = []tflite.Metadata{{Name: "TFLITE_METADATA", Buffer: 1}}
	card := tflitetest.MarshalCard(&tflite.Card{
		Name: "digits\x1b[31m", Author: "someone",
		Inputs:  []tflite.TensorCard{{Name: "image", Content: "image", Colour: "gray", Mean: []float32{127.5}, Std: []float32{127.5}}},
		Outputs: []tflite.TensorCard{{Name: "scores", Files: []tflite.File{{Name: "labels.txt", Kind: "labels"}}}},
	})
	var out bytes.Buffer
	out.Write(tflitetest.MarshalData(m, map[int][]byte{1: card}))
	z := zip.NewWriter(&out)
	z.SetOffset(int64(out.Len()))
	w, err := z.Create("labels.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(labels)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRead(t *testing.T) {
	v, err := Read("model.tflite", file(t, "one\ntwo\nthree\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	v.Table(&b)
	text := strings.ReplaceAll(b.String(), "\t", " ")
	for _, want := range []string{
		"signature serving_default", "input image FP32 [1 3], image gray -1..1", "output scores",
		"operator Mfcc 1 custom", "operator SOFTMAX 1 version 1",
		"parameters 15 24 bytes", "weights float32 12 bytes 1 tensors", "weights int8 12 bytes 1 tensors",
		"runtime operators of LiteRT 2.3.0, and custom ones: Mfcc", "metadata name digits?[31m",
		"metadata input 0 image, image, gray, (x - [127.5]) / [127.5]", "labels labels.txt 3: one, two, three",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if v.Notes != nil || v.Problems != nil {
		t.Errorf("notes %q, problems %q", v.Notes, v.Problems)
	}
	if v, err = Read("model.tflite", file(t, "one\ntwo\n"), nil); err != nil || !slices.Contains(v.Notes, "labels.txt holds 2 labels, the output out:0 has 3 values") {
		t.Errorf("notes %q, %v", v.Notes, err)
	}
}

// Of a file that the check refuses, no table is followed.
func TestReadProblems(t *testing.T) {
	m := tflitetest.Classifier(3)
	m.Subgraphs[0].Operators[0].Inputs[0] = 77
	v, err := Read("bad.tflite", tflitetest.Marshal(m), nil)
	if err != nil || len(v.Problems) != 1 || v.Signatures != nil {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := Read("bad.tflite", []byte("nothing"), nil); err == nil {
		t.Error("nothing was read as a model")
	}
}

// base is a contract to change, with the view of a real model.
func base() *Subject {
	return &Subject{Labels: []string{"a", "b", "c"}, Contract: &bundle.Contract{
		Model: "digits", Kind: bundle.KindModel, Runtime: &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"},
		Inputs: []bundle.Tensor{
			{Name: "image", DType: "UINT8", Shape: []int{1, 8, 8, 1}, Quant: &bundle.Quant{Scale: []float32{0.5}, Zero: []int64{1}}, Meaning: &bundle.Meaning{Kind: "image", Colour: "rgb"}},
			{Name: "gain", DType: "FP32", Shape: []int{1}},
		},
		Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, -1}}, {Name: "extra", DType: "FP32", Shape: []int{1, 2}}},
	}}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(s *Subject)
		part     string
		text     string
		breaking bool
	}{
		{"renamed", func(s *Subject) { s.Contract.Inputs[0].Name = "picture" }, "input image", "renamed to picture", true},
		{"input dropped", func(s *Subject) { s.Contract.Inputs = s.Contract.Inputs[:1] }, "input gain", "dropped", true},
		{"input added", func(s *Subject) {
			s.Contract.Inputs = append(s.Contract.Inputs, bundle.Tensor{Name: "new", DType: "FP32"})
		}, "input new", "added", true},
		{"output dropped", func(s *Subject) { s.Contract.Outputs = s.Contract.Outputs[:1] }, "output extra", "dropped", true},
		{"output added", func(s *Subject) {
			s.Contract.Outputs = append(s.Contract.Outputs, bundle.Tensor{Name: "new", DType: "FP32"})
		}, "output new", "added", false},
		{"type", func(s *Subject) { s.Contract.Outputs[0].DType = "FP16" }, "output scores", "type FP32 is now FP16", true},
		{"shape", func(s *Subject) { s.Contract.Inputs[0].Shape = []int{1, 16, 16, 1} }, "input image", "shape [1 8 8 1] is now [1 16 16 1]", true},
		{"input takes more", func(s *Subject) { s.Contract.Inputs[0].Shape = []int{-1, 8, 8, 1} }, "input image", "which takes the same", false},
		{"output gives less", func(s *Subject) { s.Contract.Outputs[0].Shape = []int{1, 3} }, "output scores", "which takes the same", false},
		{"output gives more", func(s *Subject) { s.Contract.Outputs[1].Shape = []int{1, -1} }, "output extra", "is now [1 -1]", true},
		{"quantization", func(s *Subject) { s.Contract.Inputs[0].Quant.Zero[0] = 2 }, "input image", "the same numbers mean other values", true},
		{"colour", func(s *Subject) { s.Contract.Inputs[0].Meaning.Colour = "bgr" }, "input image", "meaning image rgb is now image bgr", true},
		{"meaning said", func(s *Subject) { s.Contract.Inputs[1].Meaning = &bundle.Meaning{Kind: "tensor"} }, "input gain", "meaning (none) is now tensor", false},
		{"order", func(s *Subject) { slices.Reverse(s.Contract.Outputs) }, "outputs", "come in another order: extra, scores", false},
		{"labels turned", func(s *Subject) { s.Labels = []string{"a", "c", "b"} }, "labels", `their order changed: value 1 was "b" and is "c"`, true},
		{"label renamed", func(s *Subject) { s.Labels = []string{"a", "b", "d"} }, "labels", `value 2 was "c" and is "d"`, true},
		{"labels fewer", func(s *Subject) { s.Labels = s.Labels[:2] }, "labels", "the last 1 of 3 are gone", true},
		{"labels gone", func(s *Subject) { s.Labels = nil }, "labels", "all 3 are gone", true},
		{"labels more", func(s *Subject) { s.Labels = append(s.Labels, "d") }, "labels", "1 more behind the 3", false},
		{"state", func(s *Subject) { s.Contract.State = "carry" }, "state", "false is now true", true},
		{"serve", func(s *Subject) { s.Contract.Serve = "file" }, "serve", "worker is now file", true},
		{"runtime", func(s *Subject) { s.Contract.Runtime.Min = "2.3.0" }, "runtime", "litert 2.1.6 is now litert 2.3.0", false},
		{"budgets", func(s *Subject) { s.Contract.Budgets = []bundle.Budget{{Class: "any"}} }, "budgets", "0 are now 1", false},
		{"golden", func(s *Subject) { s.Contract.Golden = &bundle.Golden{Cases: 4} }, "golden", "0 cases are now 4", false},
	} {
		b := base()
		c.change(b)
		changes := Compare(base(), b)
		if len(changes) != 1 || changes[0].Part != c.part || changes[0].Breaking != c.breaking || !strings.Contains(changes[0].Text, c.text) {
			t.Errorf("%s: %+v", c.name, changes)
		}
	}
	if changes := Compare(base(), base()); changes != nil {
		t.Errorf("the same: %+v", changes)
	}
}

// Other weights in the same network are compatible.
func TestCompareFiles(t *testing.T) {
	read := func(b []byte) *Subject {
		v, err := Read("model.tflite", b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &Subject{View: v}
	}
	trained := func(release string) []byte {
		b, err := os.ReadFile(filepath.Join("../../../../testbed/models/digits", release, "model.tflite"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	changes := Compare(read(trained("1.1.0")), read(trained("shifted")))
	if Breaking(changes) != 0 || !slices.ContainsFunc(changes, func(c Change) bool { return c.Part == "weights" }) {
		t.Errorf("retrained: %+v", changes)
	}
	changes = Compare(read(trained("1.1.0")), read(trained("1.1.1")))
	if Breaking(changes) != 2 || !changes[0].Breaking || !changes[1].Breaking || changes[2].Breaking {
		t.Errorf("quantized: %+v", changes)
	}
	var b strings.Builder
	Table(&b, changes)
	if !strings.HasPrefix(b.String(), "CONSUMERS\tPART\tCHANGE\nbreaking\tinput image\ttype FP32 is now INT8\n") {
		t.Error(b.String())
	}
	b.Reset()
	if Table(&b, nil); b.String() != "nothing differs\n" {
		t.Error(b.String())
	}
}
