package tflitetest

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// Damaged yields variants of a file: every number of its structure
// (offsets, lengths, vtables, scalars; not the weights) replaced by values that point
// to itself, nowhere, a little before or behind, or far away. The name says where and which.
func Damaged(b []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		m, err := tflite.Parse(b)
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
			if !replace16(b, at, yield) || at%4 == 0 && !replace32(b, at, yield) {
				return
			}
		}
	}
}

func replace16(b []byte, at int, yield func(string, []byte) bool) bool {
	was := binary.LittleEndian.Uint16(b[at:])
	for _, v := range []uint16{0, was + 2, was - 2, 0xffff, 0x8000, was ^ 1} {
		if v == was {
			continue
		}
		c := slices.Clone(b)
		binary.LittleEndian.PutUint16(c[at:], v)
		if !yield(fmt.Sprintf("two bytes at %d are %#x", at, v), c) {
			return false
		}
	}
	return true
}

func replace32(b []byte, at int, yield func(string, []byte) bool) bool {
	was := binary.LittleEndian.Uint32(b[at:])
	for _, v := range []uint32{0, was + 4, was - 4, was + 1, was - 1, 1<<31 - 1, 1<<32 - 1, -was, uint32(len(b) - at)} {
		if v == was {
			continue
		}
		c := slices.Clone(b)
		binary.LittleEndian.PutUint32(c[at:], v)
		if !yield(fmt.Sprintf("four bytes at %d are %#x", at, v), c) {
			return false
		}
	}
	return true
}
