package infer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
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
