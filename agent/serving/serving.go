// Package serving gives each model to whoever serves it, as its contract says: a worker
// of the agent, an engine beside it, or the application itself.
package serving

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/dunlin-edge/dunlin/agent/engine"
	"github.com/dunlin-edge/dunlin/agent/handoff"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// The kinds of serving, as contracts name them.
const (
	Worker   = "worker"
	File     = "file"
	External = "external"
)

// KindOf is how a contract wants its model to be served.
func KindOf(c *bundle.Contract) string {
	if c.Serve == "" {
		return Worker
	}
	return c.Serve
}

// Kinds serves each model as its contract says. A release may change the kind. It is
// safe for concurrent use.
type Kinds struct {
	Workers *infer.Server
	Engines *engine.Server
	Files   *handoff.Server

	mu sync.RWMutex
	by map[string]string // kind by model that is served
}

// New serves nothing yet.
func New(w *infer.Server, e *engine.Server, f *handoff.Server) *Kinds {
	return &Kinds{Workers: w, Engines: e, Files: f, by: map[string]string{}}
}

// answers is what live requests reach. Files answer none.
type answers interface {
	Active(model string) (infer.Slot, bool)
	Ready(model string) bool
	Infer(ctx context.Context, model string, inputs [][]byte) (infer.Answer, error)
}

func (k *Kinds) kind(model string) string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.by[model]
}

func (k *Kinds) answering(model string) answers {
	switch k.kind(model) {
	case Worker:
		return k.Workers
	case External:
		return k.Engines
	}
	return nil
}

// Prove proves a candidate as it is to be served.
func (k *Kinds) Prove(ctx context.Context, slot infer.Slot) (*bundle.Proof, error) {
	switch KindOf(slot.Contract) {
	case File:
		return k.Files.Prove(ctx, slot)
	case External:
		return k.Engines.Prove(ctx, slot)
	}
	return k.Workers.Prove(ctx, slot)
}

// Activate makes a slot serve; what served before, of whatever kind, ends after it.
func (k *Kinds) Activate(ctx context.Context, slot infer.Slot) error {
	activate, kind := k.Workers.Activate, KindOf(slot.Contract)
	switch kind {
	case File:
		activate = k.Files.Activate
	case External:
		activate = k.Engines.Activate
	}
	if err := activate(ctx, slot); err != nil {
		return err
	}
	k.mu.Lock()
	was := k.by[slot.Key.Model]
	k.by[slot.Key.Model] = kind
	k.mu.Unlock()
	if was != kind {
		k.end(was, slot.Key.Model)
	}
	return nil
}

// Deactivate stops serving a model.
func (k *Kinds) Deactivate(model string) {
	k.mu.Lock()
	was := k.by[model]
	delete(k.by, model)
	k.mu.Unlock()
	k.end(was, model)
}

func (k *Kinds) end(kind, model string) {
	switch kind {
	case Worker:
		k.Workers.Deactivate(model)
	case File:
		k.Files.Deactivate(model)
	case External:
		k.Engines.Deactivate(model)
	}
}

// Serving returns the slot of a model, of whatever kind.
func (k *Kinds) Serving(model string) (infer.Slot, bool) {
	if k.kind(model) == File {
		return k.Files.Active(model)
	}
	return k.Active(model)
}

// Active implements oip.Engine.
func (k *Kinds) Active(model string) (infer.Slot, bool) {
	if a := k.answering(model); a != nil {
		return a.Active(model)
	}
	return infer.Slot{}, false
}

// Ready implements oip.Engine.
func (k *Kinds) Ready(model string) bool {
	a := k.answering(model)
	return a != nil && a.Ready(model)
}

// Models implements oip.Engine.
func (k *Kinds) Models() []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []string
	for m, kind := range k.by {
		if kind != File {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

// Infer implements oip.Engine. A request that waited while the kind changed goes to
// the new one.
func (k *Kinds) Infer(ctx context.Context, model string, inputs [][]byte) (infer.Answer, error) {
	for {
		a := k.answering(model)
		if a == nil {
			return infer.Answer{}, infer.ErrUnknown
		}
		out, err := a.Infer(ctx, model, inputs)
		if !errors.Is(err, infer.ErrUnknown) || k.answering(model) == a {
			return out, err
		}
	}
}

// Status tells of every model that answers requests.
func (k *Kinds) Status() []infer.Status { return append(k.Workers.Status(), k.Engines.Status()...) }
