// Package infer runs models: workers and their life, the router that gives each
// request to the slot that is active, and the proof that a candidate works. A
// model that crashes, hangs or leaks takes its worker down and nothing else.
//
// A Server is safe for concurrent use.
package infer

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
	"github.com/dunlin-edge/dunlin/agent/infer/vitals"
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
	Setup    Setup // as the proof found it
}

// Config of a Server.
type Config struct {
	FS durable.FS
	// Launcher is the program that runs the sandbox, the agent itself; Worker is
	// dunlin-infer.
	Launcher, Worker string
	// CacheDir keeps packed weights of models of at least CacheMin bytes (0: 1 MiB;
	// smaller ones start no faster with them).
	CacheDir string
	CacheMin int64
	Class    string // hardware class, for budgets
	Threads  int    // of a worker, 0: as the proof of each slot finds best
	Workers  int    // processes of a model, 0: the same; one where a model carries state
	// Accelerators are tried before the processor, in order; see Accelerators.
	Accelerators []string
	Monitor      *observe.Monitor
	// Looping is called, when it is set, in a goroutine of the slot, once for a slot
	// whose workers crash again and again; it must not wait for the slot to end.
	Looping func(slot Slot, last *Death)
	Log     *slog.Logger
}

// Server routes requests to the workers of active slots.
type Server struct {
	c Config

	mu     sync.RWMutex
	models map[string]*line
	closed bool

	host     *sandbox.Host
	fallback atomic.Bool // a worker was started without the launcher
	shadows  sync.Map    // *shadow by model, while a candidate is shadowed

	look    time.Duration            // how often a worker's memory is looked at
	private func(pid int) (kb int64) // its memory
}

// Posture says which protective layers surround the workers.
func (s *Server) Posture() []sandbox.Layer { return s.host.Posture(s.fallback.Load()) }

// line is one model that is served.
type line struct {
	active *served
	queue  chan struct{} // tokens of requests that are here
}

// maxQueued is how many requests of one model may be here at a time.
const maxQueued = 128

// New returns a Server that serves nothing yet.
func New(c Config) *Server {
	if c.CacheMin == 0 {
		c.CacheMin = 1 << 20
	}
	return &Server{c: c, host: sandbox.Probe(), models: map[string]*line{}, look: 30 * time.Second, private: vitals.PrivateKB}
}

// Errors of requests.
var (
	ErrUnknown = errors.New("this device serves no such model")
	ErrBusy    = errors.New("too many requests are waiting")
	// ErrInputs is wrapped when inputs are not as many and as long as the active
	// slot's tensors.
	ErrInputs = errors.New("the inputs do not fit the model")
	// ErrReset is given to callers of a model that carries state when its worker
	// died: what they said before is forgotten.
	ErrReset = errors.New("the model's worker died and its state is lost")
	// ErrEngine is given for models that another program runs, when it does not.
	ErrEngine = errors.New("the engine beside the agent gives no answer")
)

// Activate makes a slot answer its model's requests: its worker is started and
// has run once before the first request reaches it, requests under way finish on
// the old one. After an error the old slot still serves.
func (s *Server) Activate(ctx context.Context, slot Slot) error {
	w, err := s.spawn(ctx, slot, false, newPool(s.workers(slot)))
	if err != nil {
		return err
	}
	old, err := s.take(s.newServed(slot, w))
	if err != nil {
		w.stop()
		return err
	}
	s.c.Log.Info("serving", "model", slot.Key.Model, "version", slot.Version, "pid", w.cmd.Process.Pid, "start", w.started)
	if old != nil {
		old.retire()
	}
	return nil
}

// take makes n the slot of its model and returns the one before.
func (s *Server) take(n *served) (old *served, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the agent is stopping")
	}
	l := s.models[n.slot.Key.Model]
	if l == nil {
		l = &line{queue: make(chan struct{}, maxQueued)}
		s.models[n.slot.Key.Model] = l
	}
	old, l.active = l.active, n
	n.begin() // retire waits for it
	return old, nil
}

// Deactivate stops serving a model.
func (s *Server) Deactivate(model string) {
	s.mu.Lock()
	l := s.models[model]
	delete(s.models, model)
	s.mu.Unlock()
	if l != nil {
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

// Ready tells whether a worker of the model's active slot lives.
func (s *Server) Ready(model string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return false
	}
	return l.active.alive()
}

// enter takes a place among the model's requests.
func (s *Server) enter(model string) (leave func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return nil, ErrUnknown
	}
	select {
	case l.queue <- struct{}{}:
		return func() { <-l.queue }, nil
	default:
		return nil, ErrBusy
	}
}

// acquire keeps the active slot from stopping until requests.Done.
func (s *Server) acquire(model string) (*served, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.models[model]
	if l == nil {
		return nil, ErrUnknown
	}
	l.active.requests.Add(1)
	return l.active, nil
}

// Answer is what a slot gave for a request.
type Answer struct {
	Outputs [][]byte      // copies, in the contract's order
	Slot    Slot          // that answered, or that did not
	Took    time.Duration // of the run alone, without waiting
}

// Infer runs the active slot of a model on inputs, each as long as its tensor,
// in the contract's order. A request whose worker died is tried once more, unless the model
// carries state; one whose slot is replaced before it had a worker goes to the
// slot that took over.
func (s *Server) Infer(ctx context.Context, model string, inputs [][]byte) (Answer, error) {
	began := time.Now()
	leave, err := s.enter(model)
	if err != nil {
		return Answer{}, err
	}
	defer leave()
	for {
		v, err := s.acquire(model)
		if err != nil {
			return Answer{}, err
		}
		r, err := v.try(ctx, inputs)
		v.requests.Done()
		if errors.Is(err, errLeft) {
			continue
		}
		if err == nil {
			v.answered.Add(1)
			s.mirror(v, inputs, r)
		}
		v.tell(ctx, began, inputs, r, err)
		return Answer{r.outputs, v.slot, r.took}, err
	}
}

// Status is one served model.
type Status struct {
	Model     string
	PID       int    // 0 while there is no worker
	PIDs      []int  // of all its workers
	KB        int64  // that they held when last looked at
	Restarts  int    // after deaths
	Recycled  int    // because they leaked
	Answered  uint64 // requests, since the slot serves
	LastWords string // of the last worker that died
}

// Status tells of every model that is served.
func (s *Server) Status() []Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Status
	for _, m := range slices.Sorted(maps.Keys(s.models)) {
		out = append(out, s.models[m].active.status())
	}
	return out
}
