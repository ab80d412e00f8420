// Package enginetest is an inference engine for tests, written apart from ours: it
// loads models of a format of its own from a folder, and answers the Open Inference
// Protocol over HTTP, as JSON or with raw tensors.
package enginetest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Model is a file named *.linear: scores are weights times the input.
type Model struct {
	Input   string      `json:"input"`
	Shape   []int       `json:"shape"` // of the input
	Output  string      `json:"output"`
	Weights [][]float32 `json:"weights"` // a row a class
	// What is wrong with it.
	DelayMS    int  `json:"delay_ms,omitempty"`
	Refuses    bool `json:"refuses,omitempty"`     // it is not loaded
	Shuffled   int  `json:"shuffled,omitempty"`    // scores are moved by so many places, after so many requests as After
	After      int  `json:"after,omitempty"`       // requests for which it does well
	FailsEvery int  `json:"fails_every,omitempty"` // requests of which one fails

	mu    sync.Mutex
	count int
}

// Engine answers for the models that are loaded.
type Engine struct {
	Dir    string // of the models, each in a folder of its name
	Binary bool   // raw tensors are understood and given

	mu     sync.Mutex
	models map[string]*Model
	loads  []string
}

// Loads are the names that were loaded so far, in order.
func (e *Engine) Loads() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.loads...)
}

// Has tells whether a name is loaded.
func (e *Engine) Has(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.models[name] != nil
}

// Forget is a restart: nothing is loaded any more.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.models = nil
}

func (e *Engine) load(name string) error {
	files, err := filepath.Glob(filepath.Join(e.Dir, filepath.Base(name), "*.linear"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("%d models for %q in %s", len(files), name, e.Dir)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	m := &Model{}
	if err := json.Unmarshal(b, m); err != nil {
		return err
	}
	if m.Refuses {
		return fmt.Errorf("%s cannot be built for this device", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.models == nil {
		e.models = map[string]*Model{}
	}
	e.models[name] = m
	e.loads = append(e.loads, name)
	return nil
}

// ServeHTTP implements http.Handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", func(w http.ResponseWriter, _ *http.Request) {
		extensions := []string{"model_repository"}
		if e.Binary {
			extensions = append(extensions, "binary_tensor_data")
		}
		json.NewEncoder(w).Encode(map[string]any{"name": "stand-in", "extensions": extensions})
	})
	mux.HandleFunc("POST /v2/repository/models/{name}/{act}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if r.PathValue("act") == "load" {
			if err := e.load(name); err != nil {
				fail(w, http.StatusBadRequest, err)
			}
			return
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.models, name)
	})
	mux.HandleFunc("GET /v2/models/{name}/ready", func(w http.ResponseWriter, r *http.Request) { e.model(w, r) })
	mux.HandleFunc("GET /v2/models/{name}", func(w http.ResponseWriter, r *http.Request) {
		if m := e.model(w, r); m != nil {
			json.NewEncoder(w).Encode(map[string]any{"name": r.PathValue("name"),
				"inputs":  []any{map[string]any{"name": m.Input, "datatype": "FP32", "shape": append([]int{-1}, m.Shape[1:]...)}},
				"outputs": []any{map[string]any{"name": m.Output, "datatype": "FP32", "shape": []int{-1, len(m.Weights)}}}})
		}
	})
	mux.HandleFunc("POST /v2/models/{name}/infer", func(w http.ResponseWriter, r *http.Request) {
		if m := e.model(w, r); m != nil {
			if err := e.infer(w, r, m); err != nil {
				fail(w, http.StatusBadRequest, err)
			}
		}
	})
	mux.ServeHTTP(w, r)
}

func fail(w http.ResponseWriter, status int, err error) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

func (e *Engine) model(w http.ResponseWriter, r *http.Request) *Model {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.models[r.PathValue("name")]
	if m == nil {
		fail(w, http.StatusNotFound, fmt.Errorf("no model %q", r.PathValue("name")))
	}
	return m
}

func (e *Engine) infer(w http.ResponseWriter, r *http.Request, m *Model) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	head, raw := body, []byte(nil)
	if h := r.Header.Get("Inference-Header-Content-Length"); h != "" {
		n, err := strconv.Atoi(h)
		if err != nil || n > len(body) || !e.Binary {
			return fmt.Errorf("raw tensors: %q", h)
		}
		head, raw = body[:n], body[n:]
	}
	var q struct {
		Inputs []struct {
			Name, Datatype string
			Data           []float32
		}
	}
	if err := json.Unmarshal(head, &q); err != nil {
		return err
	}
	if len(q.Inputs) != 1 || q.Inputs[0].Name != m.Input || q.Inputs[0].Datatype != "FP32" {
		return fmt.Errorf("the input %s of FP32 is wanted, not %+v", m.Input, q.Inputs)
	}
	x := q.Inputs[0].Data
	for ; len(raw) >= 4; raw = raw[4:] {
		x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
	}
	y, err := m.run(r.Context(), x)
	if err != nil {
		return err
	}
	out := map[string]any{"name": m.Output, "datatype": "FP32", "shape": []int{1, len(y)}}
	if !e.Binary {
		out["data"] = y
		return json.NewEncoder(w).Encode(map[string]any{"outputs": []any{out}})
	}
	out["parameters"] = map[string]any{"binary_data_size": 4 * len(y)}
	b, err := json.Marshal(map[string]any{"outputs": []any{out}})
	if err != nil {
		return err
	}
	w.Header().Set("Inference-Header-Content-Length", strconv.Itoa(len(b)))
	for _, v := range y {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	_, err = w.Write(b)
	return err
}

func (m *Model) run(ctx context.Context, x []float32) ([]float32, error) {
	m.mu.Lock()
	m.count++
	count := m.count
	m.mu.Unlock()
	slow := time.NewTimer(time.Duration(m.DelayMS) * time.Millisecond)
	defer slow.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-slow.C:
	}
	if m.FailsEvery > 0 && count > m.After && count%m.FailsEvery == 0 {
		return nil, fmt.Errorf("request %d fails", count)
	}
	y := make([]float32, len(m.Weights))
	for k, row := range m.Weights {
		if len(row) != len(x) {
			return nil, fmt.Errorf("%d numbers, %d are wanted", len(x), len(row))
		}
		at := k
		if count > m.After {
			at = (k + m.Shuffled) % len(y)
		}
		for i, v := range row {
			y[at] += v * x[i]
		}
	}
	return y, nil
}
