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

	mu        sync.Mutex
	wanted    *target
	leftOut   bool                    // the newest wish does not name the model
	dark      *Refusal                // why the active slot answers nothing
	reversals []*reversal             // asked for
	cancel    context.CancelCauseFunc // of the journey under way
	current   *target                 // of the journey under way
}

func newModel(e *Engine, name string) *model {
	return &model{
		e: e, name: name, log: e.log.With("model", name), wake: make(chan struct{}, 1),
		dark: &Refusal{"serve.starting", "the agent has just started"},
	}
}

func (m *model) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// want hands over the newest target. A journey that it does not allow any more is
// cancelled.
func (m *model) want(t target) {
	m.mu.Lock()
	m.wanted, m.leftOut = &t, false
	m.supersede()
	m.mu.Unlock()
	m.poke()
}

// leaveOut says that the newest wish does not name the model.
func (m *model) leaveOut() {
	m.mu.Lock()
	m.wanted, m.leftOut = nil, true
	m.supersede()
	m.mu.Unlock()
}

// supersede cancels the journey under way when the newest wish names another pair,
// the same one below its floor, or none. The caller holds mu.
func (m *model) supersede() {
	if m.cancel == nil {
		return
	}
	t := m.wanted
	if m.leftOut || t != nil && (m.current.Bundle != t.Bundle || m.current.Runtime != t.Runtime || t.BelowFloor) {
		m.cancel(errSuperseded)
	}
}

// run serves the active slot, then walks journeys until ctx ends.
func (m *model) run(ctx context.Context) {
	m.mend()
	m.serveActive(ctx)
	m.resume()
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
			m.e.refused(err, m.name)
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

// mend hashes the active slot before it is loaded: nothing unsigned ever is. What
// is damaged is dropped; the slot before it serves when it is whole, and what is
// wished is fetched again.
func (m *model) mend() {
	s, active, err := m.e.look(m.name)
	if err != nil || active.Active == slots.None {
		return // serveActive says so
	}
	err = s.Verify(active.Active)
	if !errors.Is(err, slots.ErrDigest) && !errors.Is(err, slots.ErrIncomplete) {
		return
	}
	m.log.Error("active slot is damaged", "place", active.Active, "err", err)
	e := Event{Type: "serve.damaged", Model: m.name, Code: "serve.damaged", Detail: err.Error()}
	if t, err := noteOf(active.Slot(active.Active)); err == nil {
		e.Path = t.Path
	}
	m.e.report.Happened(e)
	if active.Previous != slots.None && s.Verify(active.Previous) == nil {
		err = s.Back()
	} else {
		err = s.Retire()
	}
	if err == nil {
		err = s.Erase(active.Active)
	}
	if err != nil {
		m.log.Error("damaged slot stays", "err", err)
	}
}

// serveActive makes the slot that the pointer names answer requests. One that
// cannot is tried again; a candidate in probation is judged by its journey.
func (m *model) serveActive(ctx context.Context) error {
	c, err := m.e.active(m.name)
	if err == nil && c == nil {
		return m.lit(nil)
	}
	if err == nil {
		err = m.e.prover.Serve(ctx, m.name, c)
	}
	if err == nil || ctx.Err() != nil {
		return m.lit(err)
	}
	m.log.Error("active slot does not serve", "err", err)
	if r := m.trouble(); r == nil || r.Code != "serve.start" { // it is told once
		e := Event{Type: "serve.failed", Model: m.name, Code: "serve.start", Detail: err.Error()}
		if c != nil {
			e.Path = c.Path
		}
		m.e.report.Happened(e)
	}
	return m.lit(err)
}

// lit remembers whether the active slot answers; err says why it does not.
func (m *model) lit(err error) error {
	m.mu.Lock()
	changed := (err == nil) != (m.dark == nil)
	if m.dark = nil; err != nil {
		m.dark = &Refusal{"serve.start", err.Error()}
	}
	m.mu.Unlock()
	if changed {
		m.e.report.Changed(m.name)
	}
	return err
}

// trouble is why the active slot answers nothing, nil when it does.
func (m *model) trouble() *Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dark
}

// resume counts a restart that nobody asked for against a journey that it
// interrupted.
func (m *model) resume() {
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

// next does what is due: reversals first, then the journey under way,
// then the wish.
func (m *model) next(ctx context.Context) error {
	err := m.due(ctx)
	if err == nil && m.trouble() != nil {
		return m.serveActive(ctx)
	}
	return err
}

func (m *model) due(ctx context.Context) error {
	if err := m.reverse(ctx); err != nil {
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
	m.supersede()
	m.mu.Unlock()
	err := j.walk(jctx)
	m.mu.Lock()
	m.cancel, m.current = nil, nil
	m.mu.Unlock()
	if err == nil {
		m.poke() // more may be wished by now
		if err := m.e.sweep(); err != nil {
			m.log.Warn("what is left of downloads stays", "err", err)
		}
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

// ErrNoWayBack is returned when there is no previous slot, or the pair that was to
// go does not serve any more.
var ErrNoWayBack = errors.New("there is no previous slot to go back to")

// Rollback returns a model to its previous slot by hand; the pair that served
// becomes bad. It returns when the previous slot serves.
func (e *Engine) Rollback(ctx context.Context, name string) error {
	return e.reverse(ctx, name, &reversal{Refusal: Refusal{"rollback.by_hand", "somebody at the device asked to go back"}})
}

// Condemn returns a model to its previous slot because of what the pair of this
// bundle has done while it served, on trial or long after. It does nothing and
// returns ErrNoWayBack when another pair serves or none was there before.
func (e *Engine) Condemn(ctx context.Context, name, bundle string, why Refusal) error {
	return e.reverse(ctx, name, &reversal{Refusal: why, bundle: bundle})
}

func (e *Engine) reverse(ctx context.Context, name string, r *reversal) error {
	e.mu.Lock()
	m := e.models[name]
	e.mu.Unlock()
	if m == nil {
		return ErrNoWayBack
	}
	r.done = make(chan error, 1)
	m.mu.Lock()
	m.reversals = append(m.reversals, r)
	if m.cancel != nil {
		m.cancel(r)
	}
	m.mu.Unlock()
	m.poke()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
