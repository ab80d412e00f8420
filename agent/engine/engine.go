// Package engine serves models that an inference engine beside the agent runs: any
// program of this machine that speaks the Open Inference Protocol. The agent gives it
// verified files under a name for each place, proves what it answers, and moves live
// requests from one name to the other.
//
// A Server is safe for concurrent use.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/shelf"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Engine is where one model runs.
type Engine struct {
	URL string `yaml:"url"` // http://127.0.0.1:PORT or unix:///PATH, see CheckAddress
	// Repository is the folder in which the engine finds its models, each in a folder of
	// its own name.
	Repository string `yaml:"repository"`
}

// Config of a Server.
type Config struct {
	FS      durable.FS
	Engines map[string]Engine // by model
	Class   string            // hardware class, for budgets
	Monitor *observe.Monitor
	Log     *slog.Logger
}

// Server routes requests to engines.
type Server struct {
	c       Config
	clients map[string]*client // by model

	mu     sync.RWMutex
	models map[string]*line
	proven map[string]bool // names in engines whose trial is to begin
}

// line is one model that is served.
type line struct {
	active *served
	queue  chan struct{} // tokens of requests that are here
}

// served is a slot under its name in the engine.
type served struct {
	slot     infer.Slot
	name     string
	plan     *observe.Plan
	requests sync.WaitGroup // under way
	answered atomic.Uint64
	mending  atomic.Bool // it is being loaded again
}

const (
	maxQueued = 128              // requests of one model that may be here at a time
	maxRun    = 10 * time.Second // of one request
	maxLoad   = 5 * time.Minute  // until a model is ready
	maxAsk    = 2 * time.Second  // of a question that takes no time
)

// New returns a Server that serves nothing yet.
func New(c Config) (*Server, error) {
	s := &Server{c: c, clients: map[string]*client{}, models: map[string]*line{}, proven: map[string]bool{}}
	for model, e := range c.Engines {
		var err error
		if s.clients[model], err = dial(e.URL); err != nil {
			return nil, fmt.Errorf("engine of %s: %w", model, err)
		}
	}
	return s, nil
}

// nameOf is a slot's name in the engine: one for each place, so that both can be there.
func nameOf(slot infer.Slot) string { return slot.Key.Model + "-" + filepath.Base(slot.Dir) }

func (s *Server) folder(slot infer.Slot) string {
	return filepath.Join(s.c.Engines[slot.Key.Model].Repository, nameOf(slot))
}

// client is the way to the engine of a model.
func (s *Server) client(model string) (*client, error) {
	c := s.clients[model]
	if c == nil {
		return nil, &infer.Refusal{Code: "prove.engine", Reason: fmt.Sprintf("the contract says serve: external, and agent.yaml names no engine for %s: add external: {%s: {url: …, repository: …}}", model, model)}
	}
	return c, nil
}

// load gives a slot to the engine and waits until it is ready.
func (s *Server) load(ctx context.Context, slot infer.Slot) (*client, error) {
	c, err := s.client(slot.Key.Model)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxLoad)
	defer cancel()
	if err := c.hello(ctx); err != nil {
		return nil, fmt.Errorf("%w of %s is not there: %v", errEngine, slot.Key.Model, err) // no answer about the slot
	}
	changed, err := shelf.Put(s.c.FS, slot.Dir, s.folder(slot))
	if err != nil {
		return nil, err
	}
	if changed { // what it has under this name are other files
		if err := c.unload(ctx, nameOf(slot)); err != nil {
			s.c.Log.Debug("unload", "model", nameOf(slot), "err", err)
		}
	}
	return c, c.load(ctx, nameOf(slot))
}

// Activate makes a slot answer its model's requests, once the engine is ready to;
// those under way finish on the slot before. After an error that one still serves. A
// slot that was just proven is on trial: the engine keeps the one before until Settle.
func (s *Server) Activate(ctx context.Context, slot infer.Slot) error {
	if _, err := s.load(ctx, slot); err != nil {
		return err
	}
	n := &served{slot: slot, name: nameOf(slot), plan: observe.NewPlan(slot.Contract)}
	s.mu.Lock()
	l := s.models[slot.Key.Model]
	if l == nil {
		l = &line{queue: make(chan struct{}, maxQueued)}
		s.models[slot.Key.Model] = l
	}
	old := l.active
	l.active = n
	trial := s.proven[n.name]
	delete(s.proven, n.name)
	s.mu.Unlock()
	s.c.Log.Info("serving", "model", slot.Key.Model, "version", slot.Version, "engine", s.c.Engines[slot.Key.Model].URL, "as", n.name)
	if old != nil && old.name != n.name && !trial {
		old.requests.Wait()
		s.unload(old.slot)
	}
	return nil
}

// Deactivate stops serving a model.
func (s *Server) Deactivate(model string) {
	s.mu.Lock()
	l := s.models[model]
	delete(s.models, model)
	s.mu.Unlock()
	if l != nil {
		l.active.requests.Wait()
		s.unload(l.active.slot)
	}
}

