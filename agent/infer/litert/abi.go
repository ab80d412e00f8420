package litert

import "fmt"

// Status mirrors LiteRtStatus. The library does not export its own
// status-to-string function, so the table lives here.
type Status int32

var statusText = map[Status]string{
	0:    "ok",
	1:    "invalid argument",
	2:    "memory allocation failure",
	3:    "runtime failure",
	4:    "missing input tensor",
	5:    "unsupported",
	6:    "not found",
	7:    "timeout expired",
	8:    "wrong version",
	9:    "unknown error",
	10:   "already exists",
	100:  "cancelled",
	500:  "file I/O",
	501:  "invalid flatbuffer",
	502:  "dynamic loading",
	503:  "serialization",
	504:  "compilation",
	1000: "index out of bounds",
	1001: "invalid IR type",
	1002: "invalid graph invariant",
	1003: "graph modification",
	1500: "invalid tool config",
	2000: "legalize: no match",
	2001: "invalid legalization",
	3000: "pattern: no match",
	3001: "invalid transformation",
	4000: "unsupported runtime version",
	4001: "unsupported compiler version",
	4002: "incompatible byte code version",
	5000: "unsupported op shape inferer",
	5001: "shape inference failed",
}

// Error is a failed native call.
type Error struct {
	Func   string
	Status Status
	Detail string // text from the runtime's buffered error reporter, if any
}

func (e *Error) Error() string {
	s := statusText[e.Status]
	if s == "" {
		s = "unlisted status"
	}
	if e.Detail != "" {
		return fmt.Sprintf("%s: %s (%d): %s", e.Func, s, e.Status, e.Detail)
	}
	return fmt.Sprintf("%s: %s (%d)", e.Func, s, e.Status)
}

// Struct layouts below are declared ABI stable by the library's headers
// (64-bit; static asserts there: any 16, option 24, layout 68, ranked type 72).

type anyValue struct {
	typ int32
	_   int32
	val uint64 // union: bool, int64, double, pointer
}

type envOption struct {
	tag int32
	_   int32
	any anyValue
}

const (
	anyInt    = 2
	anyString = 8

	envDispatchLibraryDir       = 1
	envRuntimeLibraryDir        = 22
	envAutoRegisterAccelerators = 24
	envMinLoggerSeverity        = 25

	hwCPU = 1
)

// Hardware is a set of what a model may run on; CPU is always part of it.
type Hardware uint64

// Sets of Hardware.
const (
	CPU Hardware = hwCPU
	GPU Hardware = hwCPU | 2
	NPU Hardware = hwCPU | 4
)

const maxRank = 8

type layout struct {
	bits    uint32 // rank in the low 7 bits, has_strides in bit 7
	dims    [maxRank]int32
	strides [maxRank]uint32
}

type rankedType struct {
	elem   int32
	layout layout
}

type quantPerTensor struct {
	scale float32
	_     int32
	zero  int64
}

type quantPerChannel struct {
	dim    int32
	_      int32
	n      uint64
	scales uintptr
	zeros  uintptr
}

// DType is LiteRtElementType.
type DType int32

var dtypeInfo = map[DType]struct {
	name string
	bits int
}{
	1: {"FP32", 32}, 2: {"INT32", 32}, 3: {"UINT8", 8}, 4: {"INT64", 64},
	5: {"STRING", 0}, 6: {"BOOL", 8}, 7: {"INT16", 16}, 8: {"COMPLEX64", 64},
	9: {"INT8", 8}, 10: {"FP16", 16}, 11: {"FP64", 64}, 12: {"COMPLEX128", 128},
	13: {"UINT64", 64}, 14: {"RESOURCE", 0}, 15: {"VARIANT", 0},
	16: {"UINT32", 32}, 17: {"UINT16", 16}, 18: {"INT4", 4}, 19: {"BF16", 16},
	20: {"INT2", 2}, 21: {"UINT4", 4}, 22: {"FP8E4M3FN", 8}, 23: {"FP8E5M2", 8},
}

func (d DType) String() string {
	if i, ok := dtypeInfo[d]; ok {
		return i.name
	}
	return fmt.Sprintf("DTYPE(%d)", int32(d))
}

// Bits is the size of one element in bits, 0 for types without a fixed size.
func (d DType) Bits() int { return dtypeInfo[d].bits }
