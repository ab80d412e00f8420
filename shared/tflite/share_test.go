package tflite_test

import (
	"encoding/binary"
	"testing"
)

// shareTensor rewrites the first subgraph of a file that tflitetest wrote: its
// vector of tensors becomes one of n references, all to the first tensor.
func shareTensor(t *testing.T, b []byte, n int) []byte {
	t.Helper()
	le := binary.LittleEndian
	// Forward references are measured from where they stand, so the file is moved
	// up by room for the new vector in front of the tensors it points to.
	follow := func(at int) int { return at + int(le.Uint32(b[at:])) }
	field := func(table, i int) int {
		vtable := table - int(int32(le.Uint32(b[table:])))
		return table + int(le.Uint16(b[vtable+4+2*i:]))
	}
	subgraphs := follow(field(follow(0), 2))
	subgraph := follow(subgraphs + 4)
	tensors := follow(field(subgraph, 0))
	first := follow(tensors + 4)
	// The tensor is copied behind the vector, its vtable with it.
	vtable := first - int(int32(le.Uint32(b[first:])))
	at := (len(b) + 7) / 8 * 8
	out := append(append([]byte{}, b...), make([]byte, at-len(b)+4+4*n)...)
	le.PutUint32(out[field(subgraph, 0):], uint32(at-field(subgraph, 0)))
	le.PutUint32(out[at:], uint32(n))
	for len(out)%8 != vtable%8 {
		out = append(out, 0)
	}
	moved := len(out) + first - vtable
	out = append(out, b[vtable:]...)
	for i := range n {
		le.PutUint32(out[at+4+4*i:], uint32(moved-(at+4+4*i)))
	}
	return out
}
