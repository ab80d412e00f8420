package litert

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Lib is the loaded shared library with resolved entry points.
type Lib struct {
	handle uintptr
	fn     [numFns]uintptr
	strdup uintptr
	free   uintptr
	// ABI is a label derived from exported symbols, see fingerprint.
	ABI string
}

type fnID int

const (
	fCreateEnvironment fnID = iota
	fDestroyEnvironment
	fCreateModelFromBuffer
	fDestroyModel
	fGetNumModelSignatures
	fGetModelSignature
	fGetSignatureKey
	fGetNumSignatureInputs
	fGetNumSignatureOutputs
	fGetSignatureInputName
	fGetSignatureOutputName
	fGetSignatureInputTensorByIndex
	fGetSignatureOutputTensorByIndex
	fGetTensorTypeID
	fGetRankedTensorType
	fGetQuantizationTypeID
	fGetPerTensorQuantization
	fGetPerChannelQuantization
	fCreateOptions
	fDestroyOptions
	fSetOptionsHardwareAccelerators
	fCreateOpaqueOptions
	fAddOpaqueOptions
	fCreateCompiledModel
	fDestroyCompiledModel
	fGetInputRequirements
	fGetOutputRequirements
	fReqBufferSize
	fReqAlignment
	fCreateTensorBufferFromHostMemory
	fDestroyTensorBuffer
	fRunCompiledModel
	fGetErrorMessages
	fClearErrors
	numFns
)

var fnNames = [numFns]string{
	"LiteRtCreateEnvironment",
	"LiteRtDestroyEnvironment",
	"LiteRtCreateModelFromBuffer",
	"LiteRtDestroyModel",
	"LiteRtGetNumModelSignatures",
	"LiteRtGetModelSignature",
	"LiteRtGetSignatureKey",
	"LiteRtGetNumSignatureInputs",
	"LiteRtGetNumSignatureOutputs",
	"LiteRtGetSignatureInputName",
	"LiteRtGetSignatureOutputName",
	"LiteRtGetSignatureInputTensorByIndex",
	"LiteRtGetSignatureOutputTensorByIndex",
	"LiteRtGetTensorTypeId",
	"LiteRtGetRankedTensorType",
	"LiteRtGetQuantizationTypeId",
	"LiteRtGetPerTensorQuantization",
	"LiteRtGetPerChannelQuantization",
	"LiteRtCreateOptions",
	"LiteRtDestroyOptions",
	"LiteRtSetOptionsHardwareAccelerators",
	"LiteRtCreateOpaqueOptions",
	"LiteRtAddOpaqueOptions",
	"LiteRtCreateCompiledModel",
	"LiteRtDestroyCompiledModel",
	"LiteRtGetCompiledModelInputBufferRequirements",
	"LiteRtGetCompiledModelOutputBufferRequirements",
	"LiteRtGetTensorBufferRequirementsBufferSize",
	"LiteRtGetTensorBufferRequirementsAlignment",
	"LiteRtCreateTensorBufferFromHostMemory",
	"LiteRtDestroyTensorBuffer",
	"LiteRtRunCompiledModel",
	"LiteRtCompiledModelGetErrorMessages",
	"LiteRtCompiledModelClearErrors",
}

// Open loads the library. RTLD_NOW makes a missing dependency or symbol
// version fail here, with a text that names it.
func Open(path string) (*Lib, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load runtime: %w", err)
	}
	l := &Lib{handle: h}
	has := func(name string) bool { p, err := purego.Dlsym(h, name); return err == nil && p != 0 }
	// LiteRtCreateModelFrom* got a new first argument in 2.1.6 under the same
	// names; calling an older library with the new arguments would crash.
	switch {
	case has("LiteRtSetEnvironmentOptionsValue") || !has("LiteRtCreateModelFromFd"):
		return nil, fmt.Errorf("load runtime: older than 2.1.6, not supported")
	case has("LiteRtCompiledModelIsNonCpuFullyAccelerated"):
		l.ABI = "2.3"
	case has("kLiteRtRuntimeBuiltin"):
		l.ABI = "2.2"
	default:
		l.ABI = "2.1.6"
	}
	for i, n := range fnNames {
		p, err := purego.Dlsym(h, n)
		if err != nil {
			return nil, fmt.Errorf("load runtime: symbol %s: %w", n, err)
		}
		l.fn[i] = p
	}
	// Option payloads are released by the library through a destructor that
	// the caller passes: libc strdup + free need no Go callback.
	if l.strdup, err = purego.Dlsym(purego.RTLD_DEFAULT, "strdup"); err != nil {
		return nil, err
	}
	if l.free, err = purego.Dlsym(purego.RTLD_DEFAULT, "free"); err != nil {
		return nil, err
	}
	return l, nil
}

// call runs a status-returning function. Only the low 32 bits of the result
// register are defined for a C enum.
//
//go:uintptrescapes
func (l *Lib) call(f fnID, args ...uintptr) error {
	r, _, _ := purego.SyscallN(l.fn[f], args...)
	if st := Status(int32(uint32(r))); st != 0 {
		return &Error{Func: fnNames[f], Status: st}
	}
	return nil
}

//go:uintptrescapes
func (l *Lib) void(f fnID, args ...uintptr) { purego.SyscallN(l.fn[f], args...) }

func (l *Lib) cstrdup(s string) uintptr {
	b := append([]byte(s), 0)
	r, _, _ := purego.SyscallN(l.strdup, uintptr(unsafe.Pointer(&b[0])))
	return r
}

// goString copies a C string of at most 64 KiB.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	base := cptr(p)
	n := 0
	for n < 1<<16 && *(*byte)(unsafe.Add(base, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(base), n))
}

// cptr turns an address owned by C into a pointer without tripping vet: the
// memory is not managed by Go.
func cptr(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }
