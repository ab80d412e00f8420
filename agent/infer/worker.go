package infer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

const (
	startTimeout = 15 * time.Second // spawn to first result
	runTimeout   = 10 * time.Second // of one run, at most
	minTimeout   = 2 * time.Second  // of one run, at least: the processor may be busy
	overBudget   = 50               // times its latency budget is a hang
	silence      = 20 * time.Second // without a heartbeat
	stopTimeout  = 2 * time.Second
	workerFiles  = 64
	// of Go's and the runtime's own, beyond those that the model asks for
	workerThreads = 32
)

// worker is one process.
type worker struct {
	cmd     *exec.Cmd
	cell    *sandbox.Cell
	conn    *net.UnixConn
	lanes   *lanes
	model   *frame.Model
	mem     []byte
	layout  *frame.Layout
	pool    *pool // where frames that nobody uses lie
	born    time.Time
	started time.Duration // spawn to first result
	timeout time.Duration // of one run
	limitMB int           // of memory, that kills
	words   *tail
	oom     uint64 // oomKills at its start

	sequence atomic.Uint64
	answered atomic.Uint64
	kb       atomic.Int64 // private memory when last looked at

	dead  chan struct{} // closed when the process is gone
	death *Death        // set before dead is closed

	mu    sync.Mutex
	gone  bool           // no frame may be used any more
	users sync.WaitGroup // of frames; grows only while not gone
	blame *Death         // why it was killed
}

// withdraw takes the worker's frames out of use and waits for those who have one.
func (w *worker) withdraw() {
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	w.pool.drop(w)
	w.users.Wait()
}

// listen follows the worker's signs of life and kills one that has gone silent.
func (w *worker) listen() {
	b := make([]byte, frame.Size+frame.MaxText)
	for {
		w.conn.SetReadDeadline(time.Now().Add(silence))
		n, err := w.conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.kill(&Death{Reason: reasonDeadline, Detail: fmt.Sprintf("no sign of life for %v", silence)})
			return
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// wait names the reason of the process's end.
func (w *worker) wait() {
	w.cmd.Wait() // what it returns stands in ProcessState
	w.cell.Close()
	words := strings.TrimSpace(w.words.String())
	w.mu.Lock()
	d := w.blame
	w.mu.Unlock()
	if d == nil {
		d = reason(w.cmd.ProcessState, words, oomKills() > w.oom)
	}
	d.Words = words
	w.death = d
	close(w.dead)
	w.conn.Close()
}

// kill ends the process, by its pidfd where the kernel has them, and keeps why.
func (w *worker) kill(d *Death) {
	w.mu.Lock()
	if w.blame == nil {
		w.blame = d
	}
	w.mu.Unlock()
	w.cmd.Process.Kill() // gone already: then wait has its reason
}

// stop lets the runs under way end, asks the process to end and then makes it.
func (w *worker) stop() {
	w.withdraw()
	w.mu.Lock()
	if w.blame == nil {
		w.blame = &Death{Reason: reasonStopped, Detail: "it was replaced"}
	}
	w.mu.Unlock()
	w.lanes.finish()
	w.end()
	w.release()
}

// end waits for the process to go, and kills it when it does not.
func (w *worker) end() {
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-w.dead:
	case <-timer.C:
		w.kill(&Death{Reason: reasonCrash, Detail: "its pipe is closed but it does not end"})
		<-w.dead
	}
}

// release gives memory and pipes of a dead worker back once nobody uses them.
func (w *worker) release() {
	w.withdraw()
	w.lanes.close()
	if w.mem != nil {
		unix.Munmap(w.mem)
	}
}

// run waits for a frame of this worker and runs on it.
func (w *worker) run(ctx context.Context, inputs [][]byte) (result, error) {
	select {
	case t := <-w.pool.free:
		if !t.enter() {
			<-w.dead
			return result{}, w.death
		}
		defer t.leave()
		return t.run(inputs)
	case <-w.dead:
		return result{}, w.death
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
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
