package tflite_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

// rich is a model with something in every field that the reader knows.
func rich() *Model {
	m := tflitetest.Classifier(3)
	m.Description = "a test"
	m.OpCodes = append(m.OpCodes, OpCode{Builtin: 32, Custom: "Mfcc", Version: 2}, OpCode{Builtin: 132, Version: 1})
	m.Buffers = append(m.Buffers, Buffer{Size: 3}, Buffer{Size: 24})
	g := &m.Subgraphs[0]
	g.Tensors = append(g.Tensors,
		Tensor{Name: "w", Type: Int8, Shape: []int32{3, 1}, Buffer: 1, Quant: &Quant{Scale: []float32{0.5, 0.25, 1}, Zero: []int64{-1, 0, 127}}},
		Tensor{Name: "free", Type: Int64, Shape: []int32{1}, ShapeSignature: []int32{-1}},
		Tensor{Name: "more", Type: Float32, Shape: []int32{1, 3}})
	g.Operators = append(g.Operators, Operator{OpCode: 2, Inputs: []int32{0, 2, -1}, Outputs: []int32{4}, Intermediates: []int32{3}})
	m.Metadata = []Metadata{{Name: "min_runtime_version", Buffer: 2}}
	return m
}

func TestParse(t *testing.T) {
	want := rich()
	b := tflitetest.Marshal(want)
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != int64(len(b)) {
		t.Errorf("size %d of %d", got.Size, len(b))
	}
	for i, x := range got.Buffers { // positions are the writer's
		if x.Size > 0 && (x.Offset%16 != 0 || x.Offset+x.Size > got.Size) {
			t.Errorf("buffer %d: %+v", i, x)
		}
		got.Buffers[i].Offset = 0
	}
	want.Size, want.Flat = got.Size, got.Size
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if p := Check(got, Policy{Custom: []string{"Mfcc"}}); p != nil {
		t.Errorf("a sound model has problems: %v", p)
	}
}

func TestSignature(t *testing.T) {
	m := tflitetest.Classifier(3)
	s, ok := m.Signature("")
	if !ok || s.Key != "serving_default" || s.Outputs[0].Name != "scores" || m.Tensor(s, s.Outputs[0]).Name != "out:0" {
		t.Errorf("first signature: %+v", s)
	}
	if _, ok := m.Signature("other"); ok {
		t.Error("an unknown key was found")
	}
	m.Signatures = nil
	if s, ok = m.Signature(""); !ok || s.Inputs[0].Name != "in:0" || s.Outputs[0] != (Named{Name: "out:0", Tensor: 1}) {
		t.Errorf("without signatures: %+v", s)
	}
	dynamic := Tensor{Shape: []int32{1, 4}, ShapeSignature: []int32{-1, 4}}
	if d := dynamic.Dims(); !slices.Equal(d, []int{-1, 4}) {
		t.Errorf("dims %v", d)
	}
}

