package infer

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	shadowQueue = 4  // requests that wait for the candidate's worker; more are dropped
	shadowLeast = 20 // answers that are enough to judge, where the contract asks for more than came
	shadowNice  = 19 // the lowest priority: what is live goes first
)

// copied is a live request with its answer.
type copied struct {
	inputs, outputs [][]byte
	took            time.Duration
	live            *bundle.Contract // of the slot that answered
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
	case h.queue <- copied{clone(inputs), clone(r.outputs), r.took, v.slot.Contract}:
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
	if active, ok := s.Active(slot.Key.Model); !ok || !alike(active.Contract, slot.Contract) {
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
	// Of a process group, so that it reaches every thread; a worker is its own. Without
	// the right the duty alone is the bound.
	if err := unix.Setpriority(unix.PRIO_PGRP, w.cmd.Process.Pid, shadowNice); err != nil {
		s.c.Log.Warn("a shadow has the priority of live requests", "err", err)
	}
	h := &shadow{every: 1 / want.Share, queue: make(chan copied, shadowQueue)}
	if _, other := s.shadows.LoadOrStore(slot.Key.Model, h); other {
		return nil, fmt.Errorf("another candidate of %s is being shadowed", slot.Key.Model)
	}
	defer s.shadows.Delete(slot.Key.Model)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(want.Minutes*float64(time.Minute)), errShadowOver)
	defer cancel()
	return s.watchShadow(ctx, &shading{slot: slot, want: want, spans: s.goldenSpans(slot), h: h, w: w})
}

var errShadowOver = fmt.Errorf("the time of the shadow is over")

// shading is one shadow under way.
type shading struct {
	slot  Slot
	want  *bundle.Shadow
	spans map[string]float64
	h     *shadow
	w     *worker

	shade      bundle.Shade
	took, live []time.Duration
	first      string // disagreement
}

// watchShadow answers copies until it is decided.
func (s *Server) watchShadow(ctx context.Context, g *shading) (*bundle.Shade, error) {
	for g.shade.Requests < g.want.Requests && !g.lost() {
		var c copied
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != errShadowOver {
				return nil, ctx.Err()
			}
			return g.verdict()
		case <-g.w.dead:
			return g.shadeNow(), proveError(g.w.death)
		case c = <-g.h.queue:
		}
		began := time.Now()
		r, err := g.w.run(context.WithoutCancel(ctx), c.inputs)
		if err != nil {
			return g.shadeNow(), proveError(err)
		}
		busy := time.Since(began)
		g.take(c, r)
		// It rests as long as makes its share of the time, and an end ends the rest.
		sleep(ctx, time.Duration(float64(busy)*(1/g.want.Duty-1)))
	}
	return g.verdict()
}

// take counts one answer.
func (g *shading) take(c copied, r result) {
	g.shade.Requests++
	g.took, g.live = append(g.took, r.took), append(g.live, c.took)
	why := disagreement(g.slot.Contract, c.live, g.spans, c.outputs, r.outputs)
	switch {
	case why == "":
		g.shade.Agreed++
	case g.first == "":
		g.first = why
	}
}

// lost tells that too many disagree already, whatever comes.
func (g *shading) lost() bool {
	return float64(g.shade.Requests-g.shade.Agreed) > (1-g.want.Agree)*float64(g.want.Requests)+1e-9
}

func (g *shading) shadeNow() *bundle.Shade {
	g.shade.Dropped = g.h.dropped.Load()
	if len(g.took) > 0 {
		slices.Sort(g.took)
		slices.Sort(g.live)
		g.shade.P50US, g.shade.P95US = quantile(g.took, 0.5).Microseconds(), quantile(g.took, 0.95).Microseconds()
		g.shade.LiveP95 = quantile(g.live, 0.95).Microseconds()
	}
	return &g.shade
}

func (g *shading) verdict() (*bundle.Shade, error) {
	s := g.shadeNow()
	switch {
	case s.Requests == 0:
		s.Note = "no live request came: not seen"
	case s.Requests < min(shadowLeast, g.want.Requests) && !g.lost():
		s.Note = fmt.Sprintf("%d live requests came, %d are enough to judge: not seen", s.Requests, min(shadowLeast, g.want.Requests))
	case float64(s.Agreed) < g.want.Agree*float64(s.Requests):
		return s, &Refusal{"prove.shadow", fmt.Sprintf("of %d live requests it answers %d as the active slot does, a share of %.3f, %v is wanted; the first other one: %s",
			s.Requests, s.Agreed, float64(s.Agreed)/float64(s.Requests), g.want.Agree, g.first)}
	}
	return s, nil
}

// disagreement tells how a candidate's answer differs from the one that was given,
// empty when they agree: in the highest class of what ranks classes, within the
// golden tolerance of everything else that has one.
func disagreement(c, live *bundle.Contract, spans map[string]float64, given, have [][]byte) string {
	for i := range c.Outputs {
		t := &c.Outputs[i]
		k := slices.IndexFunc(live.Outputs, func(o bundle.Tensor) bool { return o.Name == t.Name })
		if k < 0 || !c.Compares(t) {
			continue
		}
		want, got := real(&live.Outputs[k], given[k]), real(t, have[i])
		tol := bundle.Tolerance{Top: 1}
		if !c.Ranks(t) {
			tol = c.Golden.Tolerance[t.Name]
			if m := t.Meaning; tol.IoU > 0 && m != nil && m.Boxes != nil {
				want, got = corners(m.Boxes.Layout, want), corners(m.Boxes.Layout, got)
			}
		}
		if why := compare(tol, want, got, spans[t.Name]); why != "" {
			return "output " + t.Name + ": " + why
		}
	}
	return ""
}

// alike says whether two contracts take the same inputs, and have an output in
// common that can be compared.
func alike(live, c *bundle.Contract) bool {
	same := slices.EqualFunc(live.Inputs, c.Inputs, func(a, b bundle.Tensor) bool {
		return a.Name == b.Name && a.DType == b.DType && slices.Equal(a.Shape, b.Shape)
	})
	return same && slices.ContainsFunc(c.Outputs, func(t bundle.Tensor) bool { return c.Compares(&t) && live.Output(t.Name) != nil })
}

// goldenSpans are the ranges of the golden outputs, by which a relative tolerance is
// meant; none without golden cases.
func (s *Server) goldenSpans(slot Slot) map[string]float64 {
	t := &trial{s: s, slot: slot, p: &bundle.Proof{}}
	if err := t.load(context.Background()); err != nil || t.cases == nil {
		return nil
	}
	return spans(slot.Contract, t.cases)
}
