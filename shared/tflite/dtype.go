package tflite

import "fmt"

// Type is the schema's TensorType.
type Type int8

// Types that tensors of a contract may have, and those that only exist inside.
const (
	Float32 Type = iota
	Float16
	Int32
	Uint8
	Int64
	String
	Bool
	Int16
	Complex64
	Int8
	Float64
	Complex128
	Uint64
	Resource
	Variant
	Uint32
	Uint16
	Int4
	BFloat16
	Int2
	Uint4
	Float8E4M3FN
	Float8E5M2
	typeCount
)

// types holds per type its name in lower case as tools print it, its datatype
// in the Open Inference Protocol (empty: it has none) and the bits of one element
// (0: no fixed size).
var types = [typeCount]struct {
	name string
	oip  string
	bits int64
}{
	Float32: {"float32", "FP32", 32}, Float16: {"float16", "FP16", 16}, Float64: {"float64", "FP64", 64},
	BFloat16: {"bfloat16", "BF16", 16}, Float8E4M3FN: {"float8_e4m3fn", "", 8}, Float8E5M2: {"float8_e5m2", "", 8},
	Int8: {"int8", "INT8", 8}, Int16: {"int16", "INT16", 16}, Int32: {"int32", "INT32", 32}, Int64: {"int64", "INT64", 64},
	Uint8: {"uint8", "UINT8", 8}, Uint16: {"uint16", "UINT16", 16}, Uint32: {"uint32", "UINT32", 32}, Uint64: {"uint64", "UINT64", 64},
	Int2: {"int2", "", 2}, Int4: {"int4", "", 4}, Uint4: {"uint4", "", 4},
	Bool: {"bool", "BOOL", 8}, String: {"string", "BYTES", 0},
	Complex64: {"complex64", "", 64}, Complex128: {"complex128", "", 128},
	Resource: {"resource", "", 0}, Variant: {"variant", "", 0},
}

// Known says whether the schema has this type.
func (t Type) Known() bool { return t >= 0 && t < typeCount }

// String returns the type's name in lower case, "float32".
func (t Type) String() string {
	if !t.Known() {
		return fmt.Sprintf("type %d", int8(t))
	}
	return types[t].name
}

// OIP returns the datatype of the Open Inference Protocol, "FP32"; empty if the
// type cannot travel there.
func (t Type) OIP() string {
	if !t.Known() {
		return ""
	}
	return types[t].oip
}

// Bytes returns the size of n elements, packed; ok is false for types without
// a fixed size and for negative or overflowing n.
func (t Type) Bytes(n int64) (size int64, ok bool) {
	if !t.Known() || types[t].bits == 0 || n < 0 || n > 1<<55 {
		return 0, false
	}
	return (n*types[t].bits + 7) / 8, true
}
