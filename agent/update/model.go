package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// model is the goroutine that owns everything that happens to one model.
type model struct {
	e    *Engine
	name string
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	wanted  *target
	byHand  []chan error            // rollbacks asked for
	cancel  context.CancelCauseFunc // of the journey under way
	current *target                 // of the journey under way
}

func newModel(e *Engine, name string) *model {
	return &model{e: e, name: name, log: e.log.With("model", name), wake: make(chan struct{}, 1)}
}

func (m *model) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// want hands over the newest target. A journey to another pair is cancelled.
func (m *model) want(t target) {
	m.mu.Lock()
	m.wanted = &t
	if m.cancel != nil && (m.current.Bundle != t.Bundle || m.current.Runtime != t.Runtime) {
		m.cancel(errSuperseded)
	}
	m.mu.Unlock()
	m.poke()
}

// run serves the active slot, then walks journeys until ctx ends.
func (m *model) run(ctx context.Context) {
	m.serveActive(ctx)
	m.resume(ctx)
	pause := retryMin
	timer := time.NewTimer(0)
	timer.Stop()
	for {
		err := m.next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.log.Warn("step put off", "err", err, "again", pause)
			timer.Reset(pause/2 + rand.N(pause))
			pause = min(2*pause, retryMax)
		default:
			pause = retryMin
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// serveActive makes the slot that the pointer names answer requests. A slot that
// cannot serve is tried again by the workers' own back-off; a candidate in
// probation is judged by its journey.
func (m *model) serveActive(ctx context.Context) {
	c, err := m.e.active(m.name)
	if err != nil || c == nil {
		if err != nil {
			m.log.Error("active slot is not readable", "err", err)
		}
		return
	}
	if err := m.e.prover.Serve(ctx, m.name, c); err != nil {
		m.log.Error("active slot does not serve", "err", err)
		m.e.report.Happened(Event{Type: "serve.failed", Model: m.name, Path: c.Path, Code: "serve.start", Detail: err.Error()})
	}
	m.e.report.Changed(m.name)
}

// resume counts a restart against a journey that it interrupted.
func (m *model) resume(ctx context.Context) {
	jr, ok, err := m.e.journals.Get(m.name)
	if err != nil || !ok {
		return
	}
	j := m.journey(jr)
	j.resumed()
	if err := m.e.save(&j.journal); err != nil {
		m.log.Error("journal is not writable", "err", err)
	}
	m.log.Info("journey resumed", "step", j.Step, "release", j.Target.Path, "starts", j.Starts)
}

func (m *model) journey(jr journal) *journey { return &journey{e: m.e, journal: jr, log: m.log} }

// next does what is due: rollbacks by hand first, then the journey under way,
// then the wish.
func (m *model) next(ctx context.Context) error {
	if err := m.rollbackByHand(ctx); err != nil {
		return err
	}
	jr, under, err := m.e.journals.Get(m.name)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if under {
		if err := m.walk(ctx, m.journey(jr)); err != nil {
			return err
		}
	}
	t := m.takeWanted()
	if t == nil {
		return nil
	}
	do, err := m.decide(t)
	if err != nil {
		m.giveBack(t)
		return err
	}
	m.log.Info("wish", "release", t.Path, "decision", string(do), "generation", t.Custom.Assign.Generation)
	switch {
	case do == install && t.BelowFloor:
		j := m.journey(journal{Target: *t, Began: time.Now()})
		j.Code, j.Reason = "check.below_floor", "its publisher does not allow this release to be activated any more"
		return j.finish(outcome{Verdict: slots.Bad, Code: j.Code, Reason: j.Reason})
	case do == install:
		return m.walk(ctx, m.journey(journal{Target: *t, Step: steps[0].name, Began: time.Now()}))
	default:
		return m.e.answer(m.name, t)
	}
}

// walk runs a journey under a context that a newer wish cancels, then looks
// whether more is to be done.
func (m *model) walk(ctx context.Context, j *journey) error {
	jctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	m.cancel, m.current = cancel, &j.Target
	if w := m.wanted; w != nil && (w.Bundle != j.Target.Bundle || w.Runtime != j.Target.Runtime) {
		cancel(errSuperseded)
	}
	m.mu.Unlock()
	err := j.walk(jctx)
	m.mu.Lock()
	m.cancel, m.current = nil, nil
	m.mu.Unlock()
	if err == nil {
		m.poke() // more may be wished by now
	}
	return err
}

// giveBack makes a target wanted again that could not be decided on, unless a
// newer one came meanwhile.
func (m *model) giveBack(t *target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted == nil {
		m.wanted = t
	}
}

// takeWanted returns the target to be decided on, if there is one.
func (m *model) takeWanted() *target {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.wanted
	m.wanted = nil
	return t
}

func (m *model) decide(t *target) (decision, error) {
	_, s, err := m.e.look(m.name)
	if err != nil {
		return "", err
	}
	past, _, err := m.e.history.Get(m.name)
	if err != nil {
		return "", fmt.Errorf("read outcomes: %w", err)
	}
	return decide(t, s.Slot(s.Active), &past), nil
}

// ErrNoWayBack is returned by Rollback when there is no previous slot.
var ErrNoWayBack = errors.New("there is no previous slot to go back to")

// Rollback returns a model to its previous slot by hand; the pair that served
// becomes bad. It returns when the previous slot serves.
func (e *Engine) Rollback(ctx context.Context, name string) error {
	e.mu.Lock()
	m := e.models[name]
	e.mu.Unlock()
	if m == nil {
		return ErrNoWayBack
	}
	done := make(chan error, 1)
	m.mu.Lock()
	m.byHand = append(m.byHand, done)
	if m.cancel != nil {
		m.cancel(errByHand)
	}
	m.mu.Unlock()
	m.poke()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
