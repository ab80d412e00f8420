package oip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/elements"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// request is an infer request. Of the parameters that the protocol allows, those
// below mean something here; others are passed over.
type request struct {
	id      string
	binary  bool          // binary_data_output: every output that says nothing else is binary
	timeout time.Duration // 0: none of its own
	inputs  []inputTensor
	outputs []outputRequest
	named   bool // results by name are wanted
	top     int  // classes of them, 0: as many as is usual
}

type inputTensor struct {
	name     string
	shape    []int
	datatype string
	data     json.RawMessage // nil: raw holds the elements
	size     int64           // binary_data_size, -1: none
	raw      []byte
	memory   *window // of a shared memory region
	from     foreign // a picture or a sound
}

// outputRequest is an output that is asked for.
type outputRequest struct {
	name     string
	binary   bool
	binaryIs bool // binary was said
	classes  int  // of a classification; 0: none
	memory   *window
}

// maxTensors bounds what a request may list.
const maxTensors = 256

// parse reads a request strictly: every key is one of the protocol's, in its
// case, and there once; nothing is null; nothing follows.
func parse(b []byte) (*request, error) {
	var r request
	err := readJSON(b, fields{
		"id":         text(&r.id),
		"parameters": r.parameters,
		"inputs":     list(r.input),
		"outputs":    list(r.output),
	})
	if err != nil {
		return nil, fmt.Errorf("the body is no infer request: %w", err)
	}
	return &r, nil
}

// readJSON reads one object and nothing behind it.
func readJSON(b []byte, known fields) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := object(d, known); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows its end")
	}
	return nil
}

func (r *request) parameters(d *json.Decoder) error {
	var micros uint32
	var results string
	err := parameters(d, fields{
		"binary_data_output": value(&r.binary, "true or false"), "timeout": value(&micros, "a number of microseconds"),
		"results": text(&results), "top": count(&r.top, "a number of classes"),
	})
	r.timeout = time.Duration(micros) * time.Microsecond
	if err == nil {
		err = r.wants(results)
	}
	return err
}

// wants takes the parameter results.
func (r *request) wants(results string) error {
	if r.named = results == "named"; results != "" && !r.named {
		return fmt.Errorf("results is %.20q, named is wanted", results)
	}
	return nil
}

func (r *request) input(d *json.Decoder) error {
	in := inputTensor{size: -1, from: foreign{offset: -1}}
	err := object(d, fields{
		"name":     text(&in.name),
		"shape":    value(&in.shape, "a list of whole numbers"),
		"datatype": text(&in.datatype),
		"parameters": func(d *json.Decoder) error {
			var w window
			err := parameters(d, w.fields(in.from.fields(fields{"binary_data_size": value(&in.size, "a number of bytes")})))
			in.memory = w.orNil()
			return err
		},
		"data": func(d *json.Decoder) error { return d.Decode(&in.data) },
	})
	if r.inputs = append(r.inputs, in); len(r.inputs) > maxTensors {
		return fmt.Errorf("more than %d inputs", maxTensors)
	}
	return err
}

func (r *request) output(d *json.Decoder) error {
	var o outputRequest
	err := object(d, fields{"name": text(&o.name), "parameters": func(d *json.Decoder) error {
		var w window
		err := parameters(d, w.fields(fields{
			"binary_data":    func(d *json.Decoder) error { o.binaryIs = true; return value(&o.binary, "true or false")(d) },
			"classification": value(&o.classes, "a number of classes"),
		}))
		o.memory = w.orNil()
		return err
	}})
	if r.outputs = append(r.outputs, o); len(r.outputs) > maxTensors {
		return fmt.Errorf("more than %d outputs", maxTensors)
	}
	if err == nil && (o.classes < 0 || o.classes > 0 && o.memory != nil) {
		err = fmt.Errorf("output %q: a classification is a number of classes above 0 and does not go to shared memory", o.name)
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

// parameters reads an object of which only some keys mean something.
func parameters(d *json.Decoder, known fields) error {
	var all map[string]json.RawMessage
	if err := value(&all, "an object")(d); err != nil {
		return err
	}
	for key, raw := range all {
		if read := known[key]; read != nil {
			if err := read(json.NewDecoder(bytes.NewReader(raw))); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
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
	for _, o := range r.outputs {
		if c.Output(o.name) == nil {
			return nil, fmt.Errorf("there is no output %.80q; the model has %s", o.name, names(c.Outputs))
		}
		if seen[o.name] {
			return nil, fmt.Errorf("output %q is asked for twice", o.name)
		}
		seen[o.name] = true
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
	switch {
	case in.size >= 0 || in.memory != nil:
		return in.raw, in.checkRaw(n)
	case in.data == nil:
		return nil, errors.New("data is missing")
	}
	return elements.Pack(t.DType, in.shape, n, string(in.data))
}

// checkRaw compares what came as bytes with the n elements that the shape says.
func (in *inputTensor) checkRaw(n int) error {
	if want := n * bundle.DTypeSize(in.datatype); len(in.raw) != want {
		return fmt.Errorf("%d bytes of data, %d are wanted", len(in.raw), want)
	}
	if in.datatype == "BOOL" {
		for i, b := range in.raw {
			if b > 1 {
				return fmt.Errorf("element %d is byte %d, 0 or 1 is wanted", i, b)
			}
		}
	}
	return nil
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
