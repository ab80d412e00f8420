package litert

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Env is a LiteRtEnvironment.
type Env struct {
	l  *Lib
	p  uintptr
	hw Hardware
}

// NewEnv creates an environment with the CPU accelerator only. logSeverity is the
// library's own minimum level for stderr (0 verbose, 1 info, 2 warning, 3 error, 4
// silent).
func (l *Lib) NewEnv(logSeverity int) (*Env, error) { return l.NewEnvFor(CPU, "", logSeverity) }

// NewEnvFor creates an environment that may use hw. dir is where the accelerators'
// libraries lie, empty for the CPU alone.
func (l *Lib) NewEnvFor(hw Hardware, dir string, logSeverity int) (*Env, error) {
	opts := []envOption{
		{tag: envAutoRegisterAccelerators, any: anyValue{typ: anyInt, val: uint64(hw)}},
		{tag: envMinLoggerSeverity, any: anyValue{typ: anyInt, val: uint64(logSeverity)}},
	}
	if dir != "" {
		text := anyValue{typ: anyString, val: uint64(l.cstrdup(dir))} // kept for good: the environment lives as long as the process
		opts = append(opts, envOption{tag: envRuntimeLibraryDir, any: text}, envOption{tag: envDispatchLibraryDir, any: text})
	}
	e := &Env{l: l, hw: hw}
	if err := l.call(fCreateEnvironment, uintptr(len(opts)), uintptr(unsafe.Pointer(&opts[0])), uintptr(unsafe.Pointer(&e.p))); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Env) Close() {
	if e.p != 0 {
		e.l.void(fDestroyEnvironment, e.p)
		e.p = 0
	}
}

// Quant describes the quantization of one tensor.
type Quant struct {
	Kind   string // "", "per-tensor", "per-channel", "block-wise"
	Axis   int
	Scales []float32
	Zeros  []int64
}

// Tensor is one named input or output of a signature.
type Tensor struct {
	Name  string
	DType DType
	Shape []int32 // negative: dynamic
	Quant Quant
	rtt   rankedType
}

// Bytes is the packed size, or an error for dynamic or size-less types.
func (t *Tensor) Bytes() (int, error) {
	b := t.DType.Bits()
	if b == 0 {
		return 0, fmt.Errorf("tensor %q: type %s has no fixed size", t.Name, t.DType)
	}
	n := 1
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q: dynamic shape %v", t.Name, t.Shape)
		}
		if d > 0 && n > (1<<40)/int(d) {
			return 0, fmt.Errorf("tensor %q: shape %v too large", t.Name, t.Shape)
		}
		n *= int(d)
	}
	return (n*b + 7) / 8, nil
}

// Signature is one entry point of the model.
type Signature struct {
	Key     string
	Inputs  []Tensor
	Outputs []Tensor
}

// Model is a verified model on a private read-only mapping.
type Model struct {
	l    *Lib
	p    uintptr
	data []byte
	Sigs []Signature
}

// LoadModelFile maps the file read-only and creates the model from that
// buffer. LiteRtCreateModelFromFile and ...FromFd skip the FlatBuffer
// verifier; only the buffer variant runs it.
func (e *Env) LoadModelFile(f *os.File) (*Model, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < 8 || st.Size() > 1<<31-1 {
		return nil, fmt.Errorf("model: size %d out of range", st.Size())
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("model: map: %w", err)
	}
	m := &Model{l: e.l, data: b}
	if err := e.l.call(fCreateModelFromBuffer, e.p, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&m.p))); err != nil {
		syscall.Munmap(b)
		return nil, err
	}
	if err := m.readSignatures(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Model) Close() {
	if m.p != 0 {
		m.l.void(fDestroyModel, m.p)
		m.p = 0
	}
	if m.data != nil {
		syscall.Munmap(m.data)
		m.data = nil
	}
}

const maxItems = 1024

