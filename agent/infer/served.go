package infer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/vitals"
	"github.com/dunlin-edge/dunlin/agent/observe"
)

// served is a slot with its workers, which are replaced when they die or leak. Each
// worker has a seat, and only the seat's goroutine starts, replaces and ends it.
type served struct {
	s        *Server
	slot     Slot
	plan     *observe.Plan
	requests sync.WaitGroup // under way
	answered atomic.Uint64
	pool     *pool
	leaving  chan struct{} // closed when another slot has taken over
	stop     context.CancelFunc
	seats    sync.WaitGroup

	mu       sync.Mutex
	workers  []*worker // by seat; nil while there is none
	restarts int
	recycled int
	words    string
	loop     vitals.Loop
}

// errLeft tells that a request found no worker and another slot has taken over.
var errLeft = errors.New("the slot serves no more")

func (s *Server) newServed(slot Slot, first *worker) *served {
	v := &served{s: s, slot: slot, plan: observe.NewPlan(slot.Contract), pool: first.pool, leaving: make(chan struct{}), workers: make([]*worker, s.workers(slot))}
	v.workers[0] = first
	return v
}

// begin takes care of every seat until retire.
func (v *served) begin() {
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	for seat, w := range v.workers {
		v.seats.Go(func() { v.attend(ctx, seat, w) })
	}
}

// alive tells whether a worker lives.
func (v *served) alive() bool { return v.status().PID != 0 }

// status has PID zero while there is no worker.
func (v *served) status() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := Status{Model: v.slot.Key.Model, Restarts: v.restarts, Recycled: v.recycled, LastWords: v.words, Answered: v.answered.Load()}
	for _, w := range v.workers {
		if w != nil {
			st.PIDs = append(st.PIDs, w.cmd.Process.Pid)
			st.KB += w.kb.Load()
		}
	}
	if len(st.PIDs) > 0 {
		st.PID = st.PIDs[0]
	}
	return st
}

func (v *served) sit(seat int, w *worker) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.workers[seat] = w
}

const (
	restartMin = 50 * time.Millisecond // the pause before a worker that died is replaced
	restartMax = 30 * time.Second      // its bound when workers die without having done anything
	lived      = time.Minute           // after which a death is a new story
	worked     = 20                    // answers after which it is one as well
)

// attend keeps a worker in the seat until ctx ends. w is nil for a seat that has
// none yet.
func (v *served) attend(ctx context.Context, seat int, w *worker) {
	var pause time.Duration
	for {
		if w == nil {
			if w = v.start(ctx, &pause); w == nil {
				return
			}
			v.sit(seat, w)
		}
		switch v.watch(ctx, w) {
		case ended:
			w.stop()
			return
		case died:
			v.mourn(seat, w)
			if w.answered.Load() >= worked || time.Since(w.born) > lived || pause == 0 {
				pause = restartMin
			}
			w = nil
		case leaks:
			w = v.recycle(ctx, seat, w)
		}
	}
}

// fate is why the watch over a worker ended.
type fate int

const (
	ended fate = iota // the slot is to stop
	died
	leaks
)

// watch returns when a worker needs something. One that carries state is not
// replaced for its memory alone: its state would be lost.
func (v *served) watch(ctx context.Context, w *worker) fate {
	tick := time.NewTicker(v.s.look)
	defer tick.Stop()
	l := vitals.NewLeak(w.limitMB)
	for {
		select {
		case <-ctx.Done():
			return ended
		case <-w.dead:
			return died
		case <-tick.C:
			kb := v.s.private(w.cmd.Process.Pid)
			w.kb.Store(kb)
			v.s.c.Monitor.Memory(v.slot.Key, v.status().KB)
			if l.Grew(kb) && !v.slot.Contract.Carries() {
				v.s.c.Log.Warn("worker leaks", "model", v.slot.Key.Model, "version", v.slot.Version, "kb", kb, "began_kb", l.Base())
				return leaks
			}
		}
	}
}

// blame counts a death, or a start that did not succeed, against the slot.
func (v *served) blame(d *Death) {
	v.mu.Lock()
	looping := !d.blameless() && v.loop.Death(time.Now())
	v.mu.Unlock()
	if looping && v.s.c.Looping != nil {
		v.s.c.Looping(v.slot, d)
	}
}

// mourn takes a dead worker out of service.
func (v *served) mourn(seat int, w *worker) {
	w.release()
	v.mu.Lock()
	v.workers[seat] = nil
	v.restarts++
	v.words = w.death.Error()
	v.mu.Unlock()
	v.s.c.Monitor.Crashed(v.slot.Key)
	v.s.c.Log.Warn("worker died", "model", v.slot.Key.Model, "version", v.slot.Version, "reason", w.death.Reason, "err", w.death)
	v.blame(w.death)
}

// recycle replaces a worker that leaks, without a moment in which none serves. If
// no other starts, the old one stays.
func (v *served) recycle(ctx context.Context, seat int, old *worker) *worker {
	w, err := v.s.spawn(ctx, v.slot, false, v.pool)
	if err != nil {
		if ctx.Err() == nil {
			v.s.c.Log.Warn("worker does not start", "model", v.slot.Key.Model, "err", err)
		}
		return old
	}
	v.mu.Lock()
	v.workers[seat] = w
	v.recycled++
	v.mu.Unlock()
	old.stop()
	return w
}

// start starts a worker after a jittered pause, as often as it takes. It returns
// nil when ctx ends.
func (v *served) start(ctx context.Context, pause *time.Duration) *worker {
	for {
		if !sleep(ctx, *pause/2+rand.N(*pause+1)) {
			return nil
		}
		*pause = min(max(2**pause, restartMin), restartMax)
		w, err := v.s.spawn(ctx, v.slot, false, v.pool)
		if err == nil {
			return w
		}
		if ctx.Err() == nil {
			v.s.c.Log.Warn("worker does not start", "model", v.slot.Key.Model, "err", err)
			var d *Death
			if errors.As(err, &d) {
				v.blame(d)
			}
		}
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// retire ends the workers after the requests under way. Those that wait for a
// worker go to the slot that has taken over.
func (v *served) retire() {
	close(v.leaving)
	v.requests.Wait()
	v.stop()
	v.seats.Wait()
}

// run waits for a frame and runs on it. The wait is bounded by ctx.
func (v *served) run(ctx context.Context, inputs [][]byte) (result, error) {
	for {
		select {
		case t := <-v.pool.free:
			if t.enter() {
				defer t.leave()
				return t.run(inputs)
			}
		case <-v.leaving:
			// Who has taken over answers, unless a worker of ours is free.
			select {
			case t := <-v.pool.free:
				if t.enter() {
					defer t.leave()
					return t.run(inputs)
				}
			default:
				return result{}, errLeft
			}
		case <-ctx.Done():
			return result{}, ctx.Err()
		}
	}
}

// try runs a request, once more when its worker died under it, unless the model
// carries state. A worker that somebody else has ended does not count: no request
// can be the reason.
func (v *served) try(ctx context.Context, inputs [][]byte) (result, error) {
	for again := false; ; {
		r, err := v.run(ctx, inputs)
		var dead *Death
		if !errors.As(err, &dead) || ctx.Err() != nil {
			return r, err
		}
		if errors.Is(err, errUnsent) {
			continue
		}
		if v.slot.Contract.Carries() {
			return r, fmt.Errorf("%w: %w", ErrReset, err)
		}
		if again && !dead.blameless() {
			return r, err
		}
		again = again || !dead.blameless()
	}
}
