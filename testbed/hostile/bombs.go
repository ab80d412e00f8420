package hostile

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

// Numbers of operators in the schema.
const (
	opCustom    = 32
	opTile      = 69
	opSum       = 74
	opFill      = 94
	opLessEqual = 63
	opAbs       = 101
	opWhile     = 119
	opBroadcast = 130
)

// File is a model that was made to harm who loads it.
type File struct {
	Family, Name string
	Bytes        []byte
}

// Files makes at least 500 of them from whole models. The same seed gives the same
// files.
func Files(whole [][]byte, seed uint64) []File {
	r := rand.New(rand.NewPCG(seed, 1))
	var out []File
	for i, b := range whole {
		out = append(out, cuts(b, 40, i)...)
		out = append(out, flips(b, 40, i, r)...)
		out = append(out, aimed(b, 70, i, r)...)
		out = append(out, overlaps(b, 20, i, r)...)
	}
	out = append(out, dimensions()...)
	out = append(out, customs()...)
	out = append(out, bombs()...)
	return append(out, loops()...)
}

func cuts(b []byte, n, model int) []File {
	var out []File
	for i := range n {
		at := len(b) * i / n
		out = append(out, File{"cut", fmt.Sprintf("model %d to %d of %d bytes", model, at, len(b)), b[:at]})
	}
	return out
}

func flips(b []byte, n, model int, r *rand.Rand) []File {
	var out []File
	for i := range n {
		bad := append([]byte{}, b...)
		for range 1 << (i % 8) {
			bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
		}
		out = append(out, File{"flipped", fmt.Sprintf("model %d, %d bytes, variant %d", model, 1<<(i%8), i), bad})
	}
	return out
}

// aimed replaces numbers of the structure, see tflitetest.Damaged.
func aimed(b []byte, n, model int, r *rand.Rand) []File {
	var all []File
	for name, bad := range tflitetest.Damaged(b) {
		// Reservoir: each variant has the same chance, and few are kept.
		f := File{"aimed at the structure", fmt.Sprintf("model %d, %s", model, name), bad}
		if len(all) < n {
			all = append(all, f)
		} else if k := r.IntN(50 * n); k < n {
			all[k] = f
		}
	}
	return all
}

// overlaps makes an offset of the structure point to where another one points.
func overlaps(b []byte, n, model int, r *rand.Rand) []File {
	m, err := tflite.Parse(b)
	if err != nil {
		return nil
	}
	var at []int // of what may be an offset: it points forward, into the structure
	for i := 4; i+4 <= int(m.Flat); i += 4 {
		if to := i + int(binary.LittleEndian.Uint32(b[i:])); to > i+4 && to < int(m.Flat) {
			at = append(at, i)
		}
	}
	var out []File
	for len(out) < n && len(at) > 1 {
		x, y := at[r.IntN(len(at))], at[r.IntN(len(at))]
		to := y + int(binary.LittleEndian.Uint32(b[y:]))
		if to <= x {
			continue
		}
		bad := append([]byte{}, b...)
		binary.LittleEndian.PutUint32(bad[x:], uint32(to-x))
		out = append(out, File{"overlapping offsets", fmt.Sprintf("model %d, %d points to %d as %d does", model, x, to, y), bad})
	}
	return out
}

func dimensions() []File {
	var out []File
	for _, shape := range [][]int32{
		{1, 1<<31 - 1}, {1 << 16, 1 << 16}, {1 << 30, 4}, {1<<31 - 1, 1<<31 - 1}, {1, 1 << 28}, {1, 1 << 22}, {1 << 20, 1 << 11, 1 << 1},
		{1 << 15, 1 << 15, 1 << 15, 1 << 15}, {0, 4}, {1, 0}, {-1, 4}, {1, -4}, {1, -1 << 31}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 1, 1, 1, 1, 1, 1 << 30},
	} {
		for _, both := range []bool{false, true} {
			m := tflitetest.Classifier(4)
			m.Subgraphs[0].Tensors[0].Shape = shape
			if both {
				m.Subgraphs[0].Tensors[1].Shape = shape
			}
			out = append(out, File{"huge dimensions", fmt.Sprintf("%v, output too: %v", shape, both), tflitetest.Marshal(m)})
		}
	}
	return out
}

func customs() []File {
	var out []File
	for _, name := range []string{"Evil", "FlexExit", "FlexReadFile", "", "TFLite_Detection_PostProcess", "../../etc/passwd", "%s%s%s%n"} {
		m := tflitetest.Classifier(4)
		m.OpCodes[0] = tflite.OpCode{Builtin: opCustom, Custom: name, Version: 1}
		out = append(out, File{"custom operator", fmt.Sprintf("%q", name), tflitetest.Marshal(m)})
	}
	return out
}

