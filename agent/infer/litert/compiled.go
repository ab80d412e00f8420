package litert

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Options of compilation.
type Options struct {
	Threads int  // at least 1
	Builtin bool // the runtime's own kernels in place of XNNPACK's
	// CacheFD is a descriptor of the file of packed weights, 0 for none. The
	// runtime owns it from then on. A file that belongs to other weights is used
	// without a word: the caller has hashed it.
	CacheFD int
}

// toml is how the CPU accelerator reads its options.
func (o Options) toml() string {
	s := fmt.Sprintf("num_threads = %d\n", max(o.Threads, 1))
	if o.CacheFD > 0 {
		s += fmt.Sprintf("weight_cache_file_descriptor = %d\n", o.CacheFD)
	}
	if o.Builtin {
		s += "kernel_mode = \"builtin\"\n"
	}
	return s
}

// Compiled is a model ready to run.
type Compiled struct {
	l       *Lib
	p       uintptr
	sig     int
	Inputs  []Tensor
	Outputs []Tensor
	sets    []*Set
}

// Compile builds the first signature of a model.
func (e *Env) Compile(m *Model, o Options) (*Compiled, error) {
	l := e.l
	var op uintptr
	if err := l.call(fCreateOptions, uintptr(unsafe.Pointer(&op))); err != nil {
		return nil, err
	}
	defer l.void(fDestroyOptions, op)
	if err := l.call(fSetOptionsHardwareAccelerators, op, uintptr(e.hw)); err != nil {
		return nil, err
	}
	// The same text under both identifiers: "xnnpack" drives threads and cache,
	// newer runtimes read part of it from "cpu_delegate". Errors are kept in a
	// buffer that Messages reads.
	for _, x := range [][2]string{{"xnnpack", o.toml()}, {"cpu_delegate", o.toml()}, {"runtime_options_string", "error_reporter_mode = 2\n"}} {
		if err := l.addOptions(op, x[0], x[1]); err != nil {
			return nil, err
		}
	}
	c := &Compiled{l: l, Inputs: m.Sigs[0].Inputs, Outputs: m.Sigs[0].Outputs}
	if err := l.call(fCreateCompiledModel, e.p, m.p, op, uintptr(unsafe.Pointer(&c.p))); err != nil {
		return nil, err
	}
	return c, nil
}

// Accelerated tells whether all of the model runs on something else than the CPU.
// Runtimes before 2.3 cannot tell, which is an error.
func (c *Compiled) Accelerated() (bool, error) {
	const name = "LiteRtCompiledModelIsNonCpuFullyAccelerated"
	f, err := purego.Dlsym(c.l.handle, name)
	if err != nil {
		return false, fmt.Errorf("this runtime does not tell where a model runs: %w", err)
	}
	var yes bool
	r, _, _ := purego.SyscallN(f, c.p, uintptr(unsafe.Pointer(&yes)))
	if st := Status(int32(uint32(r))); st != 0 {
		return false, &Error{Func: name, Status: st}
	}
	return yes, nil
}

// addOptions gives the library a text that it frees with libc's free.
func (l *Lib) addOptions(op uintptr, id, payload string) error {
	name := append([]byte(id), 0)
	var oo uintptr
	if err := l.call(fCreateOpaqueOptions, uintptr(unsafe.Pointer(&name[0])), l.cstrdup(payload), l.free, uintptr(unsafe.Pointer(&oo))); err != nil {
		return err
	}
	return l.call(fAddOpaqueOptions, op, oo)
}

// Room is how many bytes of memory a tensor wants, at least its size.
func (c *Compiled) Room(input bool, i int) (int, error) {
	f, t := fGetOutputRequirements, []Tensor(nil)
	if t = c.Outputs; input {
		f, t = fGetInputRequirements, c.Inputs
	}
	n, err := t[i].Bytes()
	if err != nil {
		return 0, err
	}
	var req, size, align uintptr
	if err := c.l.call(f, c.p, uintptr(c.sig), uintptr(i), uintptr(unsafe.Pointer(&req))); err != nil {
		return 0, c.detail(err)
	}
	if err := c.l.call(fReqBufferSize, req, uintptr(unsafe.Pointer(&size))); err != nil {
		return 0, err
	}
	if err := c.l.call(fReqAlignment, req, uintptr(unsafe.Pointer(&align))); err != nil {
		return 0, err
	}
	if size > 1<<30 || align > 4096 {
		return 0, fmt.Errorf("tensor %q wants %d bytes aligned to %d", t[i].Name, size, align)
	}
	return max(n, int(size)), nil
}

// Set is one set of memory that the model runs on.
type Set struct {
	args    []uintptr
	in, out []uintptr
}

// Bind wraps memory, one slice for each input and output in order, each page
// aligned and at least as long as Room says. The memory must outlive the Set and
// keep its address.
func (c *Compiled) Bind(in, out [][]byte) (*Set, error) {
	if len(in) != len(c.Inputs) || len(out) != len(c.Outputs) {
		return nil, errors.New("bind: another number of tensors")
	}
	s := &Set{}
	wrap := func(ts []Tensor, mem [][]byte) ([]uintptr, error) {
		var bs []uintptr
		for i := range ts {
			var tb uintptr
			if err := c.l.call(fCreateTensorBufferFromHostMemory, uintptr(unsafe.Pointer(&ts[i].rtt)), uintptr(unsafe.Pointer(&mem[i][0])), uintptr(len(mem[i])), 0, uintptr(unsafe.Pointer(&tb))); err != nil {
				return nil, err
			}
			bs = append(bs, tb)
		}
		return bs, nil
	}
	var err error
	if s.in, err = wrap(c.Inputs, in); err != nil {
		return nil, err
	}
	if s.out, err = wrap(c.Outputs, out); err != nil {
		return nil, err
	}
	// The arrays are kept alive by the Set; heap objects do not move.
	s.args = []uintptr{c.p, uintptr(c.sig), uintptr(len(s.in)), first(s.in), uintptr(len(s.out)), first(s.out)}
	c.sets = append(c.sets, s)
	return s, nil
}

func first(v []uintptr) uintptr {
	if len(v) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(&v[0]))
}

// Run executes the model on the memory of a Set.
func (c *Compiled) Run(s *Set) error {
	r, _, _ := purego.SyscallN(c.l.fn[fRunCompiledModel], s.args...)
	if st := Status(int32(uint32(r))); st != 0 {
		return c.detail(&Error{Func: fnNames[fRunCompiledModel], Status: st})
	}
	return nil
}

// messages returns and clears the text of the buffered error reporter.
func (c *Compiled) messages() string {
	var p uintptr
	if c.l.call(fGetErrorMessages, c.p, uintptr(unsafe.Pointer(&p))) != nil || p == 0 {
		return ""
	}
	s := goString(p)
	purego.SyscallN(c.l.free, p)
	c.l.call(fClearErrors, c.p)
	return strings.TrimSpace(s)
}

func (c *Compiled) detail(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Detail = c.messages()
	}
	return err
}

// Close frees what Compile and Bind made.
func (c *Compiled) Close() {
	for _, s := range c.sets {
		for _, tb := range append(s.in, s.out...) {
			c.l.void(fDestroyTensorBuffer, tb)
		}
	}
	if c.p != 0 {
		c.l.void(fDestroyCompiledModel, c.p)
		c.p = 0
	}
	c.sets = nil
}
