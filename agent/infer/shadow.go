package infer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/judge"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// shadowQueue is how many requests wait for the candidate's worker; more are dropped.
const shadowQueue = 4

// copied is a live request with its answer.
type copied struct {
	inputs [][]byte
	answer judge.Answer
	live   *bundle.Contract // of the slot that answered
}

// shadow takes copies of a model's live requests. Who offers one never waits.
type shadow struct {
	every   float64 // requests to one that is chosen
	seen    atomic.Uint64
	dropped atomic.Uint64
	queue   chan copied
}

// offer copies a live request that has its answer already, if it is its turn and
// there is room. Nothing is copied without room.
func (h *shadow) offer(v *served, inputs [][]byte, r result) {
	n := float64(h.seen.Add(1))
	if uint64(n/h.every) == uint64((n-1)/h.every) {
		return
	}
	if len(h.queue) == cap(h.queue) {
		h.dropped.Add(1)
		return
	}
	select {
	case h.queue <- copied{clone(inputs), judge.Answer{Outputs: clone(r.outputs), Took: r.took}, v.slot.Contract}:
	default: // others were faster
		h.dropped.Add(1)
	}
}

func clone(list [][]byte) [][]byte {
	out := make([][]byte, len(list))
	for i, b := range list {
		out[i] = bytes.Clone(b)
	}
	return out
}

// mirror offers a live request to who shadows the model.
func (s *Server) mirror(v *served, inputs [][]byte, r result) {
	if h, ok := s.shadows.Load(v.slot.Key.Model); ok {
		h.(*shadow).offer(v, inputs, r)
	}
}

// Shadow lets a candidate answer copies of live requests in a worker of its own,
// while what is active serves: a share of them, for a share of the time and at the
// lowest priority, until there were enough or the time is over. Nothing of it is
// served or watched. A *Refusal says that too few answers agree or that its worker
// died; without enough live requests the candidate passes and the Note says so. It
// needs a contract with a Shadow.
func (s *Server) Shadow(ctx context.Context, slot Slot) (*bundle.Shade, error) {
	want := slot.Contract.Shadow
	if active, ok := s.Active(slot.Key.Model); !ok || !judge.Alike(active.Contract, slot.Contract) {
		return &bundle.Shade{Note: "nothing serves that takes the same inputs: not seen"}, nil
	}
	w, err := s.spawn(ctx, slot, false, newPool(1))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, proveError(err)
	}
	defer w.stop()
	if err := idle(w.cmd.Process.Pid); err != nil { // then the duty alone is the bound
		s.c.Log.Warn("a shadow has the priority of live requests", "err", err)
	}
	h := &shadow{every: 1 / want.Share, queue: make(chan copied, shadowQueue)}
	t := &trial{s: s, slot: slot, p: &bundle.Proof{}}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	if _, other := s.shadows.LoadOrStore(slot.Key.Model, h); other {
		return nil, fmt.Errorf("another candidate of %s is being shadowed", slot.Key.Model)
	}
	defer s.shadows.Delete(slot.Key.Model)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(want.Minutes*float64(time.Minute)), errShadowOver)
	defer cancel()
	return h.watch(ctx, w, judge.NewAgreement(slot.Contract, t.cases), want.Duty)
}

var errShadowOver = errors.New("the time of the shadow is over")

// watch answers copies until it is decided. The worker runs for a share of the time.
func (h *shadow) watch(ctx context.Context, w *worker, seen *judge.Agreement, duty float64) (*bundle.Shade, error) {
	for !seen.Over() {
		var c copied
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != errShadowOver {
				return nil, ctx.Err()
			}
			return seen.Verdict(h.dropped.Load())
		case <-w.dead:
			return seen.Shade(h.dropped.Load()), proveError(w.death)
		case c = <-h.queue:
		}
		began := time.Now()
		r, err := w.run(context.WithoutCancel(ctx), c.inputs)
		if err != nil {
			return seen.Shade(h.dropped.Load()), proveError(err)
		}
		busy := time.Since(began)
		seen.Take(c.live, c.answer, judge.Answer{Outputs: r.outputs, Took: r.took})
		sleep(ctx, time.Duration(float64(busy)*(1/duty-1)))
	}
	return seen.Verdict(h.dropped.Load())
}

// idle lets every thread of a process run only while nothing else wants its
// processor. What is live is woken on such a processor as if it were free.
func idle(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
		if err := unix.SchedSetAttr(tid, &a, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("idle priority: %w", err)
		}
	}
	return nil
}
