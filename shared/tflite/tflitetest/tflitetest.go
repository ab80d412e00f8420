// Package tflitetest writes small .tflite files for tests: whole ones, and ones
// that are wrong in a chosen place.
package tflitetest

import (
	"encoding/binary"
	"math"

	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// softmax is the number of the operator that Classifier uses.
const softmax = 25

// Classifier is a model of one operator that turns n numbers, the input "image"
// of [1, n], into the softmax "scores" of [1, n].
func Classifier(n int32) *tflite.Model {
	return &tflite.Model{
		Version: tflite.Version,
		OpCodes: []tflite.OpCode{{Builtin: softmax, Version: 1}},
		Buffers: make([]tflite.Buffer, 1),
		Subgraphs: []tflite.Subgraph{{
			Name: "main",
			Tensors: []tflite.Tensor{
				{Name: "in:0", Type: tflite.Float32, Shape: []int32{1, n}},
				{Name: "out:0", Type: tflite.Float32, Shape: []int32{1, n}},
			},
			Inputs: []int32{0}, Outputs: []int32{1},
			Operators: []tflite.Operator{{Inputs: []int32{0}, Outputs: []int32{1}}},
		}},
		Signatures: []tflite.Signature{{
			Key:     "serving_default",
			Inputs:  []tflite.Named{{Name: "image", Tensor: 0}},
			Outputs: []tflite.Named{{Name: "scores", Tensor: 1}},
		}},
	}
}

// Marshal writes a model as it stands, right or wrong. Buffers are written by
// their size, filled with zeros; one that is Outside is written as a reference to data
// that is not there.
func Marshal(m *tflite.Model) []byte { return MarshalData(m, nil) }

// MarshalData writes a model whose buffers of those indexes hold the data.
func MarshalData(m *tflite.Model, data map[int][]byte) []byte {
	var codes, graphs, buffers, metadata, signatures []ref
	for _, c := range m.OpCodes {
		codes = append(codes, opCode(c))
	}
	for i := range m.Subgraphs {
		graphs = append(graphs, subgraph(&m.Subgraphs[i]))
	}
	for i, x := range m.Buffers {
		if b := data[i]; b != nil {
			buffers = append(buffers, table(bytes(0, 16, b)))
			continue
		}
		buffers = append(buffers, buffer(x))
	}
	for _, x := range m.Metadata {
		metadata = append(metadata, table(text(0, x.Name), scalar(1, 4, uint64(x.Buffer))))
	}
	for _, s := range m.Signatures {
		signatures = append(signatures, table(names(0, s.Inputs), names(1, s.Outputs), text(2, s.Key), scalar(4, 4, uint64(s.Subgraph))))
	}
	return finish("TFL3", table(scalar(0, 4, uint64(m.Version)), refs(1, codes), refs(2, graphs), text(3, m.Description),
		refs(4, buffers), refs(6, metadata), refs(7, signatures)))
}

// finish writes a whole FlatBuffer.
func finish(id string, root ref) []byte {
	w := &writer{b: make([]byte, 8, 4096)}
	copy(w.b[4:], id)
	at := root(w)
	binary.LittleEndian.PutUint32(w.b, uint32(at))
	return w.b
}

func bytes(n, align int, b []byte) field {
	return field{n, 4, 0, func(w *writer) int { return w.vector(align, len(b), b) }}
}

func opCode(c tflite.OpCode) ref {
	return table(scalar(0, 1, uint64(min(c.Builtin, 127))), text(1, c.Custom), scalar(2, 4, uint64(c.Version)), scalar(3, 4, uint64(uint32(c.Builtin))))
}

func buffer(x tflite.Buffer) ref {
	if x.Outside {
		return table(scalar(1, 8, uint64(x.Offset)), scalar(2, 8, uint64(x.Size)))
	}
	if x.Size == 0 {
		return table()
	}
	return table(bytes(0, 16, make([]byte, x.Size)))
}

func subgraph(g *tflite.Subgraph) ref {
	var tensors, operators []ref
	for i := range g.Tensors {
		tensors = append(tensors, tensor(&g.Tensors[i]))
	}
	for _, o := range g.Operators {
		fields := []field{scalar(0, 4, uint64(o.OpCode)), ints(1, o.Inputs), ints(2, o.Outputs), ints(8, o.Intermediates),
			scalar(9, 8, o.OptionsOffset), scalar(10, 8, o.OptionsSize)}
		if kind := calling[o.Options]; kind != 0 {
			var numbers []field
			for i, c := range o.Calls {
				numbers = append(numbers, scalar(i, 4, uint64(uint32(c))))
			}
			fields = append(fields, scalar(3, 1, kind), field{4, 4, 0, table(numbers...)})
		}
		operators = append(operators, table(fields...))
	}
	return table(refs(0, tensors), ints(1, g.Inputs), ints(2, g.Outputs), refs(3, operators), text(4, g.Name))
}

// calling are the options that name subgraphs, with their number in the schema's union.
var calling = map[string]uint64{"IfOptions": 92, "WhileOptions": 93, "CallOnceOptions": 103}

func tensor(t *tflite.Tensor) ref {
	fields := []field{ints(0, t.Shape), scalar(1, 1, uint64(uint8(t.Type))), scalar(2, 4, uint64(t.Buffer)), text(3, t.Name),
		ints(7, t.ShapeSignature), scalar(10, 4, uint64(t.External)), scalar(5, 1, flag(t.Variable))}
	if q := t.Quant; q != nil {
		var scales, zeros []byte
		for _, s := range q.Scale {
			scales = binary.LittleEndian.AppendUint32(scales, math.Float32bits(s))
		}
		for _, z := range q.Zero {
			zeros = binary.LittleEndian.AppendUint64(zeros, uint64(z))
		}
		fields = append(fields, field{4, 4, 0, table(
			field{2, 4, 0, func(w *writer) int { return w.vector(4, len(q.Scale), scales) }},
			field{3, 4, 0, func(w *writer) int { return w.vector(8, len(q.Zero), zeros) }},
			scalar(6, 4, uint64(uint32(q.Axis))))})
	}
	return table(fields...)
}

func names(n int, list []tflite.Named) field {
	var r []ref
	for _, x := range list {
		r = append(r, table(text(0, x.Name), scalar(1, 4, uint64(x.Tensor))))
	}
	return refs(n, r)
}

// ref writes something behind what is there and returns its position.
type ref func(*writer) int

// field is a field of a table: inline bytes, or a reference.
type field struct {
	n, size int
	value   uint64
	ref     ref
}

func scalar(n, size int, v uint64) field { return field{n: n, size: size, value: v} }

func text(n int, s string) field {
	if s == "" {
		return field{n: -1}
	}
	return field{n, 4, 0, func(w *writer) int {
		at := w.vector(1, len(s), []byte(s))
		w.b = append(w.b, 0)
		return at
	}}
}

func ints(n int, list []int32) field {
	if list == nil {
		return field{n: -1}
	}
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return field{n, 4, 0, func(w *writer) int { return w.vector(4, len(list), b) }}
}

func refs(n int, list []ref) field {
	if list == nil {
		return field{n: -1}
	}
	return field{n, 4, 0, func(w *writer) int {
		at := w.vector(4, len(list), make([]byte, 4*len(list)))
		for i, r := range list {
			w.point(at+4+4*i, r(w))
		}
		return at
	}}
}

func table(fields ...field) ref {
	return func(w *writer) int { return w.table(fields) }
}

type writer struct{ b []byte }

// pad aligns the next byte but extra to a multiple of n.
func (w *writer) pad(n, extra int) {
	for (len(w.b)+extra)%n != 0 {
		w.b = append(w.b, 0)
	}
}

// point stores at a position the distance to another.
func (w *writer) point(at, to int) { binary.LittleEndian.PutUint32(w.b[at:], uint32(to-at)) }

// vector writes a count and elements that are aligned to align.
func (w *writer) vector(align, n int, b []byte) int {
	w.pad(max(align, 4), 4)
	at := len(w.b)
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(n))
	w.b = append(w.b, b...)
	return at
}

// table writes a vtable, its table and then what that refers to.
func (w *writer) table(fields []field) int {
	count := 0
	for _, f := range fields {
		count = max(count, f.n+1)
	}
	offsets, size := make([]int, count), 4
	for _, f := range fields {
		if f.n >= 0 {
			size = (size + f.size - 1) / f.size * f.size
			offsets[f.n] = size
			size += f.size
		}
	}
	w.pad(8, 4+2*count)
	vtable := len(w.b)
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+2*count))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(size))
	for _, o := range offsets {
		w.b = binary.LittleEndian.AppendUint16(w.b, uint16(o))
	}
	at := len(w.b)
	w.b = append(w.b, make([]byte, size)...)
	binary.LittleEndian.PutUint32(w.b[at:], uint32(at-vtable))
	for _, f := range fields {
		if f.n < 0 {
			continue
		}
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], f.value)
		copy(w.b[at+offsets[f.n]:at+offsets[f.n]+f.size], v[:])
		if f.ref != nil {
			w.point(at+offsets[f.n], f.ref(w))
		}
	}
	return at
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
