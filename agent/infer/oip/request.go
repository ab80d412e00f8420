package oip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// request is an infer request. Parameters are allowed by the protocol and none
// of them means anything here.
type request struct {
	id      string
	inputs  []inputTensor
	outputs []string
}

type inputTensor struct {
	name     string
	shape    []int
	datatype string
	data     json.RawMessage
}

// maxTensors bounds what a request may list.
const maxTensors = 256

// parse reads a request strictly: every key is one of the protocol's, in its
// case, and there once; nothing is null; nothing follows.
func parse(b []byte) (*request, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	var r request
	err := object(d, fields{
		"id":         text(&r.id),
		"parameters": parameters,
		"inputs":     list(func(d *json.Decoder) error { return r.input(d) }),
		"outputs":    list(func(d *json.Decoder) error { return r.output(d) }),
	})
	if err != nil {
		return nil, fmt.Errorf("the body is no infer request: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("the body is no infer request: something follows its end")
	}
	return &r, nil
}

func (r *request) input(d *json.Decoder) error {
	var in inputTensor
	err := object(d, fields{
		"name":       text(&in.name),
		"shape":      value(&in.shape, "a list of whole numbers"),
		"datatype":   text(&in.datatype),
		"parameters": parameters,
		"data":       func(d *json.Decoder) error { return d.Decode(&in.data) },
	})
	if r.inputs = append(r.inputs, in); len(r.inputs) > maxTensors {
		return fmt.Errorf("more than %d inputs", maxTensors)
	}
	return err
}

func (r *request) output(d *json.Decoder) error {
	var name string
	err := object(d, fields{"name": text(&name), "parameters": parameters})
	if r.outputs = append(r.outputs, name); len(r.outputs) > maxTensors {
		return fmt.Errorf("more than %d outputs", maxTensors)
	}
	return err
}

// field reads the value of one key.
type field func(*json.Decoder) error

type fields map[string]field

// object reads {…} with the given keys, each at most once.
func object(d *json.Decoder, known fields) error {
	if t, err := d.Token(); err != nil {
		return malformed(err)
	} else if t != json.Delim('{') {
		return errors.New("an object is wanted")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		key, _ := t.(string)
		read := known[key]
		switch {
		case read == nil:
			return fmt.Errorf("unknown key %.40q", key)
		case seen[key]:
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		if err := read(d); err != nil {
			return fmt.Errorf("%s: %w", key, malformed(err))
		}
	}
	_, err := d.Token()
	return malformed(err)
}

// malformed says in one way that the JSON ends too early.
func malformed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return err
}

// list reads [ … ] of what each reads.
func list(each field) field {
	return func(d *json.Decoder) error {
		if t, err := d.Token(); err != nil {
			return err
		} else if t != json.Delim('[') {
			return errors.New("a list is wanted")
		}
		for d.More() {
			if err := each(d); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
}

// value reads a value that is not null into v.
func value(v any, wanted string) field {
	return func(d *json.Decoder) error {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if string(raw) == "null" || json.Unmarshal(raw, v) != nil {
			return fmt.Errorf("%s is wanted", wanted)
		}
		return nil
	}
}

func text(s *string) field { return value(s, "a string") }

// parameters reads an object and forgets it.
func parameters(d *json.Decoder) error {
	var any map[string]json.RawMessage
	return value(&any, "an object")(d)
}

// bytes returns the inputs in the contract's order.
func (r *request) bytes(c *bundle.Contract) ([][]byte, error) {
	out := make([][]byte, len(c.Inputs))
	for i := range r.inputs {
		in := &r.inputs[i]
		at := -1
		for k := range c.Inputs {
			if c.Inputs[k].Name == in.name {
				at = k
			}
		}
		switch {
		case at < 0:
			return nil, fmt.Errorf("there is no input %.80q; the model wants %s", in.name, names(c.Inputs))
		case out[at] != nil:
			return nil, fmt.Errorf("input %q is there twice", in.name)
		}
		b, err := in.bytes(&c.Inputs[at])
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.name, err)
		}
		out[at] = b
	}
	for i := range out {
		if out[i] == nil {
			return nil, fmt.Errorf("input %q is missing; the model wants %s", c.Inputs[i].Name, names(c.Inputs))
		}
	}
	seen := map[string]bool{}
	for _, name := range r.outputs {
		if c.Output(name) == nil {
			return nil, fmt.Errorf("there is no output %.80q; the model has %s", name, names(c.Outputs))
		}
		if seen[name] {
			return nil, fmt.Errorf("output %q is asked for twice", name)
		}
		seen[name] = true
	}
	return out, nil
}

func names(ts []bundle.Tensor) string {
	var s []string
	for _, t := range ts {
		s = append(s, fmt.Sprintf("%s %s %v", t.Name, t.DType, t.Shape))
	}
	return strings.Join(s, ", ")
}

// bytes checks one input against its tensor and packs its numbers.
func (in *inputTensor) bytes(t *bundle.Tensor) ([]byte, error) {
	if in.datatype != t.DType {
		return nil, fmt.Errorf("datatype %.20q, %s is wanted", in.datatype, t.DType)
	}
	if len(in.shape) != len(t.Shape) {
		return nil, fmt.Errorf("shape has %d dimensions, %v is wanted", len(in.shape), t.Shape)
	}
	n := 1
	for i, d := range in.shape {
		if d < 0 || t.Shape[i] >= 0 && d != t.Shape[i] {
			return nil, fmt.Errorf("shape %v, %v is wanted", in.shape, t.Shape)
		}
		if d > 0 && n > maxBody/d {
			return nil, fmt.Errorf("shape %v is too large", in.shape)
		}
		n *= d
	}
	if in.data == nil {
		return nil, errors.New("data is missing")
	}
	return pack(t.DType, in.shape, n, string(in.data))
}

// answer picks and writes the outputs that were asked for, all of them when none
// was named.
func (r *request) answer(by infer.Slot, out [][]byte) (*response, error) {
	resp := &response{ID: r.id, Model: by.Key.Model, Version: by.Version, Outputs: []outputTensor{}}
	for i, t := range by.Contract.Outputs {
		if len(r.outputs) == 0 || r.wants(t.Name) {
			resp.Outputs = append(resp.Outputs, outputTensor{t.Name, t.DType, shapeOf(&t, out[i]), numbers(t.DType, out[i])})
		}
	}
	if len(r.outputs) > len(resp.Outputs) {
		// The slot was switched after the request was checked.
		return nil, errors.New("an output that was asked for is not there in the version that answered")
	}
	return resp, nil
}

func (r *request) wants(name string) bool {
	for _, o := range r.outputs {
		if o == name {
			return true
		}
	}
	return false
}

// shapeOf fills a dynamic dimension from the number of elements.
func shapeOf(t *bundle.Tensor, b []byte) []int {
	n := len(b) / max(bundle.DTypeSize(t.DType), 1)
	known, dynamic := 1, -1
	shape := append([]int{}, t.Shape...)
	for i, d := range shape {
		if d < 0 {
			dynamic = i
			continue
		}
		known *= max(d, 1)
	}
	if dynamic >= 0 {
		shape[dynamic] = n / known
	}
	return shape
}