func TestNotAModel(t *testing.T) {
	old := tflitetest.Classifier(1)
	old.Version = 2
	empty := tflitetest.Classifier(1)
	empty.Subgraphs = nil
	outside := tflitetest.Classifier(1)
	outside.Buffers = append(outside.Buffers, Buffer{Offset: 1 << 40, Size: 4, Outside: true})
	// The vtable of the root says that the table ends before its fields.
	narrow := tflitetest.Marshal(tflitetest.Classifier(1))
	root := binary.LittleEndian.Uint32(narrow)
	vtable := root - binary.LittleEndian.Uint32(narrow[root:])
	binary.LittleEndian.PutUint16(narrow[vtable+2:], 4)
	le := binary.LittleEndian
	follow := func(b []byte, at int) int { return at + int(le.Uint32(b[at:])) }
	field := func(b []byte, table, i int) int {
		return table + int(le.Uint16(b[table-int(int32(le.Uint32(b[table:])))+4+2*i:]))
	}
	whole := tflitetest.Classifier(1)
	whole.Description = "text"
	call(whole, 0)
	spoiled := func(spoil func(b []byte, graph, operator int)) []byte {
		b := tflitetest.Marshal(whole)
		graph := follow(b, follow(b, field(b, follow(b, 0), 2))+4)
		spoil(b, graph, follow(b, follow(b, field(b, graph, 3))+4))
		return b
	}
	for name, b := range map[string][]byte{
		"text without an end":     spoiled(func(b []byte, _, _ int) { b[bytes.Index(b, []byte("text"))+4] = 'x' }),
		"unknown options":         spoiled(func(b []byte, _, operator int) { b[field(b, operator, 3)] = 255 }),
		"options outside":         spoiled(func(b []byte, _, operator int) { le.PutUint32(b[field(b, operator, 4):], uint32(len(b))) }),
		"options of another kind": spoiled(func(b []byte, _, operator int) { b[field(b, operator, 3)] = 17 }), // a vector where a number is
		"crooked vector": spoiled(func(b []byte, graph, _ int) {
			at := field(b, graph, 1)
			le.PutUint32(b[at:], le.Uint32(b[at:])+2)
		}),
		"crooked table": spoiled(func(b []byte, graph, _ int) {
			at := follow(b, field(b, graph, 3)) + 4
			le.PutUint32(b[at:], le.Uint32(b[at:])+2)
		}),
		"narrow table":    narrow,
		"nothing":         {},
		"eight bytes":     []byte("\x18\x00\x00\x00TFL3"), // crashes loaders that do not verify
		"root at itself":  []byte("\x00\x00\x00\x00TFL3"),
		"other magic":     append([]byte("\x08\x00\x00\x00TFL4"), make([]byte, 64)...),
		"zeros":           append([]byte("\x08\x00\x00\x00TFL3"), make([]byte, 4096)...),
		"version 2":       tflitetest.Marshal(old),
		"no subgraph":     tflitetest.Marshal(empty),
		"buffer far away": tflitetest.Marshal(outside),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		code  string
		spoil func(m *Model)
	}{
		{"operator.tensor", func(m *Model) { m.Subgraphs[0].Operators[0].Inputs[0] = 99 }},
		{"operator.tensor", func(m *Model) { m.Subgraphs[0].Operators[0].Outputs[0] = -1 }},
		{"operator.tensor", func(m *Model) { m.Subgraphs[0].Operators[0].Inputs[0] = -2 }},
		{"operator.tensor", func(m *Model) { m.Subgraphs[0].Operators[1].Intermediates[0] = 5 }},
		{"operator.code", func(m *Model) { m.Subgraphs[0].Operators[0].OpCode = 3 }},
		{"operator.tensor", func(m *Model) { m.Subgraphs[0].Operators[1].Inputs[1] = -1 }},
		{"operator.order", func(m *Model) { m.Subgraphs[0].Operators[0].Inputs[0] = 3 }},
		{"operator.order", func(m *Model) { m.Subgraphs[0].Operators[0].Inputs[0] = 4 }},
		{"operator.output", func(m *Model) { m.Subgraphs[0].Operators[0].Outputs[0] = 2 }},
		{"operator.output", func(m *Model) { m.Subgraphs[0].Operators[0].Outputs[0] = 0 }},
		{"operator.output", func(m *Model) { m.Subgraphs[0].Operators[1].Outputs[0] = 1 }},
		{"operator.version", func(m *Model) { m.OpCodes[0].Version = 5 }},
		{"operator.version", func(m *Model) { m.OpCodes[0].Version = 0 }},
		{"operator.version", func(m *Model) { m.OpCodes[0] = OpCode{Builtin: 130, Version: 1} }},
		{"operator.unknown", func(m *Model) { m.OpCodes[0].Builtin = 29 }}, // of the schema only
		{"operator.custom", func(m *Model) { m.OpCodes[0] = OpCode{Builtin: 32, Custom: "FlexErf", Version: 1} }},
		{"operator.subgraph", func(m *Model) { call(m, 1) }},
		{"operator.subgraph", func(m *Model) { call(m, -1) }},
		{"subgraph.circle", func(m *Model) { call(m, 0) }},
		{"subgraph.output", func(m *Model) { m.Subgraphs[0].Outputs[0] = 3 }},
		{"buffer.overlap", func(m *Model) { m.Buffers = append(m.Buffers, Buffer{Offset: 16, Size: 4, Outside: true}) }},
		{"operator.options", func(m *Model) { o := &m.Subgraphs[0].Operators[0]; o.OptionsOffset, o.OptionsSize = 8, 8 }},
		{"signature.tensor", func(m *Model) { m.Signatures[0].Outputs[0].Tensor = 2 }},
		{"signature.name", func(m *Model) { m.Signatures[0].Outputs[0].Name = "a\x00b" }},
		{"tensor.shape", func(m *Model) { m.Subgraphs[0].Tensors[1].Shape = []int32{1 << 16, 1 << 15} }},
		{"metadata.malformed", func(m *Model) { m.Metadata[0].Name = "TFLITE_METADATA" }},
		{"operator.custom", func(m *Model) { m.Subgraphs[0].Operators[0].OpCode = 1 }},
		{"operator.unknown", func(m *Model) { m.OpCodes[0].Builtin = 51 }},
		{"operator.unknown", func(m *Model) { m.OpCodes[0].Builtin = 4000 }},
		{"operator.options", func(m *Model) { o := &m.Subgraphs[0].Operators[0]; o.OptionsOffset, o.OptionsSize = 1<<63, 1<<63 }},
		{"subgraph.input", func(m *Model) { m.Subgraphs[0].Inputs[0] = 5 }},
		{"subgraph.output", func(m *Model) { m.Subgraphs[0].Outputs[0] = -1 }},
		{"tensor.type", func(m *Model) { m.Subgraphs[0].Tensors[0].Type = 23 }},
		{"tensor.type", func(m *Model) { m.Subgraphs[0].Tensors[0].Type = -1 }},
		{"tensor.shape", func(m *Model) { m.Subgraphs[0].Tensors[0].Shape = []int32{1 << 30, 1 << 30, 1 << 30} }},
		{"tensor.shape", func(m *Model) { m.Subgraphs[0].Tensors[0].Shape = []int32{-1} }},
		{"tensor.shape", func(m *Model) { m.Subgraphs[0].Tensors[3].ShapeSignature = []int32{1, 1} }},
		{"tensor.buffer", func(m *Model) { m.Subgraphs[0].Tensors[2].Buffer = 3 }},
		{"tensor.data", func(m *Model) { m.Subgraphs[0].Tensors[2].Buffer = 2 }},
		{"tensor.external", func(m *Model) { m.Subgraphs[0].Tensors[2].External = 1 }},
		{"tensor.quantization", func(m *Model) { m.Subgraphs[0].Tensors[2].Quant.Axis = 1 }},
		{"tensor.quantization", func(m *Model) { m.Subgraphs[0].Tensors[2].Quant.Zero = []int64{0} }},
		{"tensor.quantization", func(m *Model) { m.Subgraphs[0].Tensors[2].Quant.Scale[0] = -1 }},
		{"metadata.buffer", func(m *Model) { m.Metadata[0].Buffer = 3 }},
		{"signature.subgraph", func(m *Model) { m.Signatures[0].Subgraph = 1 }},
		{"signature.tensor", func(m *Model) { m.Signatures[0].Inputs[0].Tensor = 1 << 31 }},
		{"signature.name", func(m *Model) { m.Signatures[0].Inputs[0].Name = "\xff" }},
		{"signature.name", func(m *Model) { m.Signatures[0].Inputs = append(m.Signatures[0].Inputs, m.Signatures[0].Inputs[0]) }},
		{"signature.key", func(m *Model) { m.Signatures = append(m.Signatures, m.Signatures[0]) }},
		{"model.tensors", func(m *Model) {
			m.Subgraphs[0].Tensors = append(m.Subgraphs[0].Tensors, make([]Tensor, 5)...)
		}},
	} {
		m := rich()
		// The second operator is custom and known, the first is judged.
		m.Subgraphs[0].Operators[1].OpCode = 2
		c.spoil(m)
		got, err := Parse(tflitetest.Marshal(m))
		if err != nil {
			t.Errorf("%s: %v", c.code, err)
			continue
		}
		problems := Check(got, Policy{MaxTensors: 8})
		if len(problems) == 0 || problems[0].Code != c.code {
			t.Errorf("%s: found %v", c.code, problems)
		}
	}
}

