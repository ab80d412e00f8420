package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// spawn starts a worker for a slot and returns when it has run once. With build
// set, it may write the cache of packed weights. A cache that keeps the worker
// from starting is dropped: it only saves time.
func (s *Server) spawn(ctx context.Context, slot Slot, build bool, p *pool) (*worker, error) {
	cache := s.cache(slot, build)
	if cache != nil {
		defer cache.Close()
	}
	w, err := s.launch(ctx, slot, cache, p)
	var d *Death
	if cache != nil && errors.As(err, &d) && ctx.Err() == nil {
		s.c.Log.Warn("packed weights are dropped", "model", slot.Key.Model, "err", err)
		s.dropCache(s.cachePath(slot))
		return s.launch(ctx, slot, nil, p)
	}
	return w, err
}

func (s *Server) launch(ctx context.Context, slot Slot, cache *os.File, p *pool) (*worker, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w, err := s.exec(slot, cache)
	if err != nil {
		return nil, err
	}
	w.pool = p
	if err := w.handshake(ctx); err != nil {
		d := &Death{Reason: reasonStart, Detail: err.Error()}
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			d = &Death{Reason: reasonDeadline, Detail: fmt.Sprintf("it did not come to its first result within %v", startTimeout)}
		}
		if !errors.Is(err, errEnded) {
			w.kill(d)
		}
		<-w.dead
		w.release()
		return nil, w.death
	}
	w.started = time.Since(w.born)
	return w, nil
}

// errEnded says that the process closed its socket: how it ended says why.
var errEnded = errors.New("it ended while it was starting")

// exec starts the process with its descriptors.
func (s *Server) exec(slot Slot, cache *os.File) (*worker, error) {
	w := &worker{born: time.Now(), words: &tail{}, oom: oomKills(), dead: make(chan struct{})}
	theirs, size, err := w.open(filepath.Join(slot.Dir, filepath.FromSlash(slot.Contract.File)), slot.Library)
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	defer closeAll(theirs)
	args, files := []string{"-lib", fmt.Sprintf("/proc/self/fd/%d", frame.LibraryFD)}, theirs
	args = append(args, s.arguments(slot)...)
	if cache != nil {
		args, files = append(args, "-cache"), append(files, cache)
	}
	b := slot.Contract.BudgetFor(s.c.Class)
	w.timeout, w.limitMB = timeoutOf(b), dataLimit(b, size)
	limits := sandbox.Limits{DataMB: w.limitMB, Files: workerFiles, Threads: workerThreads + s.threads(slot)}
	if cache != nil {
		limits.FileMB = int(size>>20)*4 + 64
	}
	if w.cell, err = s.host.Cell(limits, frame.LibraryFD); err != nil {
		w.conn.Close()
		w.lanes.close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	start := func(name string, args ...string) error {
		w.cmd = exec.Command(name, args...)
		w.cmd.ExtraFiles, w.cmd.Stderr = files, w.words
		w.cmd.SysProcAttr, w.cmd.Env = &syscall.SysProcAttr{Setpgid: true}, sandbox.Environment()
		return w.cmd.Start()
	}
	err = start(s.c.Launcher, w.cell.Arguments(s.c.Worker, args...)...)
	if errors.Is(err, syscall.ENOEXEC) {
		// An emulated agent cannot start itself again: the limits are set from
		// outside, the other layers are missing, and Posture says so.
		s.fallback.Store(true)
		if err = start(s.c.Worker, args...); err == nil {
			err = w.limit(limits)
		}
	}
	if err != nil {
		w.cell.Close()
		w.conn.Close()
		w.lanes.close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	go w.wait()
	return w, nil
}

// open makes the descriptors of a worker: it keeps ours and returns the process's,
// in their order, with the size of the model.
func (w *worker) open(file, library string) (theirs []*os.File, size int64, err error) {
	model, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	// Nobody waits here for what is no file.
	lib, err := os.OpenFile(library, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		model.Close()
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			lib.Close()
		}
	}()
	st, err := model.Stat()
	if err != nil {
		model.Close()
		return nil, 0, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		model.Close()
		return nil, 0, err
	}
	theirs = []*os.File{os.NewFile(uintptr(pair[1]), "control"), model}
	if w.conn, err = unixConn(pair[0]); err != nil {
		closeAll(theirs)
		return nil, 0, err
	}
	lanes, ends, err := newLanes()
	if err != nil {
		closeAll(theirs)
		w.conn.Close()
		return nil, 0, err
	}
	w.lanes = lanes
	return append(append(theirs, ends...), lib), st.Size(), nil
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
		w.pool.free <- ticket{w, f}
	}
	go w.listen()
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
