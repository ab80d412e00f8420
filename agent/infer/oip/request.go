package oip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// request is an infer request. Parameters are allowed by the protocol and none
// of them means anything here.
type request struct {
	ID         string         `json:"id"`
	Parameters map[string]any `json:"parameters"`
	Inputs     []inputTensor  `json:"inputs"`
	Outputs    []wanted       `json:"outputs"`
}

type inputTensor struct {
	Name       string          `json:"name"`
	Shape      []int           `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters map[string]any  `json:"parameters"`
	Data       json.RawMessage `json:"data"`
}

type wanted struct {
	Name       string         `json:"name"`
	Parameters map[string]any `json:"parameters"`
}

// parse reads a request strictly.
func parse(b []byte) (*request, error) {
	if err := bundle.StrictJSON(b); err != nil {
		return nil, fmt.Errorf("the body is not one JSON object: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r request
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("the body is not an infer request: %w", err)
	}
	return &r, nil
}

// bytes returns the inputs in the contract's order.
func (r *request) bytes(c *bundle.Contract) ([][]byte, error) {
	out := make([][]byte, len(c.Inputs))
	for i := range r.Inputs {
		in := &r.Inputs[i]
		at := -1
		for k := range c.Inputs {
			if c.Inputs[k].Name == in.Name {
				at = k
			}
		}
		switch {
		case at < 0:
			return nil, fmt.Errorf("there is no input %q; the model wants %s", in.Name, names(c.Inputs))
		case out[at] != nil:
			return nil, fmt.Errorf("input %q is there twice", in.Name)
		}
		b, err := in.bytes(&c.Inputs[at])
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
		out[at] = b
	}
	for i := range out {
		if out[i] == nil {
			return nil, fmt.Errorf("input %q is missing; the model wants %s", c.Inputs[i].Name, names(c.Inputs))
		}
	}
	seen := map[string]bool{}
	for _, o := range r.Outputs {
		if c.Output(o.Name) == nil {
			return nil, fmt.Errorf("there is no output %q; the model has %s", o.Name, names(c.Outputs))
		}
		if seen[o.Name] {
			return nil, fmt.Errorf("output %q is asked for twice", o.Name)
		}
		seen[o.Name] = true
	}
	return out, nil
}

func names(ts []bundle.Tensor) string {
	s := ""
	for i, t := range ts {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%s %s %v", t.Name, t.DType, t.Shape)
	}
	return s
}

// bytes checks one input against its tensor and packs its numbers.
func (in *inputTensor) bytes(t *bundle.Tensor) ([]byte, error) {
	if in.Datatype != t.DType {
		return nil, fmt.Errorf("datatype %q, %s is wanted", in.Datatype, t.DType)
	}
	if len(in.Shape) != len(t.Shape) {
		return nil, fmt.Errorf("shape %v has %d dimensions, %v is wanted", in.Shape, len(in.Shape), t.Shape)
	}
	n := 1
	for i, d := range in.Shape {
		if d < 0 || t.Shape[i] >= 0 && d != t.Shape[i] {
			return nil, fmt.Errorf("shape %v, %v is wanted", in.Shape, t.Shape)
		}
		if d > 0 && n > maxBody/d {
			return nil, fmt.Errorf("shape %v is too large", in.Shape)
		}
		n *= d
	}
	if in.Data == nil {
		return nil, errors.New("data is missing")
	}
	d := json.NewDecoder(bytes.NewReader(in.Data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	p := packer{dtype: t.DType, b: make([]byte, 0, n*bundle.DTypeSize(t.DType))}
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("data: a list is wanted")
	}
	var err error
	if len(list) > 0 && isList(list[0]) || len(in.Shape) == 1 {
		err = p.nested(list, in.Shape)
	} else {
		err = p.flat(list, n)
	}
	if err != nil {
		return nil, err
	}
	return p.b, nil
}

func isList(v any) bool { _, ok := v.([]any); return ok }

// packer turns numbers into the bytes of a datatype.
type packer struct {
	dtype string
	b     []byte
}

func (p *packer) flat(list []any, n int) error {
	if len(list) != n {
		return fmt.Errorf("data has %d elements, %d are wanted", len(list), n)
	}
	for i, v := range list {
		if err := p.put(v); err != nil {
			return fmt.Errorf("data, element %d: %w", i, err)
		}
	}
	return nil
}

func (p *packer) nested(list []any, shape []int) error {
	if len(list) != shape[0] {
		return fmt.Errorf("data: a list of %d where %d are wanted", len(list), shape[0])
	}
	for i, v := range list {
		if len(shape) == 1 {
			if err := p.put(v); err != nil {
				return fmt.Errorf("data, element %d: %w", i, err)
			}
			continue
		}
		inner, ok := v.([]any)
		if !ok {
			return fmt.Errorf("data: a list is wanted at depth %d from the end", len(shape)-1)
		}
		if err := p.nested(inner, shape[1:]); err != nil {
			return err
		}
	}
	return nil
}

// integers are the ranges of the whole-number datatypes.
var integers = map[string]struct{ lo, hi int64 }{
	"INT8": {math.MinInt8, math.MaxInt8}, "UINT8": {0, math.MaxUint8}, "INT16": {math.MinInt16, math.MaxInt16}, "UINT16": {0, math.MaxUint16},
	"INT32": {math.MinInt32, math.MaxInt32}, "UINT32": {0, math.MaxUint32}, "INT64": {math.MinInt64, math.MaxInt64},
}

func (p *packer) put(v any) error {
	if x, ok := v.(bool); ok && p.dtype == "BOOL" {
		if x {
			p.b = append(p.b, 1)
		} else {
			p.b = append(p.b, 0)
		}
		return nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return fmt.Errorf("a %s is wanted, not %s", p.wants(), kind(v))
	}
	switch p.dtype {
	case "FP32":
		f, err := strconv.ParseFloat(string(n), 32)
		if err != nil {
			return fmt.Errorf("%s does not fit FP32", n)
		}
		p.b = binary.LittleEndian.AppendUint32(p.b, math.Float32bits(float32(f)))
		return nil
	case "FP64":
		f, err := strconv.ParseFloat(string(n), 64)
		if err != nil {
			return fmt.Errorf("%s does not fit FP64", n)
		}
		p.b = binary.LittleEndian.AppendUint64(p.b, math.Float64bits(f))
		return nil
	}
	r, ok := integers[p.dtype]
	if !ok {
		return fmt.Errorf("datatype %s cannot be given as JSON", p.dtype)
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || i < r.lo || i > r.hi {
		return fmt.Errorf("%s does not fit %s", n, p.dtype)
	}
	for k := range bundle.DTypeSize(p.dtype) {
		p.b = append(p.b, byte(uint64(i)>>(8*k)))
	}
	return nil
}

func (p *packer) wants() string {
	if p.dtype == "BOOL" {
		return "true or false"
	}
	return "number"
}

func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "that"
}

// answer picks and writes the outputs that were asked for, all of them when none
// was named.
func (r *request) answer(by infer.Slot, out [][]byte) (*response, error) {
	resp := &response{ID: r.ID, Model: by.Key.Model, Version: by.Version, Outputs: []outputTensor{}}
	for i, t := range by.Contract.Outputs {
		if len(r.Outputs) > 0 && !r.wants(t.Name) {
			continue
		}
		resp.Outputs = append(resp.Outputs, outputTensor{t.Name, t.DType, shapeOf(&t, out[i]), numbers(t.DType, out[i])})
	}
	if len(r.Outputs) > len(resp.Outputs) {
		// The slot was switched after the request was checked.
		return nil, errors.New("an output that was asked for is not there in the version that answered")
	}
	return resp, nil
}

func (r *request) wants(name string) bool {
	for _, o := range r.Outputs {
		if o.Name == name {
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

// numbers writes a JSON list; what is not a number becomes null, which no number
// is.
func numbers(dtype string, b []byte) json.RawMessage {
	out := []byte{'['}
	bits := 64
	if dtype == "FP32" {
		bits = 32
	}
	for i, v := range bundle.Values(dtype, b) {
		if i > 0 {
			out = append(out, ',')
		}
		switch {
		case dtype == "BOOL":
			out = strconv.AppendBool(out, v != 0)
		case math.IsNaN(v) || math.IsInf(v, 0):
			out = append(out, "null"...)
		default:
			out = strconv.AppendFloat(out, v, 'g', -1, bits)
		}
	}
	return append(out, ']')
}
