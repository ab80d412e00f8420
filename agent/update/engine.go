package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// Config is what an Engine works on and with.
type Config struct {
	Repository Repository
	Slots      *slots.Store
	DB         *state.DB
	Prover     Prover
	Shadower   Shadower // nil: no candidate is shadowed
	Reporter   Reporter
	Facts      map[string]string
	Log        *slog.Logger
}

// Engine walks the journeys of every model.
type Engine struct {
	repo   Repository
	slots  *slots.Store
	prover Prover
	shadow Shadower
	report Reporter
	facts  map[string]string
	log    *slog.Logger

	blobs    sync.RWMutex // read by steps that need what was fetched, written by sweep
	db       *state.DB
	journals *state.Bucket[journal]
	history  *state.Bucket[outcomes]
	proofs   *state.Bucket[proofs]

	wake    chan struct{}
	proving sync.Mutex // prove measures: one at a time

	mu         sync.Mutex
	models     map[string]*model // goroutines, once Run has started
	generation int64
}

// New opens the records of earlier journeys. Nothing runs before Run.
func New(c Config) (*Engine, error) {
	e := &Engine{
		repo: c.Repository, slots: c.Slots, prover: c.Prover, shadow: c.Shadower, report: c.Reporter, facts: c.Facts, log: c.Log, db: c.DB,
		wake: make(chan struct{}, 1), models: map[string]*model{},
	}
	var err error
	if e.journals, err = state.NewBucket[journal](c.DB, "update.journal"); err != nil {
		return nil, err
	}
	if e.history, err = state.NewBucket[outcomes](c.DB, "update.outcomes"); err != nil {
		return nil, err
	}
	if e.proofs, err = state.NewBucket[proofs](c.DB, "update.proofs"); err != nil {
		return nil, err
	}
	return e, nil
}

// Refresh asks for a refresh of the wish soon; repeated calls melt into one.
func (e *Engine) Refresh() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Retry pauses of a refresh that did not succeed.
const (
	retryMin = time.Second
	retryMax = time.Minute
)

// Run serves what is active, resumes what was under way and then follows the
// wish until ctx ends. It returns when every journey stands still.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if err := e.startModels(ctx, &wg); err != nil {
		return err
	}
	pause := retryMin
	timer := time.NewTimer(0)
	timer.Stop()
	refused := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-timer.C:
		}
		err := e.refresh(ctx, &wg)
		if err == nil {
			if refused {
				e.report.Happened(Event{Type: EventBelieved})
				refused = false
			}
			pause = retryMin
			timer.Stop()
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if refusal := e.refused(err, ""); refusal {
			refused = true
		} else {
			e.log.Info("refresh put off", "err", err)
		}
		timer.Reset(pause)
		pause = min(2*pause, retryMax)
	}
}

// startModels gives every model that is here or on its way a goroutine, so that it
// serves before the network is asked anything.
func (e *Engine) startModels(ctx context.Context, wg *sync.WaitGroup) error {
	names, err := e.slots.Models()
	if err != nil {
		return fmt.Errorf("list models: %w", err)
	}
	if err := e.sweep(); err != nil {
		e.log.Warn("what is left of downloads stays", "err", err)
	}
	under, err := e.journals.All()
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	for _, name := range slices.AppendSeq(names, maps.Keys(under)) {
		e.model(ctx, wg, name)
	}
	// A wish of before the restart may not be fulfilled yet.
	e.follow(ctx, wg, e.repo.Wish())
	return nil
}

func (e *Engine) refresh(ctx context.Context, wg *sync.WaitGroup) error {
	w, err := e.repo.Refresh(ctx)
	if err != nil {
		return err
	}
	e.follow(ctx, wg, w)
	return nil
}

// follow hands each model its target. A model that a wish leaves out stays as it
// is, but what is on its way to it comes no further.
func (e *Engine) follow(ctx context.Context, wg *sync.WaitGroup, w trust.Wish) {
	ts, err := targets(w)
	if err != nil {
		e.log.Warn("wish is not followed", "err", err)
		e.refused(err, "")
		return
	}
	wished := map[string]bool{}
	for _, t := range ts {
		wished[t.model()] = true
		e.model(ctx, wg, t.model()).want(t)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, m := range e.models {
		if w.Generation > 0 && !wished[name] { // before the first wish nothing is known
			m.leaveOut()
		}
	}
	e.generation = w.Generation
}

// serve hands a model's requests to a slot, nil for none.
func (e *Engine) serve(ctx context.Context, name string, c *Candidate) error {
	if err := e.prover.Serve(ctx, name, c); err != nil {
		return err
	}
	e.mu.Lock()
	m := e.models[name]
	e.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.lit(nil)
}

// refused reports that what err is about was not believed, metadata or a file of a
// model; false when err is something else.
func (e *Engine) refused(err error, model string) bool {
	var r *trust.Refusal
	if !errors.As(err, &r) {
		return false
	}
	e.log.Warn("refused", "code", r.Code, "model", model, "err", err)
	e.report.Happened(Event{Type: EventRefused, Model: model, Code: r.Code, Detail: err.Error(), Next: trust.Next(r.Code)})
	return true
}

// model returns the goroutine of a model, starting it when there is none.
func (e *Engine) model(ctx context.Context, wg *sync.WaitGroup, name string) *model {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.models[name]; m != nil {
		return m
	}
	m := newModel(e, name)
	e.models[name] = m
	wg.Go(func() { m.run(ctx) })
	return m
}

// Generation is that of the newest wish that is being followed.
func (e *Engine) Generation() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.generation
}