// bombs ask for much memory with few bytes: the shape of what an operator writes is
// in the file.
func bombs() []File {
	var out []File
	for _, op := range []struct {
		name          string
		code, version int32
	}{{"TILE", opTile, 1}, {"BROADCAST_TO", opBroadcast, 2}, {"FILL", opFill, 1}} {
		for _, dims := range [][2]int32{{1 << 20, 1}, {1 << 26, 1}, {1 << 28, 1}, {1 << 30, 1}, {1<<31 - 1, 1}, {1 << 20, 1 << 20}, {-1, -1}} {
			b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(dims[0])), uint32(dims[1]))
			m := tflitetest.Classifier(1)
			g := &m.Subgraphs[0]
			m.OpCodes = []tflite.OpCode{{Builtin: op.code, Version: op.version}, {Builtin: opSum, Version: 1}}
			m.Buffers = make([]tflite.Buffer, 3)
			g.Tensors = []tflite.Tensor{
				{Name: "in:0", Type: tflite.Float32, Shape: []int32{1, 1}},
				{Name: "out:0", Type: tflite.Float32, Shape: []int32{1}},
				{Name: "dims", Type: tflite.Int32, Shape: []int32{2}, Buffer: 1},
				{Name: "large", Type: tflite.Float32, Shape: []int32{1, 1}},
				{Name: "axis", Type: tflite.Int32, Shape: []int32{1}, Buffer: 2},
			}
			g.Operators = []tflite.Operator{{Inputs: []int32{0, 2}, Outputs: []int32{3}}, {OpCode: 1, Inputs: []int32{3, 4}, Outputs: []int32{1}}}
			if op.code == opFill {
				g.Operators[0].Inputs, g.Tensors[0].Shape = []int32{2, 0}, nil
			}
			data := map[int][]byte{1: b, 2: {0, 0, 0, 0}}
			out = append(out, File{"allocation bomb", fmt.Sprintf("%s to %v", op.name, dims), tflitetest.MarshalData(m, data)})
		}
	}
	return out
}

// loops never end: a condition that is always true, and a subgraph that calls itself.
func loops() []File {
	scalar := func(name string, t tflite.Type) tflite.Tensor {
		return tflite.Tensor{Name: name, Type: t, Shape: []int32{1}}
	}
	m := &tflite.Model{
		Version: tflite.Version, Buffers: make([]tflite.Buffer, 1),
		OpCodes: []tflite.OpCode{{Builtin: opWhile, Version: 1}, {Builtin: opLessEqual, Version: 1}, {Builtin: opAbs, Version: 1}},
		Subgraphs: []tflite.Subgraph{
			{
				Name: "main", Tensors: []tflite.Tensor{scalar("in:0", tflite.Float32), scalar("out:0", tflite.Float32)}, Inputs: []int32{0}, Outputs: []int32{1},
				Operators: []tflite.Operator{{OpCode: 0, Inputs: []int32{0}, Outputs: []int32{1}, Options: "WhileOptions", Calls: []int32{1, 2}}},
			},
			{
				Name: "condition", Tensors: []tflite.Tensor{scalar("x", tflite.Float32), scalar("true", tflite.Bool)}, Inputs: []int32{0}, Outputs: []int32{1},
				Operators: []tflite.Operator{{OpCode: 1, Inputs: []int32{0, 0}, Outputs: []int32{1}}},
			},
			{
				Name: "body", Tensors: []tflite.Tensor{scalar("x", tflite.Float32), scalar("y", tflite.Float32)}, Inputs: []int32{0}, Outputs: []int32{1},
				Operators: []tflite.Operator{{OpCode: 2, Inputs: []int32{0}, Outputs: []int32{1}}},
			},
		},
		Signatures: []tflite.Signature{{Key: "serving_default", Inputs: []tflite.Named{{Name: "image"}}, Outputs: []tflite.Named{{Name: "scores", Tensor: 1}}}},
	}
	endless := tflitetest.Marshal(m)
	m.Subgraphs[2].Operators[0] = tflite.Operator{OpCode: 0, Inputs: []int32{0}, Outputs: []int32{1}, Options: "WhileOptions", Calls: []int32{1, 2}}
	return []File{{"endless loop", "WHILE true", endless}, {"endless loop", "a body that is its own loop", tflitetest.Marshal(m)}}
}
