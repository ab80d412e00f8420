// Package infer runs models: workers and their life, the router that gives each
// request to the slot that is active, and the proof that a candidate works. A
// model that crashes, hangs or leaks takes its worker down and nothing else.
//
// A Server is safe for concurrent use.
package infer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Slot is a pair in its place, ready to be run.
type Slot struct {
	Key      observe.Key
	Version  string
	Dir      string // of the bundle's files
	Library  string // of the runtime
	Contract *bundle.Contract
}

// Config of a Server.
type Config struct {
	FS durable.FS
	// Launcher is the program that runs the sandbox, the agent itself; Worker is
	// dunlin-infer.
	Launcher, Worker string
	// CacheDir keeps packed weights.
	CacheDir string
	Class    string // hardware class, for budgets
	Threads  int
	Monitor  *observe.Monitor
	Log      *slog.Logger
}

// Server routes requests to the workers of active slots.
type Server struct {
	c Config

	mu     sync.RWMutex
	models map[string]*line
	closed bool
	wg     sync.WaitGroup // supervisors
}

// line is one model that is served.
type line struct {
	active *served
	queue  chan struct{} // tokens of requests that are here
}

// maxQueued is how many requests of one model may be here at a time.
const maxQueued = 128

// New returns a Server that serves nothing yet.
func New(c Config) *Server { return &Server{c: c, models: map[string]*line{}} }

// Errors of requests.
var (
	ErrUnknown = errors.New("this device serves no such model")
	ErrBusy    = errors.New("too many requests are waiting")
	// ErrReset is given to callers of a model that carries state when its worker
	// died: what they said before is forgotten.
	ErrReset = errors.New("the model's worker died and its state is lost")
)

// Activate makes a slot answer its model's requests: its worker is started and
// has run once before the first request reaches it, requests under way finish on
// the old one. After an error the old slot still serves.
func (s *Server) Activate(ctx context.Context, slot Slot) error {
	n := s.newServed(slot)
	if err := n.start(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		n.stop()
		return errors.New("the agent is stopping")
	}
	l := s.models[slot.Key.Model]
	if l == nil {
		l = &line{queue: make(chan struct{}, maxQueued)}
		s.models[slot.Key.Model] = l
	}
	old := l.active
	l.active = n
	s.mu.Unlock()
	s.wg.Go(n.supervise)
	if old != nil {
		old.retire()
	}
	s.c.Log.Info("serving", "model", slot.Key.Model, "version", slot.Version, "pid", n.pid())
	return nil
}

// Deactivate stops serving a model.
func (s *Server) Deactivate(model string) {
	s.mu.Lock()
	l := s.models[model]
	delete(s.models, model)
	s.mu.Unlock()
	if l != nil && l.active != nil {
		l.active.retire()
	}
}

// Close ends every worker and waits for it.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	lines := slices.Collect(maps.Values(s.models))
	s.models = map[string]*line{}
	s.mu.Unlock()
	for _, l := range lines {
		l.active.retire()
	}
	s.wg.Wait()
}

// Active returns the slot that serves a model.
func (s *Server) Active(model string) (Slot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return Slot{}, false
	}
	return l.active.slot, true
}

// Models lists the models that are served, in order.
func (s *Server) Models() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.models))
}

// acquire takes the active slot and keeps it from stopping until release.
func (s *Server) acquire(model string) (*served, chan struct{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return nil, nil, ErrUnknown
	}
	select {
	case l.queue <- struct{}{}:
	default:
		return nil, nil, ErrBusy
	}
	l.active.requests.Add(1)
	return l.active, l.queue, nil
}

// Infer runs the active slot of a model on inputs, each as long as its tensor,
// in the contract's order, and returns copies of the outputs with the slot that
// answered. A request whose worker died is tried once more, unless the model
// carries state.
func (s *Server) Infer(ctx context.Context, model string, inputs [][]byte) ([][]byte, Slot, error) {
	v, queue, err := s.acquire(model)
	if err != nil {
		return nil, Slot{}, err
	}
	defer func() { <-queue }()
	defer v.requests.Done()
	began := time.Now()
	out, err := v.run(ctx, inputs)
	var dead *Death
	if errors.As(err, &dead) && ctx.Err() == nil {
		if v.slot.Contract.Carries() {
			err = fmt.Errorf("%w: %w", ErrReset, err)
		} else {
			out, err = v.run(ctx, inputs)
		}
	}
	if ctx.Err() == nil {
		s.c.Monitor.Add(v.observation(inputs, out, err, time.Since(began)))
	}
	return out, v.slot, err
}

// Status is one served model.
type Status struct {
	Model     string
	PID       int
	Restarts  int
	LastWords string // of the last worker that died
}

// Status tells of every model that is served.
func (s *Server) Status() []Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Status
	for _, m := range slices.Sorted(maps.Keys(s.models)) {
		v := s.models[m].active
		restarts, words := v.history()
		out = append(out, Status{Model: m, PID: v.pid(), Restarts: restarts, LastWords: words})
	}
	return out
}
