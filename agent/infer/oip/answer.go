package oip

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// response is the answer to an infer request.
type response struct {
	ID      string         `json:"id,omitempty"`
	Model   string         `json:"model_name"`
	Version string         `json:"model_version"`
	Outputs []outputTensor `json:"outputs"`

	binary [][]byte // of the outputs that are binary, in their order
}

type outputTensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int           `json:"shape"`
	Parameters *outputMeta     `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

// outputMeta says where an output's elements are when they are not in the JSON.
type outputMeta struct {
	BinarySize *int   `json:"binary_data_size,omitempty"`
	Region     string `json:"shared_memory_region,omitempty"`
	ByteSize   int64  `json:"shared_memory_byte_size,omitempty"`
	Offset     int64  `json:"shared_memory_offset,omitempty"`
}

// answer picks and writes the outputs that were asked for, in that order; all of
// them, in the contract's order, when none was named.
func (f *front) answer(r *request, by infer.Slot, out [][]byte) (*response, error) {
	resp := &response{ID: r.id, Model: by.Key.Model, Version: by.Version, Outputs: []outputTensor{}}
	wanted := r.outputs
	if len(wanted) == 0 {
		for _, t := range by.Contract.Outputs {
			wanted = append(wanted, outputRequest{name: t.Name})
		}
	}
	for _, o := range wanted {
		at := -1
		for i := range by.Contract.Outputs {
			if by.Contract.Outputs[i].Name == o.name {
				at = i
			}
		}
		if at < 0 { // the slot was switched after the request was checked
			return nil, errors.New("an output that was asked for is not there in the version that answered")
		}
		if !o.binaryIs {
			o.binary = r.binary
		}
		if err := f.put(resp, o, by, &by.Contract.Outputs[at], out[at]); err != nil {
			return nil, fmt.Errorf("output %q: %w", o.name, err)
		}
	}
	return resp, nil
}

// put adds one output to the answer, in the form that was asked for.
func (f *front) put(resp *response, o outputRequest, by infer.Slot, t *bundle.Tensor, b []byte) error {
	x := outputTensor{Name: t.Name, Datatype: t.DType, Shape: shapeOf(t, b)}
	raw := b
	var text []string
	if o.classes > 0 {
		x.Shape, text = classify(t, b, x.Shape, o.classes, f.labels(by))
		x.Datatype, raw = "BYTES", byteElements(text)
	}
	switch {
	case o.memory != nil:
		if err := f.memory.write(o.memory, raw); err != nil {
			return err
		}
		x.Parameters = &outputMeta{Region: o.memory.region, ByteSize: int64(len(raw)), Offset: o.memory.offset}
	case o.binary:
		n := len(raw)
		x.Parameters = &outputMeta{BinarySize: &n}
		resp.binary = append(resp.binary, raw)
	case text != nil:
		data, err := json.Marshal(text)
		if err != nil {
			return err
		}
		x.Data = data
	default:
		x.Data = numbers(t.DType, b)
	}
	resp.Outputs = append(resp.Outputs, x)
	return nil
}

// byteElements is how the binary extension writes BYTES: each element behind its
// length, 4 bytes little endian.
func byteElements(list []string) []byte {
	var out []byte
	for _, s := range list {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}

// headerLength is the HTTP header that says how much of a body is JSON; tensors
// follow it.
const headerLength = "Inference-Header-Content-Length"

// send writes the answer: JSON, and the binary outputs behind it.
func (f *front) send(w http.ResponseWriter, r *http.Request, resp *response) {
	body, err := json.Marshal(resp)
	if err != nil {
		fail(w, http.StatusInternalServerError, errors.New("the answer cannot be written"))
		return
	}
	contentType := "application/json"
	if len(resp.binary) > 0 {
		contentType = "application/octet-stream"
		w.Header().Set(headerLength, strconv.Itoa(len(body)))
		for _, b := range resp.binary {
			body = append(body, b...)
		}
	}
	w.Header().Set("Content-Type", contentType)
	compressed(w, r, body)
}
