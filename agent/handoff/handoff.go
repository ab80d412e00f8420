// Package handoff serves models that an application runs by itself: it gets the
// verified files behind a stable path, a program of its own is run when they change,
// and it says whether it is well with them.
//
// A Server is safe for concurrent use.
package handoff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/shelf"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// File is how one model is handed to its application.
type File struct {
	// Path is a symbolic link that the agent moves: behind it are the bundle's files.
	// The folders that it leads to lie beside it, named with .a and .b.
	Path string `yaml:"path"`
	// Hook is a program with its arguments that is run after the link has moved, and
	// whenever that may have been missed. It must succeed within a minute.
	Hook []string `yaml:"hook,omitempty"`
	// Prove is a program that judges a candidate before the link moves; DUNLIN_PATH is
	// where it lies. It must succeed within ten minutes.
	Prove []string `yaml:"prove,omitempty"`
	// Health is "required", or "none": the application says nothing, and the hook's
	// success is all that is known.
	Health string `yaml:"health"`
}

// Values of File.Health; empty is HealthRequired.
const (
	HealthRequired = "required"
	HealthNone     = "none"
)

// Config of a Server.
type Config struct {
	FS    durable.FS
	Files map[string]File // by model
	// Prover runs a candidate in a worker of the agent, where the runtime can.
	Prover func(ctx context.Context, slot infer.Slot) (*bundle.Proof, error)
	// Unwell is called when an application is no longer well with a model; may be nil.
	Unwell func(slot infer.Slot, reason string)
	Log    *slog.Logger
}

// Server hands files over.
type Server struct {
	c Config

	mu     sync.Mutex
	models map[string]*handed
}

// handed is what an application has of a model.
type handed struct {
	slot infer.Slot
	said *Health // of this release; nil: nothing yet
}

const (
	hookTime  = time.Minute
	proveTime = 10 * time.Minute
)

// New returns a Server that has handed over nothing yet.
func New(c Config) *Server { return &Server{c: c, models: map[string]*handed{}} }

func (s *Server) file(model string) (File, error) {
	f, ok := s.c.Files[model]
	if !ok {
		return f, &infer.Refusal{Code: "prove.application", Reason: fmt.Sprintf("the contract says serve: file, and agent.yaml names no path for %s: add files: {%s: {path: …}}", model, model)}
	}
	return f, nil
}

// folder is where a slot's copy lies: one for each place.
func (f *File) folder(slot infer.Slot) string { return f.Path + "." + filepath.Base(slot.Dir) }

// done is the file that names the bundle of which the hook has heard.
func (f *File) done() string { return f.Path + ".done" }

// Prove runs a candidate in a worker, unless it needs operators that the application
// brings along, and then the application's own program on its copy.
func (s *Server) Prove(ctx context.Context, slot infer.Slot) (*bundle.Proof, error) {
	f, err := s.file(slot.Key.Model)
	if err != nil {
		return nil, err
	}
	p := &bundle.Proof{Kernels: "none", Tried: []bundle.Tried{{Kernels: "litert", Why: "the application brings operators along that the agent's runtime lacks"}}}
	if len(slot.Contract.Custom) == 0 {
		if p, err = s.c.Prover(ctx, slot); err != nil {
			return p, err
		}
	}
	if len(f.Prove) == 0 {
		return p, nil
	}
	if _, err := shelf.Put(s.c.FS, slot.Dir, f.folder(slot)); err != nil {
		return p, err
	}
	said, err := run(ctx, f.Prove, proveTime, s.env(&f, slot, f.folder(slot), "prove"))
	switch {
	case ctx.Err() != nil:
		return p, ctx.Err()
	case err != nil:
		return p, &infer.Refusal{Code: "prove.application", Reason: fmt.Sprintf("%s: %v%s", f.Prove[0], err, said)}
	}
	return p, nil
}

