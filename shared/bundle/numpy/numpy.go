// Package numpy reads numpy's .npy and .npz files: bounded, and without panic whatever
// they hold.
package numpy

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Limits of the .npy and .npz readers.
const (
	MaxArrays     = 64
	MaxArrayBytes = 256 << 20 // of all arrays of one file together
	maxNPYHeader  = 64 << 10
	maxDim        = 1 << 30
	maxRank       = 8
)

// Text is the DType of an array of texts, which no tensor has.
const Text = "BYTES"

// Array is one array of a .npy or .npz file, in C order and little endian.
type Array struct {
	DType string // Open Inference Protocol: "FP32", …
	Shape []int  // every dimension >= 0
	Data  []byte

	width int  // of a text: its characters
	wide  bool // of a text: four bytes a character, UTF-32
}

// dtypes are the datatypes of the Open Inference Protocol that a contract may
// name, with the bytes of one element.
var dtypes = map[string]int{
	"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
	"INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}

// Size returns the bytes of one element of a datatype ("FP32"); 0 of one that no
// tensor has.
func Size(dtype string) int { return dtypes[dtype] }

// npyTypes maps numpy's descr to the datatype. One byte has no order.
var npyTypes = map[string]string{
	"<f4": "FP32", "<f8": "FP64", "<f2": "FP16", "|b1": "BOOL",
	"|u1": "UINT8", "<u2": "UINT16", "<u4": "UINT32", "<u8": "UINT64",
	"|i1": "INT8", "<i2": "INT16", "<i4": "INT32", "<i8": "INT64",
}

var (
	npyDescr   = regexp.MustCompile(`'descr': '([<>|=][a-zA-Z][0-9]+)'`)
	npyFortran = regexp.MustCompile(`'fortran_order': (True|False)`)
	npyText    = regexp.MustCompile(`^(<U|\|S)([1-9][0-9]{0,2})$`)
	npyShape   = regexp.MustCompile(`'shape': \(([0-9, ]*)\)`)
)

// ReadArray reads one array of format version 1.0 or 2.0.
func ReadArray(b []byte) (*Array, error) {
	if len(b) < 12 || string(b[:6]) != "\x93NUMPY" {
		return nil, fmt.Errorf("no .npy file")
	}
	n, start := int(binary.LittleEndian.Uint16(b[8:])), 10
	switch {
	case b[6] == 2 && b[7] == 0:
		n, start = int(min(binary.LittleEndian.Uint32(b[8:]), maxNPYHeader+1)), 12
	case b[6] != 1 || b[7] != 0:
		return nil, fmt.Errorf(".npy of version %d.%d; 1.0 and 2.0 are read", b[6], b[7])
	}
	if n > maxNPYHeader || start+n > len(b) {
		return nil, fmt.Errorf(".npy header is cut off or too long")
	}
	a, err := parseNPYHeader(string(b[start : start+n]))
	if err != nil {
		return nil, err
	}
	a.Data = b[start+n:]
	size := int64(a.size())
	for _, d := range a.Shape {
		if size *= int64(d); size > MaxArrayBytes {
			return nil, fmt.Errorf("array of shape %v is larger than %d bytes", a.Shape, MaxArrayBytes)
		}
	}
	if size != int64(len(a.Data)) {
		return nil, fmt.Errorf("array of %s %v takes %d bytes, %d are there", a.DType, a.Shape, size, len(a.Data))
	}
	return a, nil
}

func parseNPYHeader(header string) (*Array, error) {
	descr, order, shape := npyDescr.FindStringSubmatch(header), npyFortran.FindStringSubmatch(header), npyShape.FindStringSubmatch(header)
	if descr == nil || order == nil || shape == nil {
		return nil, fmt.Errorf(".npy header %.120q is not understood", header)
	}
	if order[1] != "False" {
		return nil, fmt.Errorf("array in Fortran order; save it with numpy.ascontiguousarray")
	}
	a := &Array{DType: npyTypes[descr[1]], Shape: []int{}}
	if text := npyText.FindStringSubmatch(descr[1]); text != nil {
		a.DType, a.wide = Text, text[1] == "<U"
		a.width, _ = strconv.Atoi(text[2]) // at most three digits
	}
	if a.DType == "" {
		return nil, fmt.Errorf("array of numpy type %s; little-endian numbers, bools and short texts are read", descr[1])
	}
	for part := range strings.SplitSeq(shape[1], ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		d, err := strconv.Atoi(part)
		if err != nil || d > maxDim || len(a.Shape) == maxRank {
			return nil, fmt.Errorf("array of shape (%.60s)", shape[1])
		}
		a.Shape = append(a.Shape, d)
	}
	return a, nil
}

// Read reads every array of an .npz file, by name.
func Read(b []byte) (map[string]*Array, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("no .npz file: %w", err)
	}
	if len(z.File) > MaxArrays {
		return nil, fmt.Errorf("%d arrays, at most %d are read", len(z.File), MaxArrays)
	}
	arrays := map[string]*Array{}
	left := int64(MaxArrayBytes)
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok || name == "" || arrays[name] != nil {
			return nil, fmt.Errorf(".npz member %.64q is no .npy or is there twice", f.Name)
		}
		raw, err := readMember(f, left)
		if err != nil {
			return nil, err
		}
		left -= int64(len(raw))
		if arrays[name], err = ReadArray(raw); err != nil {
			return nil, fmt.Errorf("array %.64q: %w", name, err)
		}
	}
	return arrays, nil
}

