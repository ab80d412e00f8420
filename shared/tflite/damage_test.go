package tflite_test

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"testing"

	. "github.com/dunlin-edge/dunlin/shared/tflite"
)

// damaged yields variants of a file by position: every number of its structure
// (offsets, lengths, vtables, scalars; not the weights) replaced by values that point
// to itself, nowhere, a little before or behind, or far away. The name says which.
func damaged(b []byte) iter.Seq2[int, variant] {
	return func(yield func(int, variant) bool) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		weights := make([]bool, len(b))
		for _, x := range m.Buffers {
			for i := x.Offset; x.Size >= 64 && i < x.Offset+x.Size; i++ {
				weights[i] = true
			}
		}
		for at := 0; at+4 <= int(m.Flat); at += 2 {
			if weights[at] || weights[at+3] {
				continue
			}
			for _, v := range replaced(b, at) {
				if !yield(at, v) {
					return
				}
			}
		}
	}
}

// replaced returns the variants of one position.
func replaced(b []byte, at int) []variant {
	var list []variant
	half, word := binary.LittleEndian.Uint16(b[at:]), binary.LittleEndian.Uint32(b[at:])
	for _, v := range []uint16{0, half + 2, half - 2, 0xffff, 0x8000, half ^ 1} {
		if v != half {
			c := slices.Clone(b)
			binary.LittleEndian.PutUint16(c[at:], v)
			list = append(list, variant{"half", c})
		}
	}
	if at%4 != 0 {
		return list
	}
	for _, v := range []uint32{0, word + 4, word - 4, word + 1, word - 1, 1<<31 - 1, 1<<32 - 1, -word, uint32(len(b) - at)} {
		if v != word {
			c := slices.Clone(b)
			binary.LittleEndian.PutUint32(c[at:], v)
			list = append(list, variant{"word", c})
		}
	}
	return list
}

// TestDamaged: every variant gets a verdict, and each kind of problem is found by some.
func TestDamaged(t *testing.T) {
	found := map[string]int{}
	for _, name := range []string{"rich", "1.0.0"} {
		for _, v := range damaged(models(t)[name]) {
			m, err := Parse(v.file)
			if err != nil {
				found["refused"]++
				continue
			}
			problems := Check(m, Policy{})
			if problems == nil {
				found["passes"]++
				continue
			}
			found[problems[0].Code]++
		}
	}
	t.Log(found)
	for _, code := range strings.Fields(`refused passes operator.code operator.custom operator.order operator.output operator.tensor operator.unknown
		operator.version signature.name signature.tensor subgraph.input subgraph.output tensor.buffer tensor.data tensor.shape tensor.type`) {
		if found[code] == 0 {
			t.Errorf("no variant was found by %s", code)
		}
	}
}
