package oip

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/elements"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

const (
	// maxForeign is the room for a picture or sound, in bytes: a frame of 3840 by 2160
	// pixels in RGB has 24 MiB.
	maxForeign = 32 << 20
	// maxDecoding bounds the pixels of files that are decoded at a time, which take up
	// to 20 bytes each.
	maxDecoding = picture.MaxPixels
)

// foreign says of an input that it is a picture or a sound instead of a tensor.
type foreign struct {
	format        string // of a raw frame
	width, height int
	stride        int
	content       string // "base64": so is the JSON's string
	offset        int    // sample that a window of sound begins at, -1: not said
	element       []byte // the bytes, when they did not come as a tensor's
}

// fields adds the parameters that say so.
func (x *foreign) fields(more fields) fields {
	more["format"] = text(&x.format)
	more["width"] = value(&x.width, "a number of pixels")
	more["height"] = value(&x.height, "a number of pixels")
	more["stride"] = value(&x.stride, "a number of bytes")
	more["content_type"] = text(&x.content)
	more["offset"] = count(&x.offset, "a number of samples")
	return more
}

// count reads a number that is not below zero.
func count(n *int, wanted string) field {
	return func(d *json.Decoder) error {
		if err := value(n, wanted)(d); err != nil {
			return err
		}
		if *n < 0 {
			return fmt.Errorf("%s from 0 on is wanted", wanted)
		}
		return nil
	}
}

// foreignOf reads the same parameters of a message.
func foreignOf(in *oippb.ModelInferRequest_InferInputTensor) (x foreign, err error) {
	x.offset = -1
	for key, to := range map[string]*int{"width": &x.width, "height": &x.height, "stride": &x.stride, "offset": &x.offset} {
		if in.Parameters[key] == nil {
			continue
		}
		n, err := whole(in.Parameters, key, math.MaxInt32)
		if err != nil {
			return x, err
		}
		*to = int(n)
	}
	if x.format, err = textOf(in.Parameters, "format"); err != nil || in.Datatype != "BYTES" || in.Contents == nil {
		return x, err
	}
	if len(in.Contents.BytesContents) != 1 {
		return x, fmt.Errorf("%d bytes_contents, one picture or sound is wanted", len(in.Contents.BytesContents))
	}
	x.element = in.Contents.BytesContents[0]
	return x, nil
}

// textOf reads a parameter that is a text; empty when it is not there.
func textOf(from map[string]*oippb.InferParameter, key string) (string, error) {
	p := from[key]
	if p == nil {
		return "", nil
	}
	s, ok := p.ParameterChoice.(*oippb.InferParameter_StringParam)
	if !ok {
		return "", fmt.Errorf("%s: a string is wanted", key)
	}
	return s.StringParam, nil
}

// foreign tells whether an input is a picture or a sound. Tensors of BYTES are in no
// contract.
func (in *inputTensor) foreign() bool {
	return in.datatype == "BYTES" || in.from.format != ""
}

// fitted returns the request with tensors in the place of pictures and sounds, and what
// the first picture was.
func (f *front) fitted(ctx context.Context, r *request, c *bundle.Contract) (*request, *named.Shown, error) {
	if !slices.ContainsFunc(r.inputs, func(in inputTensor) bool { return in.foreign() }) {
		return r, nil, nil
	}
	with := *r
	with.inputs = slices.Clone(r.inputs)
	var first *named.Shown
	for i := range with.inputs {
		in := &with.inputs[i]
		t := c.Input(in.name)
		if !in.foreign() || t == nil {
			continue
		}
		raw, shown, err := f.tensor(ctx, in, t)
		if err != nil {
			return nil, nil, wrongInput(in.name, err)
		}
		in.datatype, in.shape, in.raw, in.size, in.data, in.memory = t.DType, named.Shape(t), raw, int64(len(raw)), nil, nil
		in.from = foreign{}
		if first == nil {
			first = shown
		}
	}
	return &with, first, nil
}

// wrongInput says which input is wrong, and with the status of what is too large.
func wrongInput(name string, err error) error {
	var p *picture.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &p) && p.Code == picture.CodeSize:
		return &refused{http.StatusRequestEntityTooLarge, fmt.Sprintf("input %q: %v", name, err)}
	}
	return bad(fmt.Errorf("input %q: %w", name, err))
}

// tensor turns a picture or a sound into the tensor.
func (f *front) tensor(ctx context.Context, in *inputTensor, t *bundle.Tensor) ([]byte, *named.Shown, error) {
	b, err := in.payload()
	if err != nil {
		return nil, nil, err
	}
	if t.Meaning != nil && t.Meaning.Kind == "audio" && in.from.format == "" {
		raw, err := named.Sound(t, b, in.from.offset)
		return raw, nil, err
	}
	rule, err := named.Rule(t)
	if err != nil {
		return nil, nil, err
	}
	if in.from.format != "" {
		frame := &picture.Frame{Format: in.from.format, Width: in.from.width, Height: in.from.height, Stride: in.from.stride, Data: b}
		raw := make([]byte, rule.Bytes())
		at, err := rule.Frame(raw, frame)
		return raw, &named.Shown{Size: named.Size{Width: frame.Width, Height: frame.Height}, At: at}, err
	}
	return f.decoded(ctx, b, rule)
}

