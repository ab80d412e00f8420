package infer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Death is why a worker is gone.
type Death struct {
	Reason string // "crash", "signal", "out_of_memory", "deadline", "start", "stopped"
	Detail string
	Words  string // the last of its standard error
}

// Error implements error.
func (d *Death) Error() string {
	s := "the worker is gone (" + d.Reason + "): " + d.Detail
	for line := range strings.Lines(d.Words) {
		// The runtime chats at the start.
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "INFO:") && !strings.HasPrefix(line, "WARNING:") {
			return s + ": " + line
		}
	}
	return s
}

const (
	startTimeout = 15 * time.Second // spawn to first result
	runTimeout   = 10 * time.Second // of one run, at most
	minTimeout   = 2 * time.Second  // of one run, at least: the processor may be busy
	overBudget   = 50               // times its latency budget is a hang
	silence      = 20 * time.Second // without a heartbeat
	stopTimeout  = 2 * time.Second
	maxWords     = 8 << 10
	workerFiles  = 64
)

// worker is one process.
type worker struct {
	cmd     *exec.Cmd
	conn    *net.UnixConn
	model   *frame.Model
	mem     []byte
	layout  *frame.Layout
	free    chan int // frames that nobody uses
	born    time.Time
	started time.Duration // spawn to first result
	timeout time.Duration // of one run
	words   *tail

	dead  chan struct{} // closed when the process is gone
	death *Death        // set before dead is closed

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan frame.Message
	blame   *Death // why it was killed
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p)
	if over := t.b.Len() - maxWords; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// spawn starts a worker for a slot and returns when it has run once. With build
// set, it may write the cache of packed weights. A cache that keeps the worker
// from starting is dropped: it only saves time.
func (s *Server) spawn(ctx context.Context, slot Slot, build bool) (*worker, error) {
	cache := s.cache(slot, build)
	if cache != nil {
		defer cache.Close()
	}
	w, err := s.launch(ctx, slot, cache)
	var d *Death
	if cache != nil && errors.As(err, &d) && ctx.Err() == nil {
		s.c.Log.Warn("packed weights are dropped", "model", slot.Key.Model, "err", err)
		s.dropCache(s.cachePath(slot))
		return s.launch(ctx, slot, nil)
	}
	return w, err
}

func (s *Server) launch(ctx context.Context, slot Slot, cache *os.File) (*worker, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w, err := s.exec(slot, cache)
	if err != nil {
		return nil, err
	}
	if err := w.handshake(ctx); err != nil {
		d := &Death{Reason: "start", Detail: err.Error()}
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			d = &Death{Reason: "deadline", Detail: fmt.Sprintf("it did not come to its first result within %v", startTimeout)}
		}
		if !errors.Is(err, errEnded) {
			w.kill(d)
		}
		<-w.dead
		if w.mem != nil {
			unix.Munmap(w.mem)
		}
		return nil, w.death
	}
	w.started = time.Since(w.born)
	return w, nil
}

// errEnded says that the process closed its socket: how it ended says why.
var errEnded = errors.New("it ended while it was starting")