// Settle takes what a place held that is not active away from the engine: the trial
// of the active slot is over.
func (s *Server) Settle(slot infer.Slot) {
	other := slot
	other.Dir = filepath.Join(filepath.Dir(slot.Dir), map[string]string{"a": "b", "b": "a"}[filepath.Base(slot.Dir)])
	if active, ok := s.Active(slot.Key.Model); ok && nameOf(active) == nameOf(other) {
		return
	}
	s.unload(other)
}

func (s *Server) unload(slot infer.Slot) {
	c, err := s.client(slot.Key.Model)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxAsk)
	defer cancel()
	if err := c.unload(ctx, nameOf(slot)); err != nil {
		s.c.Log.Debug("unload", "model", nameOf(slot), "err", err)
	}
	if err := shelf.Drop(s.c.FS, s.folder(slot)); err != nil {
		s.c.Log.Warn("a copy stays", "model", nameOf(slot), "err", err)
	}
}

// Active returns the slot that serves a model.
func (s *Server) Active(model string) (infer.Slot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return infer.Slot{}, false
	}
	return l.active.slot, true
}

// Models lists the models that are served, in order.
func (s *Server) Models() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.models))
}

// Ready asks the engine whether the model's active slot can answer.
func (s *Server) Ready(model string) bool {
	s.mu.RLock()
	l := s.models[model]
	s.mu.RUnlock()
	if l == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxAsk)
	defer cancel()
	return s.clients[model].ready(ctx, l.active.name) == nil
}

// Status tells of every model that is served.
func (s *Server) Status() []infer.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []infer.Status
	for _, m := range slices.Sorted(maps.Keys(s.models)) {
		out = append(out, infer.Status{Model: m, Answered: s.models[m].active.answered.Load()})
	}
	return out
}

// enter takes a place among the model's requests and keeps its active slot.
func (s *Server) enter(model string) (v *served, leave func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return nil, nil, infer.ErrUnknown
	}
	select {
	case l.queue <- struct{}{}:
		l.active.requests.Add(1)
		v := l.active
		return v, func() { v.requests.Done(); <-l.queue }, nil
	default:
		return nil, nil, infer.ErrBusy
	}
}

// Infer has the engine run the active slot of a model. A request whose connection broke
// is sent once more, unless the model carries state.
func (s *Server) Infer(ctx context.Context, model string, inputs [][]byte) (infer.Answer, error) {
	v, leave, err := s.enter(model)
	if err != nil {
		return infer.Answer{}, err
	}
	defer leave()
	if len(inputs) != len(v.slot.Contract.Inputs) {
		return infer.Answer{Slot: v.slot}, infer.ErrInputs
	}
	for i := range inputs {
		if _, err := shapeOf(&v.slot.Contract.Inputs[i], len(inputs[i])); err != nil {
			return infer.Answer{Slot: v.slot}, fmt.Errorf("%w: %w", infer.ErrInputs, err)
		}
	}
	began := time.Now()
	out, took, err := s.run(ctx, v, inputs)
	s.tell(ctx, v, began, inputs, out, took, err)
	if err != nil {
		s.mend(v, err)
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w: %w", infer.ErrEngine, err)
		}
		return infer.Answer{Slot: v.slot}, err
	}
	v.answered.Add(1)
	return infer.Answer{Outputs: out, Slot: v.slot, Took: took}, nil
}

func (s *Server) run(ctx context.Context, v *served, inputs [][]byte) (out [][]byte, took time.Duration, err error) {
	c := s.clients[v.slot.Key.Model]
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	for again := !v.slot.Contract.Carries(); ; again = false {
		began := time.Now()
		out, err = c.infer(ctx, v.name, v.slot.Contract, inputs)
		var answered *said
		if err == nil || !again || ctx.Err() != nil || errors.As(err, &answered) {
			return out, time.Since(began), err
		}
	}
}

// mend has a model loaded again that the engine has lost, as after its restart.
func (s *Server) mend(v *served, err error) {
	var answered *said
	if errors.As(err, &answered) && answered.status != http.StatusNotFound && answered.status != http.StatusServiceUnavailable || !v.mending.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer v.mending.Store(false)
		if _, err := s.load(context.Background(), v.slot); err != nil {
			s.c.Log.Warn("the engine does not load it again", "model", v.name, "err", err)
		}
	}()
}

// tell tells the monitor what a request says about the model.
func (s *Server) tell(ctx context.Context, v *served, began time.Time, inputs, out [][]byte, took time.Duration, err error) {
	if errors.Is(err, context.Canceled) {
		return // a caller who went away
	}
	o := observe.Observation{Key: v.slot.Key, Took: took, Code: failureCode(err), Plan: v.plan, Inputs: inputs, Source: infer.Source(ctx)}
	if err == nil {
		o.Wait = max(time.Since(began)-took, 0)
		v.plan.Answer(&o, out)
	}
	s.c.Monitor.Add(&o)
}

func failureCode(err error) string {
	var answered *said
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return "request.deadline"
	case errors.As(err, &answered):
		return "engine.refused"
	}
	return "engine.lost"
}