// readMember unpacks one member, never more than limit bytes whatever its header
// promises.
func readMember(f *zip.File, limit int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf(".npz member %.64q: %w", f.Name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf(".npz member %.64q: %w", f.Name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("the arrays together are larger than %d bytes", MaxArrayBytes)
	}
	return raw, nil
}

// size is the bytes of one element.
func (a *Array) size() int {
	switch {
	case a.DType != Text:
		return dtypes[a.DType]
	case a.wide:
		return 4 * a.width
	}
	return a.width
}

// Text returns element i of a list of texts, 0 <= i < Len.
func (a *Array) Text(i int) string {
	b := a.Row(i)
	if !a.wide {
		return strings.ToValidUTF8(strings.TrimRight(string(b), "\x00"), "\uFFFD")
	}
	var s strings.Builder
	for k := 0; k+4 <= len(b); k += 4 {
		r := binary.LittleEndian.Uint32(b[k:])
		if r == 0 {
			break
		}
		s.WriteRune(rune(min(r, unicode.MaxRune+1))) // what is no character becomes U+FFFD
	}
	return s.String()
}

// Len is the number of rows: the first dimension, 0 for a scalar.
func (a *Array) Len() int {
	if len(a.Shape) == 0 {
		return 0
	}
	return a.Shape[0]
}

// Row returns the bytes of one row, 0 <= i < Len.
func (a *Array) Row(i int) []byte {
	n := len(a.Data) / max(a.Len(), 1)
	return a.Data[i*n : (i+1)*n : (i+1)*n]
}

// AppendValues appends every stride-th element of b, the first one first, to list,
// as numbers. 64-bit integers lose what float64 cannot hold; of a datatype that no
// tensor has nothing is appended.
func AppendValues(list []float64, dtype string, b []byte, stride int) []float64 {
	size := dtypes[dtype]
	if size == 0 || stride < 1 {
		return list
	}
	n := len(b) / size
	list = slices.Grow(list, (n+stride-1)/stride)
	switch dtype {
	case "FP32":
		for i := 0; i < n; i += stride {
			list = append(list, float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))))
		}
	case "UINT8":
		for i := 0; i < n; i += stride {
			list = append(list, float64(b[i]))
		}
	case "INT8":
		for i := 0; i < n; i += stride {
			list = append(list, float64(int8(b[i])))
		}
	default:
		for i := 0; i < n; i += stride {
			list = append(list, element(dtype, b[i*size:]))
		}
	}
	return list
}

func element(dtype string, b []byte) float64 {
	le := binary.LittleEndian
	switch dtype {
	case "FP32":
		return float64(math.Float32frombits(le.Uint32(b)))
	case "FP64":
		return math.Float64frombits(le.Uint64(b))
	case "FP16":
		return half(le.Uint16(b))
	case "BF16":
		return float64(math.Float32frombits(uint32(le.Uint16(b)) << 16))
	case "INT8":
		return float64(int8(b[0]))
	case "INT16":
		return float64(int16(le.Uint16(b)))
	case "INT32":
		return float64(int32(le.Uint32(b)))
	case "INT64":
		return float64(int64(le.Uint64(b)))
	case "UINT16":
		return float64(le.Uint16(b))
	case "UINT32":
		return float64(le.Uint32(b))
	case "UINT64":
		return float64(le.Uint64(b))
	default: // BOOL, UINT8
		return float64(b[0])
	}
}

// half reads an IEEE 754 binary16.
func half(h uint16) float64 {
	sign, exponent, fraction := 1.0, int(h>>10)&31, float64(h&1023)
	if h&0x8000 != 0 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	default:
		return sign * math.Ldexp(1024+fraction, exponent-25)
	}
}
