// Command dunlin-infer is the worker: one process, one runtime, one model. The
// agent starts it through its sandbox with descriptors instead of paths:
//
//	3    control socket, SEQPACKET; its end is the end of the worker
//	4    model file, mapped read-only
//	5    pipe of requests
//	6 7  pipes of answers, one for each frame
//	8    the runtime's library, opened again by this name
//	9    file of packed weights, when -cache is given
//
// It runs the model on frames that the agent lays out, see agent/infer/frame.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/agent/infer/litert"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

// heartbeat is the pause between two signs of life.
const heartbeat = 5 * time.Second

func main() {
	lib := flag.String("lib", "", "the runtime's library")
	threads := flag.Int("threads", 1, "threads of the runtime")
	cache := flag.Bool("cache", false, "the last descriptor is a file of packed weights")
	kernels := flag.String("kernels", "xnnpack", "what the model runs on: xnnpack, builtin, gpu or npu")
	accelerators := flag.String("accelerators", "", "folder of the accelerators' libraries")
	state := flag.Bool("state", false, "the model carries state: begin with a fresh one")
	flag.Parse()
	// The model runs on this thread.
	runtime.LockOSThread()
	w := worker{lib: *lib, threads: *threads, cache: *cache, kernels: *kernels, accelerators: *accelerators, state: *state}
	err := sandbox.Seal()
	if err == nil {
		err = w.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dunlin-infer:", err)
		text := err.Error()
		send(frame.Message{Kind: frame.Failed}, []byte(text[:min(len(text), frame.MaxText)]))
		os.Exit(1)
	}
}

type worker struct {
	lib     string
	threads int
	cache   bool
	kernels string
	state   bool

	accelerators string
}

// hardware by the kernels that use it; all others are the CPU's.
var hardware = map[string]litert.Hardware{"gpu": litert.GPU, "npu": litert.NPU}

// open loads the library and the model.
func (w *worker) open() (*litert.Lib, *litert.Env, *litert.Model, error) {
	lib, err := litert.Open(w.lib)
	if err != nil {
		return nil, nil, nil, err
	}
	hw := max(hardware[w.kernels], litert.CPU)
	env, err := lib.NewEnvFor(hw, w.accelerators, 4) // silent: errors come back from calls
	if err != nil {
		return nil, nil, nil, err
	}
	model, err := env.LoadModelFile(os.NewFile(frame.ModelFD, "model"))
	return lib, env, model, err
}

// there says whether the model runs where it shall: the runtime falls back to the CPU
// without a word.
func (w *worker) there(c *litert.Compiled) error {
	if hardware[w.kernels] == 0 {
		return nil
	}
	yes, err := c.Accelerated()
	if err == nil && !yes {
		err = fmt.Errorf("not all of the model runs on %s", w.kernels)
	}
	return err
}

// run loads, tells the tensors, maps the frames, runs once and then serves.
func (w *worker) run() error {
	began := time.Now()
	go beat()
	lib, env, model, err := w.open()
	if err != nil {
		return err
	}
	o := litert.Options{Threads: w.threads, Builtin: w.kernels == "builtin"}
	if w.cache {
		o.CacheFD = frame.CacheFD
	}
	c, err := env.Compile(model, o)
	if err != nil {
		return err
	}
	if err := w.there(c); err != nil {
		return err
	}
	m, err := describe(lib, c)
	if err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := send(frame.Message{Kind: frame.Tensors}, text); err != nil {
		return err
	}
	mem, err := memory(m)
	if err != nil {
		return err
	}
	sets, err := bind(c, m, mem)
	if err != nil {
		return err
	}
	// Custom operators fail at the first run only.
	for _, s := range sets {
		if err := c.Run(s); err != nil {
			return fmt.Errorf("first run: %w", err)
		}
	}
	if w.state { // which the first runs have changed
		c.Close()
		if c, err = env.Compile(model, litert.Options{Threads: o.Threads, Builtin: o.Builtin}); err != nil {
			return err
		}
		if sets, err = bind(c, m, mem); err != nil {
			return err
		}
	}
	if err := sandbox.Settle(); err != nil {
		return err
	}
	if err := send(frame.Message{Kind: frame.Ready, Micros: uint64(time.Since(began).Microseconds())}, nil); err != nil {
		return err
	}
	return serve(c, sets)
}

