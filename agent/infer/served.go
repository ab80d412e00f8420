package infer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// served is a slot with its worker, which is replaced when it dies. Only supervise
// starts, replaces and ends workers.
type served struct {
	s        *Server
	slot     Slot
	requests sync.WaitGroup // under way
	answered atomic.Uint64
	leaving  chan struct{} // closed when another slot has taken over
	stop     chan struct{} // closed when the last request is done
	finished chan struct{} // closed when supervise has returned

	mu       sync.Mutex
	w        *worker       // nil while there is none
	changed  chan struct{} // closed when w changes
	restarts int
	words    string
}

// errLeft tells that a request found no worker and another slot has taken over.
var errLeft = errors.New("the slot serves no more")

func (s *Server) newServed(slot Slot, w *worker) *served {
	return &served{
		s: s, slot: slot, w: w, changed: make(chan struct{}),
		leaving: make(chan struct{}), stop: make(chan struct{}), finished: make(chan struct{}),
	}
}

func (v *served) set(w *worker) {
	v.mu.Lock()
	v.w = w
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
}

func (v *served) worker() (*worker, chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.w, v.changed
}

// status is PID zero while there is no worker.
func (v *served) status() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := Status{Model: v.slot.Key.Model, Restarts: v.restarts, LastWords: v.words, Answered: v.answered.Load()}
	if v.w != nil {
		st.PID = v.w.cmd.Process.Pid
	}
	return st
}

const (
	restartMin = 50 * time.Millisecond // the pause before a worker that died is replaced
	restartMax = 30 * time.Second      // its bound when workers keep dying
	lived      = time.Minute           // after which a death is a new story
)

// supervise replaces the worker until the slot is told to stop.
func (v *served) supervise() {
	defer close(v.finished)
	pause := restartMin
	for w, _ := v.worker(); w != nil; w = v.replace(&pause) {
		select {
		case <-v.stop:
			w.stop()
			return
		case <-w.dead:
		}
		v.mourn(w)
		if time.Since(w.born) > lived {
			pause = restartMin
		}
	}
}

// mourn takes a dead worker out of service.
func (v *served) mourn(w *worker) {
	v.mu.Lock()
	v.restarts++
	v.words = w.death.Error()
	v.mu.Unlock()
	v.set(nil)
	w.unmap()
	v.s.c.Monitor.Crashed(v.slot.Key)
	v.s.c.Log.Warn("worker died", "model", v.slot.Key.Model, "version", v.slot.Version, "reason", w.death.Reason, "words", w.death.Words)
}

// replace starts another worker after a jittered pause, as often as it takes. It
// returns nil when the slot is to stop.
func (v *served) replace(pause *time.Duration) *worker {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		select {
		case <-v.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		timer := time.NewTimer(*pause/2 + rand.N(*pause))
		*pause = min(2**pause, restartMax)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		w, err := v.s.spawn(ctx, v.slot, false)
		if err == nil {
			v.set(w)
			return w
		}
		if ctx.Err() == nil {
			v.s.c.Log.Warn("worker does not start", "model", v.slot.Key.Model, "err", err)
		}
	}
}

// retire ends the worker after the requests under way. Those that wait for a
// worker go to the slot that has taken over.
func (v *served) retire() {
	close(v.leaving)
	v.requests.Wait()
	close(v.stop)
	<-v.finished
}

// run waits for a worker and runs it. The wait is bounded by ctx.
func (v *served) run(ctx context.Context, inputs [][]byte) (result, error) {
	for {
		w, changed := v.worker()
		if w != nil {
			select {
			case <-w.dead: // not yet replaced
			default:
				return w.run(ctx, inputs)
			}
		}
		select {
		case <-changed:
		case <-v.leaving:
			return result{}, errLeft
		case <-ctx.Done():
			return result{}, ctx.Err()
		}
	}
}

// try runs a request, once more when its worker died under it, unless the model
// carries state.
func (v *served) try(ctx context.Context, inputs [][]byte) (result, error) {
	r, err := v.run(ctx, inputs)
	var dead *Death
	if !errors.As(err, &dead) || ctx.Err() != nil {
		return r, err
	}
	if v.slot.Contract.Carries() {
		return r, fmt.Errorf("%w: %w", ErrReset, err)
	}
	return v.run(ctx, inputs)
}