// call makes the first operator call a subgraph.
func call(m *Model, n int32) {
	m.Subgraphs[0].Operators[0].Options, m.Subgraphs[0].Operators[0].Calls = "IfOptions", []int32{n, n}
}

// An operator of the runtime that is not on the list of allowed ones is refused, and
// so is one that calls itself by way of another.
func TestPolicy(t *testing.T) {
	m := rich()
	if p := Check(m, Policy{Custom: []string{"Mfcc"}, Allow: []string{"CONV_3D"}}); len(p) != 1 || p[0].Code != "operator.allowed" {
		t.Errorf("found %v", p)
	}
	m.Subgraphs = append(m.Subgraphs, m.Subgraphs[0])
	m.Subgraphs[1].Operators = slices.Clone(m.Subgraphs[1].Operators)
	call(m, 1)
	if p := Check(m, Policy{}); p != nil {
		t.Errorf("one call: %v", p)
	}
	m.Subgraphs[1].Operators[0].Calls = []int32{1, 0}
	if p := Check(m, Policy{}); len(p) != 1 || p[0].Code != "subgraph.circle" {
		t.Errorf("two that call each other: %v", p)
	}
}

// The data of constant strings is a table of offsets that the runtime follows.
func TestStrings(t *testing.T) {
	for text, want := range map[string]bool{
		"\x02\x00\x00\x00\x10\x00\x00\x00\x11\x00\x00\x00\x12\x00\x00\x00ab": true,
		"\x02\x00\x00\x00\x10\x00\x00\x00\x13\x00\x00\x00\x12\x00\x00\x00ab": false, // falls
		"\x02\x00\x00\x00\x10\x00\x00\x00\x11\x00\x00\x00\x13\x00\x00\x00ab": false, // beyond the end
		"\x02\x00\x00\x00\x0f\x00\x00\x00\x11\x00\x00\x00\x12\x00\x00\x00ab": false, // within the table
		"\x03\x00\x00\x00\x10\x00\x00\x00\x11\x00\x00\x00\x12\x00\x00\x00ab": false, // one too many
		"\xff\xff\xff\x7f\x10\x00\x00\x00\x11\x00\x00\x00\x12\x00\x00\x00ab": false,
		"\x02\x00": false,
	} {
		m := rich()
		m.Subgraphs[0].Tensors = append(m.Subgraphs[0].Tensors, Tensor{Name: "s", Type: String, Shape: []int32{2}, Buffer: 1})
		m.Subgraphs[0].Tensors[2].Buffer = 0
		m.Subgraphs[0].Tensors[2].Variable = true
		got, err := Parse(tflitetest.MarshalData(m, map[int][]byte{1: []byte(text)}))
		if err != nil {
			t.Fatal(err)
		}
		if ok := len(got.Faults) == 0; ok != want {
			t.Errorf("%q: %v", text, got.Faults)
		}
	}
}

// models are files to be damaged: ours, and the trained ones of the test bed.
func models(t testing.TB) map[string][]byte {
	list := map[string][]byte{"rich": tflitetest.Marshal(rich())}
	paths, err := filepath.Glob("../../testbed/models/digits/*/model.tflite")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		list[filepath.Base(filepath.Dir(p))] = b
	}
	return list
}

// A file cut anywhere is refused or, if only data behind the FlatBuffer was lost,
// read; it never makes the reader panic or a model out of nothing.
func TestCut(t *testing.T) {
	for name, b := range models(t) {
		whole, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		refused := 0
		for i := range 100 {
			m, err := Parse(b[:i*len(b)/100])
			if err != nil {
				refused++
				continue
			}
			if len(m.Subgraphs) != len(whole.Subgraphs) {
				t.Errorf("%s cut at %d %%: %d subgraphs of %d", name, i, len(m.Subgraphs), len(whole.Subgraphs))
			}
		}
		if refused < 95 {
			t.Errorf("%s: %d of 100 cuts were refused", name, refused)
		}
	}
}

func TestFlips(t *testing.T) {
	flips, refused, found := 0, 0, 0
	for name, b := range models(t) {
		r := rand.New(rand.NewPCG(1, uint64(len(b))))
		for range 2000 {
			c := slices.Clone(b)
			for range 1 + r.IntN(4) {
				c[r.IntN(min(len(c), 4096))] ^= 1 << r.IntN(8)
			}
			flips++
			m, err := Parse(c)
			if err != nil {
				refused++
				continue
			}
			if len(Check(m, Policy{})) > 0 {
				found++
			}
			if _, ok := m.Signature(""); !ok {
				t.Errorf("%s: a model without a first signature", name)
			}
		}
	}
	t.Logf("%d files with flipped bits: %d refused, %d with problems, none panicked", flips, refused, found)
}

// A vector whose entries all point to one large table must not unfold.
func TestUnfolding(t *testing.T) {
	m := tflitetest.Classifier(1)
	m.Subgraphs[0].Tensors[0].Name = strings.Repeat("n", 1<<16)
	b := tflitetest.Marshal(m)
	// Append a vector of 40,000 references to the tensor and make the subgraph use it.
	evil := shareTensor(t, b, 40_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse(evil)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "unfolds") {
		t.Errorf("got %v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 16*uint64(len(evil)) {
		t.Errorf("%d bytes allocated for a file of %d", used, len(evil))
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range models(f) {
		if len(b) < 1<<16 {
			f.Add(b)
		}
	}
	f.Add(withCard(f, tflitetest.MarshalCard(card), map[string]string{"labels.txt": "one\ntwo"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, p := range Check(m, Policy{}) {
			_ = p.String()
		}
		if m.Card != nil {
			m.Card.Notes(m)
			m.Card.LabelFiles(0)
		}
		for _, name := range m.Appended {
			ReadAppended(b, name)
		}
		s, _ := m.Signature("")
		for _, n := range slices.Concat(s.Inputs, s.Outputs) {
			if x := m.Tensor(s, n); x != nil {
				_ = fmt.Sprint(x.Type, x.Type.OIP(), x.Dims())
			}
		}
	})
}