// decoded turns a file into the tensor, when there is room to decode it.
func (f *front) decoded(ctx context.Context, b []byte, rule *picture.Rule) ([]byte, *named.Shown, error) {
	width, height, err := picture.Measure(b, maxDecoding)
	if err != nil {
		return nil, nil, err
	}
	room := int64(width) * int64(height)
	if err := f.pixels.Acquire(ctx, room); err != nil {
		return nil, nil, err
	}
	defer f.pixels.Release(room)
	p, err := picture.Decode(b, maxDecoding)
	if err != nil {
		return nil, nil, err
	}
	raw := make([]byte, rule.Bytes())
	at, err := rule.Tensor(raw, p)
	return raw, &named.Shown{Size: named.Size{Width: p.Width, Height: p.Height}, At: at}, err
}

// payload is the bytes of a picture or sound: the one element of BYTES, or UINT8 of a
// frame as they are.
func (in *inputTensor) payload() ([]byte, error) {
	n := 1
	for _, d := range in.shape {
		if d < 0 || d > maxForeign || n*d > maxForeign {
			return nil, fmt.Errorf("shape %v: one picture or sound of at most %d bytes is wanted", in.shape, maxForeign)
		}
		n *= d
	}
	switch {
	case in.datatype == "UINT8" && (in.size >= 0 || in.memory != nil):
		return in.raw, in.checkRaw(n)
	case in.datatype == "UINT8" && in.data != nil:
		return elements.Pack("UINT8", in.shape, n, string(in.data))
	case in.datatype != "BYTES":
		return nil, fmt.Errorf("datatype %.20q, a frame is BYTES or UINT8", in.datatype)
	case n != 1:
		return nil, fmt.Errorf("shape %v, one picture or sound, [1], is wanted", in.shape)
	case in.from.element != nil:
		return in.from.element, nil
	case in.size >= 0 || in.memory != nil:
		if len(in.raw) < 4 || uint64(binary.LittleEndian.Uint32(in.raw)) != uint64(len(in.raw)-4) {
			return nil, fmt.Errorf("%d bytes, one element behind its length, 4 bytes little endian, is wanted", len(in.raw))
		}
		return in.raw[4:], nil
	case in.data == nil:
		return nil, errors.New("data is missing")
	}
	return in.fromBase64()
}

// fromBase64 reads a list of one string.
func (in *inputTensor) fromBase64() ([]byte, error) {
	if in.from.content != "base64" {
		return nil, errors.New("JSON holds no raw bytes: base64 and the parameter content_type base64 are wanted, or binary data")
	}
	var list []string
	if err := json.Unmarshal(in.data, &list); err != nil || len(list) != 1 {
		return nil, errors.New("data: a list of one string is wanted")
	}
	b, err := base64.StdEncoding.DecodeString(list[0])
	if err != nil {
		return nil, errors.New("data is no base64")
	}
	return b, nil
}

// files are the content types of bodies that are a picture or a sound and nothing else.
var files = []string{"image/jpeg", "image/png", "audio/wav", "audio/x-wav", "audio/vnd.wave"}

// fileRequest is the request of such a body: for the input of that meaning, and for
// names if the contract gives any.
func fileRequest(c *bundle.Contract, b []byte, query url.Values) (*request, error) {
	r := &request{named: named.Check(c) == nil}
	at := slices.IndexFunc(c.Inputs, func(t bundle.Tensor) bool {
		return t.Meaning != nil && t.Meaning.Kind == map[bool]string{true: "audio", false: "image"}[named.IsWAV(b)]
	})
	if at < 0 {
		return nil, fmt.Errorf("the contract says of no input that it is what this file is; the model wants %s", names(c.Inputs))
	}
	in := inputTensor{name: c.Inputs[at].Name, datatype: "BYTES", shape: []int{1}, size: -1, from: foreign{element: b, offset: -1}}
	for key, to := range map[string]*int{"offset": &in.from.offset, "top": &r.top} {
		if s := query.Get(key); s != "" {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				return nil, fmt.Errorf("%s is %.20q, a number is wanted", key, s)
			}
			*to = int(n)
		}
	}
	r.inputs = []inputTensor{in}
	return r, nil
}

// named names an answer's outputs when that was asked for.
func (f *front) named(r *request, by infer.Slot, out [][]byte, shown *named.Shown) (*named.Results, error) {
	if !r.named {
		return nil, nil
	}
	return named.Name(by.Contract, out, named.Options{Top: r.top, Labels: f.labels(by), Shown: shown})
}