// describe lists the tensors with the memory that the runtime wants for them.
func describe(lib *litert.Lib, c *litert.Compiled) (*frame.Model, error) {
	m := &frame.Model{ABI: lib.ABI}
	list := func(input bool, ts []litert.Tensor) ([]frame.Tensor, error) {
		var out []frame.Tensor
		for i := range ts {
			t := &ts[i]
			n, err := t.Bytes()
			if err != nil {
				return nil, err
			}
			room, err := c.Room(input, i)
			if err != nil {
				return nil, err
			}
			x := frame.Tensor{Name: t.Name, DType: t.DType.String(), Bytes: n, Room: room, Scale: t.Quant.Scales, Zero: t.Quant.Zeros, Shape: []int{}}
			for _, d := range t.Shape {
				x.Shape = append(x.Shape, int(d))
			}
			out = append(out, x)
		}
		return out, nil
	}
	var err error
	if m.Inputs, err = list(true, c.Inputs); err != nil {
		return nil, err
	}
	m.Outputs, err = list(false, c.Outputs)
	return m, err
}

// memory receives the frames.
func memory(m *frame.Model) ([]byte, error) {
	l, err := frame.NewLayout(m)
	if err != nil {
		return nil, err
	}
	fd, err := receive()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, l.Bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map frames: %w", err)
	}
	unix.Close(fd)
	return mem, nil
}

// bind binds the model to each frame.
func bind(c *litert.Compiled, m *frame.Model, mem []byte) ([]*litert.Set, error) {
	l, err := frame.NewLayout(m)
	if err != nil {
		return nil, err
	}
	var sets []*litert.Set
	for f := range frame.Frames {
		in, out := l.Split(mem, f)
		s, err := c.Bind(in, out)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// receive waits for the Memory message with its descriptor.
func receive() (int, error) {
	b, oob := make([]byte, frame.Size), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(frame.ControlFD, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("receive frames: %w", err)
	}
	m, _, err := frame.Decode(b[:n])
	if err != nil || m.Kind != frame.Memory {
		return 0, errors.New("receive frames: another message came")
	}
	cs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cs) != 1 {
		return 0, errors.New("receive frames: no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&cs[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.New("receive frames: no descriptor came")
	}
	return fds[0], nil
}

func send(m frame.Message, text []byte) error {
	_, err := unix.Write(frame.ControlFD, append(m.Encode(), text...))
	return err
}

// beat tells that the process lives while the runtime is busy, and ends it when
// nobody listens any more.
func beat() {
	for range time.Tick(heartbeat) {
		if send(frame.Message{Kind: frame.Heartbeat}, nil) != nil {
			os.Exit(0)
		}
	}
}

// serve runs one request after the other until the agent closes the pipe.
func serve(c *litert.Compiled, sets []*litert.Set) error {
	in := make([]byte, frame.Size)
	var out [frame.Size]byte
	for {
		n, err := unix.Read(frame.RequestFD, in)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil
		}
		m, _, err := frame.Decode(in[:n])
		if err != nil || m.Kind != frame.Run || int(m.Frame) >= len(sets) {
			return errors.New("a message that is no request")
		}
		began := time.Now()
		r := frame.Message{Kind: frame.Done, Frame: m.Frame, Sequence: m.Sequence}
		if err := c.Run(sets[m.Frame]); err != nil {
			fmt.Fprintln(os.Stderr, "dunlin-infer:", err)
			r.Status = status(err)
		}
		r.Micros = uint64(time.Since(began).Microseconds())
		r.Put(&out)
		if _, err := unix.Write(frame.AnswerFD+int(m.Frame), out[:]); err != nil {
			return nil
		}
	}
}

func status(err error) int32 {
	var e *litert.Error
	if errors.As(err, &e) {
		return int32(e.Status)
	}
	return -1
}
