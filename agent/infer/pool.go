package infer

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
)

// pool is where the frames of a slot's workers lie that nobody uses.
type pool struct {
	free chan ticket
	mu   sync.Mutex
}

// newPool has room for so many workers and for as many that replace them.
func newPool(workers int) *pool {
	return &pool{free: make(chan ticket, 2*workers*frame.Frames)}
}

// drop removes a worker's frames.
func (p *pool) drop(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range len(p.free) {
		select {
		case t := <-p.free:
			if t.w != w {
				p.free <- t
			}
		default:
		}
	}
}

// ticket is the right to use one frame of a worker.
type ticket struct {
	w     *worker
	frame int
}

// enter tells whether the frame may be used; leave follows if so.
func (t ticket) enter() bool {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.gone {
		return false
	}
	t.w.users.Add(1)
	return true
}

// leave gives the frame to the next.
func (t ticket) leave() {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if !t.w.gone {
		t.w.pool.free <- t
	}
	t.w.users.Done()
}

// result is what one run gave.
type result struct {
	outputs [][]byte      // copies
	took    time.Duration // of the run alone, without waiting
}

// run fills the frame, has it run and copies the outputs. A worker that takes too
// long is killed; a *Death says that the request may be tried elsewhere. It does
// not end with a caller's context: the frame is the worker's until it has answered
// or is dead.
func (t ticket) run(inputs [][]byte) (result, error) {
	w := t.w
	if err := w.fits(inputs); err != nil {
		return result{}, err
	}
	in, out := w.layout.Split(w.mem, t.frame)
	for i := range in {
		copy(in[i], inputs[i])
	}
	m, err := t.request()
	if err != nil {
		return result{}, err
	}
	if m.Status != 0 {
		return result{}, fmt.Errorf("the runtime refused to run: status %d", m.Status)
	}
	w.answered.Add(1)
	r := result{outputs: make([][]byte, len(out)), took: time.Duration(min(m.Micros, uint64(startTimeout/time.Microsecond))) * time.Microsecond}
	for i := range out {
		r.outputs[i] = bytes.Clone(out[i][:w.model.Outputs[i].Bytes])
	}
	return r, nil
}

// request sends one run and waits for its end.
func (t ticket) request() (frame.Message, error) {
	w := t.w
	late := time.AfterFunc(w.timeout, func() {
		w.kill(&Death{Reason: reasonDeadline, Detail: fmt.Sprintf("a run took longer than %v", w.timeout)})
	})
	defer late.Stop()
	m, err := w.lanes.round(frame.Message{Kind: frame.Run, Frame: uint32(t.frame), Sequence: w.sequence.Add(1)})
	if err == nil {
		return m, nil
	}
	if errors.Is(err, errAnswer) {
		w.kill(&Death{Reason: reasonOutput, Detail: err.Error()})
	}
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	w.end() // how it ends says why
	if errors.Is(err, errUnsent) {
		return frame.Message{}, fmt.Errorf("%w: %w", errUnsent, w.death)
	}
	return frame.Message{}, w.death
}
