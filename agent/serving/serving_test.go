package serving

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/engine"
	"github.com/dunlin-edge/dunlin/agent/engine/enginetest"
	"github.com/dunlin-edge/dunlin/agent/handoff"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

func TestMain(m *testing.M) { infertest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// external is a release of the digit reader for an engine: the same tensors, other
// numbers.
func external(t *testing.T, like infer.Slot) infer.Slot {
	t.Helper()
	m := enginetest.Model{Input: like.Contract.Inputs[0].Name, Shape: like.Contract.Inputs[0].Shape, Output: like.Contract.Outputs[0].Name}
	for range 10 {
		m.Weights = append(m.Weights, make([]float32, 64))
	}
	b, err := json.Marshal(&m)
	must(t, err)
	s := like
	s.Dir, s.Version, s.Key.Path, s.Key.Bundle = filepath.Join(t.TempDir(), "b"), "2.0.0", "production/digits/2.0.0", "two"
	must(t, os.MkdirAll(s.Dir, 0o755))
	must(t, os.WriteFile(filepath.Join(s.Dir, "digits.linear"), b, 0o644))
	s.Contract = &bundle.Contract{Model: like.Contract.Model, Version: "2.0.0", File: "digits.linear", Serve: External, Inputs: like.Contract.Inputs, Outputs: like.Contract.Outputs}
	return s
}

// TestKindChanges has releases of one model served by a worker, an engine and an
// application in turn, under load: nothing is lost but what nobody answers, and whoever
// served before has ended.
func TestKindChanges(t *testing.T) {
	workers, monitor := infertest.Server(t)
	byWorker := infertest.Digits(t, "1.1.0")
	model := byWorker.Key.Model
	beside := &enginetest.Engine{Dir: filepath.Join(t.TempDir(), "models"), Binary: true}
	web := httptest.NewServer(beside)
	defer web.Close()
	log := slog.New(slog.DiscardHandler)
	engines, err := engine.New(engine.Config{FS: durable.OS{}, Engines: map[string]engine.Engine{model: {URL: web.URL, Repository: beside.Dir}}, Monitor: monitor, Log: log})
	must(t, err)
	link := filepath.Join(t.TempDir(), "current")
	k := New(workers, engines, handoff.New(handoff.Config{FS: durable.OS{}, Files: map[string]handoff.File{model: {Path: link}}, Log: log}))
	byEngine := external(t, byWorker)
	byFile := byWorker
	c := *byWorker.Contract
	c.Serve = File
	byFile.Contract, byFile.Key.Bundle = &c, "three"

	input := [][]byte{make([]byte, 256)}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	by, allowed := map[string]int{}, true // allowed: nobody may answer
	for range 2 {
		asking.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				before := allowed
				mu.Unlock()
				a, err := k.Infer(t.Context(), model, input)
				mu.Lock()
				switch {
				case err == nil:
					by[KindOf(a.Slot.Contract)]++
				case !before && !allowed || !errors.Is(err, infer.ErrUnknown):
					t.Error(err)
					stop()
				}
				mu.Unlock()
			}
		})
	}
	may := func(b bool) { mu.Lock(); allowed = b; mu.Unlock() }
	must(t, k.Activate(t.Context(), byWorker))
	may(false)
	for range 5 {
		must(t, k.Activate(t.Context(), byEngine))
		if _, ok := workers.Active(model); ok || !k.Ready(model) || len(k.Models()) != 1 {
			t.Fatal("the worker is still there, or the engine is not ready")
		}
		must(t, k.Activate(t.Context(), byWorker))
		if beside.Has(model + "-b") {
			t.Fatal("the engine still has it")
		}
	}
	may(true)
	must(t, k.Activate(t.Context(), byFile))
	if s, ok := k.Serving(model); !ok || s.Key != byFile.Key || len(k.Models()) != 0 || k.Ready(model) {
		t.Error("a file answers requests")
	}
	if _, err := os.Stat(filepath.Join(link, "model.tflite")); err != nil {
		t.Error(err)
	}
	must(t, k.Activate(t.Context(), byWorker))
	may(false)
	if _, err := os.Lstat(link); err == nil {
		t.Error("the application still has it")
	}
	stop()
	asking.Wait()
	k.Deactivate(model)
	if _, err := k.Infer(t.Context(), model, input); !errors.Is(err, infer.ErrUnknown) {
		t.Error(err)
	}
	if math.Min(float64(by[Worker]), float64(by[External])) < 1 {
		t.Errorf("answered by %v", by)
	}
}
