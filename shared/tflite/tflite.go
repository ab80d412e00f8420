// Package tflite reads .tflite files (FlatBuffer schema version 3) without
// trusting them: Parse checks every offset, vector, string, union and buffer range
// of the whole schema against the file, no input makes it panic, and it allocates at
// most a fixed multiple of the file's size. Check then judges what was read: indexes,
// data, the flow through the graph, and the operators against those of the runtime.
// What the options of single operators say is left to the runtime, in the sandbox.
package tflite

import (
	"errors"
	"fmt"
)

// Limits on counts, far above real models.
const (
	MaxSubgraphs  = 1 << 10
	MaxTensors    = 1 << 20 // of one subgraph
	MaxOperators  = 1 << 20 // of one subgraph
	MaxBuffers    = 1 << 20
	MaxSignatures = 1 << 10
	maxOpCodes    = 1 << 16
	maxMetadata   = 1 << 12
	maxNames      = 1 << 16 // tensors named by one signature
)

// Version is the schema version that this package reads.
const Version = 3

// ErrFormat is wrapped by every error of Parse.
var ErrFormat = errors.New("not a valid .tflite file")

// Model is a parsed file. It keeps no reference to the bytes.
type Model struct {
	Version     uint32
	Description string
	OpCodes     []OpCode
	Subgraphs   []Subgraph // the first is the main one
	Buffers     []Buffer
	Metadata    []Metadata
	Signatures  []Signature
	Card        *Card     // the embedded metadata; nil: none
	Runtime     string    // oldest TensorFlow Lite that its converter thinks will do, "2.11.0"; empty: not said
	External    bool      // it names buffers in other files
	Appended    []string  // names of the files in a ZIP behind the model, where label files usually are
	Flat        int64     // bytes of the FlatBuffer; data of large models lies behind it
	Size        int64     // bytes of the file
	Faults      []Problem // of data that only Parse sees; Check returns them too
}

// OpCode is a kind of operator that the model uses.
type OpCode struct {
	Builtin int32  // number in the schema's BuiltinOperator
	Custom  string // name, if Builtin is CUSTOM
	Version int32
}

// Subgraph holds tensors and operators in order of execution.
type Subgraph struct {
	Name      string
	Tensors   []Tensor
	Inputs    []int32 // indexes of Tensors
	Outputs   []int32
	Operators []Operator
}

// Tensor describes one tensor; its constant data, if any, is in Buffer.
type Tensor struct {
	Name           string
	Type           Type
	Shape          []int32
	ShapeSignature []int32 // Shape with -1 for what may change; empty if nothing may
	Buffer         uint32  // index of Model.Buffers; 0: no constant data
	External       uint32  // id of a buffer in another file; 0: none
	Variable       bool
	Sparsity       *Sparsity // nil: its data is dense
	Quant          *Quant    // nil: not quantized
}

// Quant maps stored to real values: real = scale * (stored - zero).
type Quant struct {
	Scale   []float32
	Zero    []int64
	Axis    int32
	Details bool    // described by a table of its own (block-wise, custom), not by the fields above
	Tensors []int32 // block-wise: those that hold the scales and, unless -1, the zero points
}

// Operator is one step of a subgraph. An input of -1 is an optional one that
// is left out.
type Operator struct {
	OpCode        uint32 // index of Model.OpCodes
	Inputs        []int32
	Outputs       []int32
	Intermediates []int32
	Options       string  // name of the table of its options, "Conv2DOptions"; empty: none
	Calls         []int32 // indexes of the subgraphs that its options name
	OptionsOffset uint64  // custom options outside of the FlatBuffer, from the file's start; 0: none
	OptionsSize   uint64
}

// Buffer is a range of the file.
type Buffer struct {
	Offset  int64 // from the file's start
	Size    int64
	Outside bool // behind the FlatBuffer, which large models need
}

// Metadata names a buffer.
type Metadata struct {
	Name   string
	Buffer uint32
}

// Parse reads a file. The error says what is wrong and where; it wraps ErrFormat.
func Parse(b []byte) (*Model, error) {
	if len(b) < 8 || string(b[4:8]) != "TFL3" {
		return nil, fmt.Errorf("%w: no identifier TFL3", ErrFormat)
	}
	flat, err := verify(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	r := newReader(b)
	root := r.table(r.follow(0))
	m := &Model{Version: root.uint32(0), Description: root.string(3), Size: int64(len(b)), Flat: flat}
	for _, t := range root.tables(1, maxOpCodes) {
		m.OpCodes = append(m.OpCodes, readOpCode(t))
	}
	for _, t := range root.tables(4, MaxBuffers) {
		m.Buffers = append(m.Buffers, readBuffer(t))
	}
	for _, t := range root.tables(2, MaxSubgraphs) {
		m.Subgraphs = append(m.Subgraphs, readSubgraph(t))
	}
	for _, t := range root.tables(6, maxMetadata) {
		m.Metadata = append(m.Metadata, Metadata{Name: t.string(0), Buffer: t.uint32(1)})
	}
	for _, t := range root.tables(7, MaxSignatures) {
		m.Signatures = append(m.Signatures, readSignature(t))
	}
	_, external := root.vector(9, 4)
	m.External = external > 0
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, r.err)
	}
	if m.Version != Version {
		return nil, fmt.Errorf("%w: schema version %d, this reads %d", ErrFormat, m.Version, Version)
	}
	if len(m.Subgraphs) == 0 {
		return nil, fmt.Errorf("%w: no subgraph", ErrFormat)
	}
	m.Appended = appended(b)
	m.readMetadata(b)
	m.checkStrings(b)
	return m, nil
}