// exec starts the process with its descriptors.
func (s *Server) exec(slot Slot, cache *os.File) (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	model, err := os.Open(filepath.Join(slot.Dir, filepath.FromSlash(slot.Contract.File)))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	defer model.Close()
	st, err := model.Stat()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	args := []string{"-lib", slot.Library, "-threads", fmt.Sprint(s.c.Threads)}
	files := []*os.File{theirs, model}
	if cache != nil {
		args, files = append(args, "-cache"), append(files, cache)
	}
	b := slot.Contract.BudgetFor(s.c.Class)
	w := &worker{born: time.Now(), conn: conn, timeout: timeoutOf(b), words: &tail{}, dead: make(chan struct{}), waiting: map[uint64]chan frame.Message{}, free: make(chan int, frame.Frames)}
	limits := sandbox.Limits{DataMB: dataLimit(b, st.Size()), Files: workerFiles}
	start := func(name string, args ...string) error {
		w.cmd = exec.Command(name, args...)
		w.cmd.ExtraFiles, w.cmd.Stderr = files, w.words
		w.cmd.SysProcAttr, w.cmd.Env = &syscall.SysProcAttr{Setpgid: true}, sandbox.Environment()
		return w.cmd.Start()
	}
	err = start(s.c.Launcher, sandbox.Arguments(limits, s.c.Worker, args...)...)
	if errors.Is(err, syscall.ENOEXEC) {
		// An emulated agent cannot start itself again: the limits are set from
		// outside, the other layers are missing, and Posture says so.
		s.fallback.Store(true)
		if err = start(s.c.Worker, args...); err == nil {
			err = w.limit(limits)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	go w.wait()
	return w, nil
}

// limit bounds a worker from outside, or ends it.
func (w *worker) limit(l sandbox.Limits) error {
	err := sandbox.Limit(w.cmd.Process.Pid, l)
	if err != nil {
		w.cmd.Process.Kill()
		w.cmd.Wait()
	}
	return err
}

// timeoutOf is how long one run may take before the worker counts as hanging.
func timeoutOf(b bundle.Budget) time.Duration {
	if b.LatencyP95US == 0 {
		return runTimeout
	}
	return min(max(overBudget*time.Duration(b.LatencyP95US)*time.Microsecond, minTimeout), runTimeout)
}

// dataLimit is the memory in MB that a worker may have: generous above the
// budget, because the budget is judged and this limit kills.
func dataLimit(b bundle.Budget, model int64) int {
	if b.PeakMemoryKB > 0 {
		return int(b.PeakMemoryKB>>10)*4 + 256
	}
	return int(model>>20)*4 + 1024
}

func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// handshake learns the tensors, lays out and sends the frames and waits for the
// first run.
func (w *worker) handshake(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok {
		w.conn.SetReadDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, text, err := w.receive(frame.Tensors)
	if err != nil {
		return err
	}
	w.model = new(frame.Model)
	if err := json.Unmarshal(text, w.model); err != nil {
		return fmt.Errorf("tensors: %w", err)
	}
	if err := w.frames(); err != nil {
		return err
	}
	if _, _, err := w.receive(frame.Ready); err != nil {
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	for f := range frame.Frames {
		w.free <- f
	}
	go w.read()
	return nil
}

func (w *worker) receive(want frame.Kind) (frame.Message, []byte, error) {
	b := make([]byte, frame.Size+frame.MaxText)
	for {
		n, err := w.conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return frame.Message{}, nil, err
		}
		if err != nil || n == 0 {
			return frame.Message{}, nil, errEnded
		}
		m, text, err := frame.Decode(b[:n])
		switch {
		case err != nil:
			return m, nil, err
		case m.Kind == frame.Heartbeat:
		case m.Kind == frame.Failed:
			return m, nil, errors.New(string(text))
		case m.Kind != want:
			return m, nil, fmt.Errorf("message %d came, %d was expected", m.Kind, want)
		default:
			return m, text, nil
		}
	}
}

// frames makes the shared memory, seals its size and sends it.
func (w *worker) frames() error {
	var err error
	if w.layout, err = frame.NewLayout(w.model); err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("dunlin-frames", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("frames: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(w.layout.Bytes)); err != nil {
		return fmt.Errorf("frames: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("frames: %w", err)
	}
	if w.mem, err = unix.Mmap(fd, 0, w.layout.Bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("frames: %w", err)
	}
	_, _, err = w.conn.WriteMsgUnix(frame.Message{Kind: frame.Memory}.Encode(), unix.UnixRights(fd), nil)
	return err
}

// read hands answers to those who wait and kills a worker that has gone silent.
func (w *worker) read() {
	b := make([]byte, frame.Size+frame.MaxText)
	for {
		w.conn.SetReadDeadline(time.Now().Add(silence))
		n, err := w.conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.kill(&Death{Reason: "deadline", Detail: fmt.Sprintf("no sign of life for %v", silence)})
			return
		}
		if err != nil || n == 0 {
			return
		}
		m, _, err := frame.Decode(b[:n])
		if err != nil || m.Kind != frame.Done {
			continue
		}
		w.mu.Lock()
		c := w.waiting[m.Sequence]
		delete(w.waiting, m.Sequence)
		w.mu.Unlock()
		if c != nil {
			c <- m
		}
	}
}

// wait names the reason of the process's end.
func (w *worker) wait() {
	err := w.cmd.Wait()
	w.mu.Lock()
	d := w.blame
	w.mu.Unlock()
	if d == nil {
		d = reason(w.cmd.ProcessState, err)
	}
	d.Words = strings.TrimSpace(w.words.String())
	w.death = d
	close(w.dead)
	w.conn.Close()
}

// reason reads how a process ended. A crash in C ends a Go program with exit code
// 2 and a dump, not with a signal.
func reason(p *os.ProcessState, err error) *Death {
	ws, ok := p.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return &Death{Reason: "out_of_memory", Detail: "killed from outside, most likely for want of memory"}
	case ok && ws.Signaled():
		return &Death{Reason: "signal", Detail: ws.Signal().String()}
	case p.ExitCode() == 2:
		return &Death{Reason: "crash", Detail: "the runtime crashed"}
	case p.ExitCode() == 126:
		return &Death{Reason: "start", Detail: "the sandbox could not be made"}
	case err != nil:
		return &Death{Reason: "start", Detail: err.Error()}
	}
	return &Death{Reason: "stopped", Detail: "it ended"}
}

// kill ends the process and keeps why.
func (w *worker) kill(d *Death) {
	w.mu.Lock()
	if w.blame == nil {
		w.blame = d
	}
	w.mu.Unlock()
	w.cmd.Process.Kill() // gone already: then wait has its reason
}

// stop asks the process to end by closing its socket, then makes it.
func (w *worker) stop() {
	w.mu.Lock()
	if w.blame == nil {
		w.blame = &Death{Reason: "stopped", Detail: "it was replaced"}
	}
	w.mu.Unlock()
	w.conn.Close()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-w.dead:
	case <-timer.C:
		w.cmd.Process.Kill()
		<-w.dead
	}
	w.unmap()
}

// unmap gives the frames back once nobody can touch them.
func (w *worker) unmap() {
	for range frame.Frames {
		<-w.free
	}
	unix.Munmap(w.mem)
}

// result is what one run gave.
type result struct {
	outputs [][]byte      // copies
	took    time.Duration // of the run alone, without waiting
}

// run fills a frame, has it run and copies the outputs. A worker that takes too
// long is killed; a *Death says that the request may be tried elsewhere.
func (w *worker) run(ctx context.Context, inputs [][]byte) (result, error) {
	if err := w.fits(inputs); err != nil {
		return result{}, err
	}
	f := -1
	select {
	case f = <-w.free:
	case <-w.dead:
		return result{}, w.death
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
	defer func() { w.free <- f }()
	in, out := w.layout.Split(w.mem, f)
	for i := range in {
		copy(in[i], inputs[i])
	}
	m, err := w.request(f)
	if err != nil {
		return result{}, err
	}
	if m.Status != 0 {
		return result{}, fmt.Errorf("the runtime refused to run: status %d", m.Status)
	}
	r := result{outputs: make([][]byte, len(out)), took: time.Duration(min(m.Micros, uint64(startTimeout/time.Microsecond))) * time.Microsecond}
	for i := range out {
		r.outputs[i] = bytes.Clone(out[i][:w.model.Outputs[i].Bytes])
	}
	return r, nil
}

func (w *worker) fits(inputs [][]byte) error {
	if len(inputs) != len(w.model.Inputs) {
		return fmt.Errorf("%d inputs, the model has %d: %w", len(inputs), len(w.model.Inputs), ErrInputs)
	}
	for i, t := range w.model.Inputs {
		if len(inputs[i]) != t.Bytes {
			return fmt.Errorf("input %q has %d bytes, the tensor %d: %w", t.Name, len(inputs[i]), t.Bytes, ErrInputs)
		}
	}
	return nil
}

// request sends one run and waits for its end. It does not end with a caller's
// context: the frame is the worker's until it has answered or is dead.
func (w *worker) request(f int) (frame.Message, error) {
	c := make(chan frame.Message, 1)
	w.mu.Lock()
	w.next++
	seq := w.next
	w.waiting[seq] = c
	w.mu.Unlock()
	if _, err := w.conn.Write(frame.Message{Kind: frame.Run, Frame: uint32(f), Sequence: seq}.Encode()); err != nil {
		// The process has closed its end: it is dying, and its end says why.
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-w.dead:
		case <-timer.C:
			w.kill(&Death{Reason: "crash", Detail: "its socket is closed"})
			<-w.dead
		}
		return frame.Message{}, w.death
	}
	timer := time.NewTimer(w.timeout)
	defer timer.Stop()
	select {
	case m := <-c:
		return m, nil
	case <-w.dead:
	case <-timer.C:
		w.kill(&Death{Reason: "deadline", Detail: fmt.Sprintf("a run took longer than %v", w.timeout)})
		<-w.dead
	}
	return frame.Message{}, w.death
}
