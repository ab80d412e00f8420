// Package elements turns the numbers of tensors into bytes and back: those of JSON, and
// the typed contents of messages. What does not fit its datatype is refused.
package elements

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Pack turns JSON data, which is valid JSON, into the n elements of a tensor: one
// flat list, or lists in lists as the shape says. It takes no more memory than
// the elements.
func Pack(dtype string, shape []int, n int, data string) ([]byte, error) {
	// An element takes at least one byte of JSON, whatever the shape claims.
	p := packer{dtype: dtype, b: make([]byte, 0, min(n, len(data))*bundle.DTypeSize(dtype)), rest: data}
	if p.next() != '[' {
		return nil, errors.New("data: a list is wanted")
	}
	dims := []int{n}
	if inner := strings.TrimLeft(p.rest[1:], space); len(shape) > 1 && strings.HasPrefix(inner, "[") {
		dims = shape
	}
	if err := p.list(dims); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return p.b, nil
}

// packer walks over JSON.
type packer struct {
	dtype string
	b     []byte
	count int    // elements packed
	rest  string // of the JSON
}

const space = " \t\r\n"

// next returns the byte that comes next, 0 at the end.
func (p *packer) next() byte {
	p.rest = strings.TrimLeft(p.rest, space)
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// take passes over one byte and tells whether it was c.
func (p *packer) take(c byte) bool {
	if p.next() != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// list packs a list of dims[0] elements or of lists.
func (p *packer) list(dims []int) error {
	if !p.take('[') {
		return fmt.Errorf("a list of %d is wanted where %s is", dims[0], p.kind())
	}
	for i := range dims[0] {
		if i > 0 && !p.take(',') || i == 0 && p.next() == ']' {
			return fmt.Errorf("a list of %d where %d are wanted", i, dims[0])
		}
		var err error
		if len(dims) > 1 {
			err = p.list(dims[1:])
		} else {
			err = p.element()
		}
		if err != nil {
			return err
		}
	}
	if !p.take(']') {
		return fmt.Errorf("a list of more than the %d that are wanted", dims[0])
	}
	return nil
}

// kind names what comes next.
func (p *packer) kind() string {
	switch p.next() {
	case '"':
		return "a string"
	case '[':
		return "a list"
	case '{':
		return "an object"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

func (p *packer) element() error {
	p.next()
	end := strings.IndexAny(p.rest, ",]"+space)
	if end < 0 {
		return errors.New("the list does not end")
	}
	token, kind := p.rest[:end], p.kind()
	at := p.count
	p.count++
	if p.dtype == "BOOL" && kind == "true or false" {
		p.rest = p.rest[end:]
		p.b = append(p.b, map[string]byte{"true": 1}[token])
		return nil
	}
	if kind != "a number" || p.dtype == "BOOL" {
		wanted := "a number"
		if p.dtype == "BOOL" {
			wanted = "true or false"
		}
		return fmt.Errorf("element %d is %s, %s is wanted", at, kind, wanted)
	}
	p.rest = p.rest[end:]
	return p.number(at, token)
}

// integers are the ranges of the whole-number datatypes.
var integers = map[string]struct {
	lo int64
	hi uint64
}{
	"INT8": {math.MinInt8, math.MaxInt8}, "UINT8": {0, math.MaxUint8}, "INT16": {math.MinInt16, math.MaxInt16}, "UINT16": {0, math.MaxUint16},
	"INT32": {math.MinInt32, math.MaxInt32}, "UINT32": {0, math.MaxUint32}, "INT64": {math.MinInt64, math.MaxInt64}, "UINT64": {0, math.MaxUint64},
}

func (p *packer) number(at int, token string) error {
	unfit := func() error { return fmt.Errorf("element %d: %.40s does not fit %s", at, token, p.dtype) }
	switch p.dtype {
	case "FP32":
		f, err := strconv.ParseFloat(token, 32)
		if err != nil {
			return unfit()
		}
		p.b = binary.LittleEndian.AppendUint32(p.b, math.Float32bits(float32(f)))
		return nil
	case "FP64":
		f, err := strconv.ParseFloat(token, 64)
		if err != nil {
			return unfit()
		}
		p.b = binary.LittleEndian.AppendUint64(p.b, math.Float64bits(f))
		return nil
	}
	r, ok := integers[p.dtype]
	if !ok {
		return fmt.Errorf("datatype %s cannot be given as JSON", p.dtype)
	}
	var bits uint64
	if strings.HasPrefix(token, "-") {
		i, err := strconv.ParseInt(token, 10, 64)
		if err != nil || i < r.lo {
			return unfit()
		}
		bits = uint64(i)
	} else {
		u, err := strconv.ParseUint(token, 10, 64)
		if err != nil || u > r.hi {
			return unfit()
		}
		bits = u
	}
	p.b = appendBits(p.b, p.dtype, bits)
	return nil
}

// appendBits writes a whole number as wide as its datatype.
func appendBits(b []byte, dtype string, bits uint64) []byte {
	for k := range bundle.DTypeSize(dtype) {
		b = append(b, byte(bits>>(8*k)))
	}
	return b
}

// JSON writes a JSON list; what is not a number becomes null, which no number
// is.
func JSON(dtype string, b []byte) json.RawMessage {
	out := []byte{'['}
	switch dtype {
	case "INT64", "UINT64": // a float64 would lose digits
		for ; len(b) >= 8; b = b[8:] {
			if u := binary.LittleEndian.Uint64(b); dtype == "INT64" {
				out = strconv.AppendInt(out, int64(u), 10)
			} else {
				out = strconv.AppendUint(out, u, 10)
			}
			out = append(out, ',')
		}
	default:
		bits := 64
		if dtype == "FP32" {
			bits = 32
		}
		for _, v := range bundle.Values(dtype, b) {
			_, whole := integers[dtype]
			switch {
			case whole:
				out = strconv.AppendInt(out, int64(v), 10)
			case dtype == "BOOL":
				out = strconv.AppendBool(out, v != 0)
			case math.IsNaN(v) || math.IsInf(v, 0):
				out = append(out, "null"...)
			default:
				out = strconv.AppendFloat(out, v, 'g', -1, bits)
			}
			out = append(out, ',')
		}
	}
	if len(out) > 1 {
		out = out[:len(out)-1]
	}
	return append(out, ']')
}
