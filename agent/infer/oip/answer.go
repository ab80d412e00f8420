package oip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// answer is what a request gets, before it is written in one way or the other.
type answer struct {
	id      string
	by      infer.Slot
	outputs []output
	results *named.Results // nil: not asked for
}

// output is one tensor of an answer.
type output struct {
	name, datatype string
	shape          []int
	raw            []byte   // of BYTES, each element behind its length
	text           []string // of BYTES
	binary         bool     // is wanted as bytes
	memory         *window  // it has been put there
}

// answer picks the outputs that were asked for, in that order; all of them, in the
// contract's order, when none was named. What is for shared memory is put there.
//
// With results by name only tensors that were named come as well.
func (f *front) answer(r *request, by infer.Slot, out [][]byte, shown *named.Shown) (*answer, error) {
	a := &answer{id: idOr(r.id), by: by}
	var err error
	if a.results, err = f.named(r, by, out, shown); err != nil {
		return nil, err
	}
	wanted := r.outputs
	if len(wanted) == 0 && !r.named {
		for _, t := range by.Contract.Outputs {
			wanted = append(wanted, outputRequest{name: t.Name})
		}
	}
	for _, o := range wanted {
		at := slices.IndexFunc(by.Contract.Outputs, func(t bundle.Tensor) bool { return t.Name == o.name })
		if at < 0 { // the slot was switched after the request was checked
			return nil, errors.New("an output that was asked for is not there in the version that answered")
		}
		t := &by.Contract.Outputs[at]
		x := output{name: t.Name, datatype: t.DType, shape: shapeOf(t, out[at]), raw: out[at], binary: o.binary, memory: o.memory}
		if !o.binaryIs {
			x.binary = r.binary
		}
		if o.classes > 0 {
			x.shape, x.text = classify(t, out[at], x.shape, o.classes, f.labels(by))
			x.datatype, x.raw = "BYTES", byteElements(x.text)
		}
		if o.memory != nil {
			if err := f.memory.write(o.memory, x.raw); err != nil {
				return nil, fmt.Errorf("output %q: %w", o.name, err)
			}
		}
		a.outputs = append(a.outputs, x)
	}
	return a, nil
}

// byteElements is how BYTES are written as bytes: each element behind its length, 4
// bytes little endian.
func byteElements(list []string) []byte {
	var out []byte
	for _, s := range list {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}