// Activate moves the link to a slot and tells the application. After an error the link
// leads where it did, and the application has been told so.
func (s *Server) Activate(ctx context.Context, slot infer.Slot) error {
	f, err := s.file(slot.Key.Model)
	if err != nil {
		return err
	}
	changed, err := shelf.Put(s.c.FS, slot.Dir, f.folder(slot))
	if err != nil {
		return err
	}
	before, err := s.c.FS.Readlink(f.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is no link of the agent's: %w", f.Path, err)
	}
	target := filepath.Base(f.folder(slot))
	if before != target {
		changed = true
		if err := durable.Point(s.c.FS, "handoff.link", f.Path, target); err != nil {
			return err
		}
	}
	if err := s.told(ctx, &f, slot, changed); err != nil {
		return errors.Join(err, s.undo(&f, before, target))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.models[slot.Key.Model]; h == nil || h.slot.Key != slot.Key || changed {
		s.models[slot.Key.Model] = &handed{slot: slot}
	}
	s.c.Log.Info("handed over", "model", slot.Key.Model, "version", slot.Version, "path", f.Path)
	return nil
}

// maxDone bounds what is read of the file that names a bundle.
const maxDone = 256

// told runs the hook when the application may not know of the slot.
func (s *Server) told(ctx context.Context, f *File, slot infer.Slot, changed bool) error {
	b, err := durable.ReadFile(s.c.FS, f.done(), maxDone)
	if err == nil && string(b) == slot.Key.Bundle && !changed {
		return nil
	}
	if err := durable.Remove(s.c.FS, "handoff.done", f.done()); err != nil {
		return err
	}
	if err := s.hook(ctx, f, slot, "activate"); err != nil {
		return err
	}
	return durable.WriteFile(s.c.FS, "handoff.done", f.done(), []byte(slot.Key.Bundle), 0o644)
}

func (s *Server) hook(ctx context.Context, f *File, slot infer.Slot, event string) error {
	if len(f.Hook) == 0 {
		return nil
	}
	said, err := run(ctx, f.Hook, hookTime, s.env(f, slot, f.Path, event))
	if err != nil {
		return fmt.Errorf("%s: %w%s", f.Hook[0], err, said)
	}
	return nil
}

// undo moves the link back after a hook that failed, and tells the application of what
// it had before, if it had something.
func (s *Server) undo(f *File, before, target string) error {
	if before == "" || before == target {
		return durable.Remove(s.c.FS, "handoff.link", f.Path)
	}
	if err := durable.Point(s.c.FS, "handoff.link", f.Path, before); err != nil {
		return err
	}
	for _, h := range s.all() {
		if filepath.Base(f.folder(h)) == before {
			return s.hook(context.Background(), f, h, "activate")
		}
	}
	return nil
}

func (s *Server) all() []infer.Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []infer.Slot
	for _, h := range s.models {
		out = append(out, h.slot)
	}
	return out
}

// Deactivate takes the link away and tells the application.
func (s *Server) Deactivate(model string) {
	s.mu.Lock()
	h := s.models[model]
	delete(s.models, model)
	s.mu.Unlock()
	f, err := s.file(model)
	if h == nil || err != nil {
		return
	}
	err = errors.Join(durable.Remove(s.c.FS, "handoff.link", f.Path), durable.Remove(s.c.FS, "handoff.done", f.done()), s.hook(context.Background(), &f, h.slot, "stop"))
	if err != nil {
		s.c.Log.Warn("take back", "model", model, "err", err)
	}
}

// Active returns the slot that an application has.
func (s *Server) Active(model string) (infer.Slot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.models[model]
	if h == nil {
		return infer.Slot{}, false
	}
	return h.slot, true
}

// env is what programs of the application are told.
func (s *Server) env(f *File, slot infer.Slot, path, event string) []string {
	return []string{
		"DUNLIN_EVENT=" + event, "DUNLIN_MODEL=" + slot.Key.Model, "DUNLIN_VERSION=" + slot.Version, "DUNLIN_RELEASE=" + slot.Key.Path,
		"DUNLIN_PATH=" + path, "DUNLIN_FILE=" + filepath.Join(path, filepath.FromSlash(slot.Contract.File)), "PATH=" + searched,
	}
}

// searched is where programs of applications find theirs.
var searched = strings.Join([]string{"/usr/local/bin", "/usr/bin", "/bin"}, ":")
