package tflite

import (
	"encoding/binary"
	"fmt"
)

// checkStrings looks at the data of constant string tensors: a count, the offsets of
// the strings and of the end, then the strings. The runtime follows them unchecked.
func (m *Model) checkStrings(b []byte) {
	seen := map[uint32]bool{}
	for i := range m.Subgraphs {
		for j := range m.Subgraphs[i].Tensors {
			t := &m.Subgraphs[i].Tensors[j]
			data := m.data(b, t.Buffer)
			if t.Type != String || len(data) == 0 || seen[t.Buffer] {
				continue
			}
			seen[t.Buffer] = true
			if err := checkText(data, t.Shape); err != nil {
				m.Faults = append(m.Faults, Problem{"tensor.data", fmt.Sprintf("subgraph %d, tensor %d (%s)", i, j, quote(t.Name)), err.Error()})
			}
		}
	}
}

func checkText(data []byte, shape []int32) error {
	number := func(i int) int64 { return int64(int32(binary.LittleEndian.Uint32(data[4*i:]))) }
	if len(data) < 8 {
		return fmt.Errorf("%d bytes of strings", len(data))
	}
	count := number(0)
	if want, ok := product(shape); !ok || count != want || 4*(count+2) > int64(len(data)) {
		return fmt.Errorf("%d strings in %d bytes for %v", count, len(data), shape)
	}
	last := 4 * (count + 2)
	for i := range int(count) + 1 {
		at := number(1 + i)
		if at < last || at > int64(len(data)) {
			return fmt.Errorf("string %d begins at %d of %d", i, at, len(data))
		}
		last = at
	}
	return nil
}