func (m *Model) readSignatures() error {
	l := m.l
	var n uintptr
	if err := l.call(fGetNumModelSignatures, m.p, uintptr(unsafe.Pointer(&n))); err != nil {
		return err
	}
	if n == 0 || n > maxItems {
		return fmt.Errorf("model: %d signatures", n)
	}
	for i := uintptr(0); i < n; i++ {
		var sp, key uintptr
		if err := l.call(fGetModelSignature, m.p, i, uintptr(unsafe.Pointer(&sp))); err != nil {
			return err
		}
		if err := l.call(fGetSignatureKey, sp, uintptr(unsafe.Pointer(&key))); err != nil {
			return err
		}
		s := Signature{Key: goString(key)}
		var err error
		if s.Inputs, err = m.tensors(sp, fGetNumSignatureInputs, fGetSignatureInputName, fGetSignatureInputTensorByIndex); err != nil {
			return err
		}
		if s.Outputs, err = m.tensors(sp, fGetNumSignatureOutputs, fGetSignatureOutputName, fGetSignatureOutputTensorByIndex); err != nil {
			return err
		}
		m.Sigs = append(m.Sigs, s)
	}
	return nil
}

func (m *Model) tensors(sig uintptr, fNum, fName, fTensor fnID) ([]Tensor, error) {
	l := m.l
	var n uintptr
	if err := l.call(fNum, sig, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	if n > maxItems {
		return nil, fmt.Errorf("model: %d tensors", n)
	}
	var out []Tensor
	for i := uintptr(0); i < n; i++ {
		var name, tp uintptr
		if err := l.call(fName, sig, i, uintptr(unsafe.Pointer(&name))); err != nil {
			return nil, err
		}
		if err := l.call(fTensor, sig, i, uintptr(unsafe.Pointer(&tp))); err != nil {
			return nil, err
		}
		t := Tensor{Name: goString(name)}
		var kind int32
		if err := l.call(fGetTensorTypeID, tp, uintptr(unsafe.Pointer(&kind))); err != nil {
			return nil, err
		}
		if kind != 0 {
			return nil, fmt.Errorf("tensor %q: unranked", t.Name)
		}
		if err := l.call(fGetRankedTensorType, tp, uintptr(unsafe.Pointer(&t.rtt))); err != nil {
			return nil, err
		}
		t.DType = DType(t.rtt.elem)
		rank := int(t.rtt.layout.bits & 0x7f)
		if rank > maxRank {
			return nil, fmt.Errorf("tensor %q: rank %d", t.Name, rank)
		}
		t.Shape = append([]int32{}, t.rtt.layout.dims[:rank]...)
		if err := m.quant(tp, &t.Quant); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (m *Model) quant(tp uintptr, q *Quant) error {
	l := m.l
	var kind int32
	if err := l.call(fGetQuantizationTypeID, tp, uintptr(unsafe.Pointer(&kind))); err != nil {
		return err
	}
	switch kind {
	case 0:
	case 1:
		var pt quantPerTensor
		if err := l.call(fGetPerTensorQuantization, tp, uintptr(unsafe.Pointer(&pt))); err != nil {
			return err
		}
		q.Kind, q.Scales, q.Zeros = "per-tensor", []float32{pt.scale}, []int64{pt.zero}
	case 2:
		var pc quantPerChannel
		if err := l.call(fGetPerChannelQuantization, tp, uintptr(unsafe.Pointer(&pc))); err != nil {
			return err
		}
		if pc.n > 1<<20 {
			return fmt.Errorf("quantization: %d channels", pc.n)
		}
		q.Kind, q.Axis = "per-channel", int(pc.dim)
		q.Scales = append(q.Scales, unsafe.Slice((*float32)(cptr(pc.scales)), pc.n)...)
		q.Zeros = append(q.Zeros, unsafe.Slice((*int64)(cptr(pc.zeros)), pc.n)...)
	default:
		q.Kind = "block-wise"
	}
	return nil
}