// verify checks the whole FlatBuffer by the schema and returns where it ends.
func verify(b []byte) (flat int64, err error) {
	r := newReader(b)
	schema().verify(r.table(r.follow(0)), "Model")
	return int64(r.end), r.err
}

func readOpCode(t table) OpCode {
	// Files of before the field builtin_code hold the number in a byte; newer
	// ones hold both, with the byte at 127 for greater numbers.
	c := OpCode{Builtin: max(int32(int8(t.uint8(0))), t.int32(3)), Custom: t.string(1), Version: 1}
	if t.at(2, 4) != 0 {
		c.Version = t.int32(2)
	}
	return c
}

func readBuffer(t table) Buffer {
	if pos, n := t.vector(0, 1); n > 0 {
		return Buffer{Offset: int64(pos), Size: int64(n)}
	}
	offset, size := t.uint64(1), t.uint64(2)
	if offset <= 1 { // by the schema: data is inside, and here is none
		return Buffer{}
	}
	if end := uint64(len(t.r.b)); size > end || offset > end-size {
		t.r.fail("buffer of %d bytes at %d lies outside of the file", size, offset)
		return Buffer{}
	}
	return Buffer{Offset: int64(offset), Size: int64(size), Outside: true}
}

func readSubgraph(t table) Subgraph {
	g := Subgraph{Name: t.string(4), Inputs: t.int32s(1), Outputs: t.int32s(2)}
	for _, c := range t.tables(0, MaxTensors) {
		if !t.r.spend(128) {
			break
		}
		g.Tensors = append(g.Tensors, readTensor(c))
	}
	for _, c := range t.tables(3, MaxOperators) {
		if !t.r.spend(96) {
			break
		}
		g.Operators = append(g.Operators, readOperator(c))
	}
	return g
}

func readTensor(t table) Tensor {
	x := Tensor{
		Name: t.string(3), Type: Type(int8(t.uint8(1))),
		Shape: t.int32s(0), ShapeSignature: t.int32s(7),
		Buffer: t.uint32(2), External: t.uint32(10), Variable: t.bool(5),
	}
	if c, ok := t.child(6); ok {
		x.Sparsity = readSparsity(c)
	}
	if q, ok := t.child(4); ok {
		x.Quant = readQuant(q)
	}
	return x
}

// readQuant returns nil for a table that holds only the ranges seen in training.
func readQuant(t table) *Quant {
	q := &Quant{Scale: t.floats(2), Zero: t.int64s(3), Axis: t.int32(6)}
	if details, ok := t.child(5); ok {
		q.Details = true
		switch schema().member(t, 5, "QuantizationDetails") {
		case "BlockwiseQuantization", "MultiAxisQuantization":
			q.Tensors = []int32{details.int32(0), details.int32(1)}
		}
	}
	if len(q.Scale) == 0 && !q.Details {
		return nil
	}
	return q
}

func readOperator(t table) Operator {
	o := Operator{
		OpCode: t.uint32(0), Inputs: t.int32s(1), Outputs: t.int32s(2), Intermediates: t.int32s(8),
		OptionsOffset: t.uint64(9), OptionsSize: t.uint64(10),
	}
	for _, u := range []struct {
		field int
		union string
	}{{4, "BuiltinOptions"}, {12, "BuiltinOptions2"}} {
		c, ok := t.child(u.field)
		if name := schema().member(t, u.field, u.union); ok && name != "" {
			o.Options, o.Calls = name, readCalls(c, name)
		}
	}
	return o
}

// calls says which fields of an operator's options name subgraphs.
var calls = map[string][]int{
	"CallOptions": {0}, "CallOnceOptions": {0}, "IfOptions": {0, 1}, "WhileOptions": {0, 1}, "StableHLOCompositeOptions": {1},
	"StablehloWhileOptions": {0, 1}, "StablehloReduceOptions": {1}, "StablehloReduceWindowOptions": {5}, "StablehloSortOptions": {2},
	"StablehloScatterOptions": {6}, "StablehloCaseOptions": {0}, "StablehloCustomCallOptions": {4},
}

func readCalls(t table, name string) []int32 {
	var list []int32
	for _, i := range calls[name] {
		if schema().tables[name][i].vector {
			list = append(list, t.int32s(i)...)
		} else {
			list = append(list, t.int32(i))
		}
	}
	return list
}

func readSignature(t table) Signature {
	return Signature{Key: t.string(2), Subgraph: t.uint32(4), Inputs: readNames(t, 0), Outputs: readNames(t, 1)}
}

func readNames(t table, field int) []Named {
	var list []Named
	for _, c := range t.tables(field, maxNames) {
		list = append(list, Named{Name: c.string(0), Tensor: c.uint32(1)})
	}
	return list
}
