package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/engine/enginetest"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/numpy"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

const model = "gate"

// rig is an engine beside a Server, and places for two slots.
type rig struct {
	*Server
	t       *testing.T
	engine  *enginetest.Engine
	http    *httptest.Server
	monitor *observe.Monitor
	slots   string
}

func newRig(t *testing.T, raw bool) *rig {
	t.Helper()
	r := &rig{t: t, engine: &enginetest.Engine{Dir: filepath.Join(t.TempDir(), "models"), Binary: raw}, monitor: observe.NewMonitor(time.Now), slots: t.TempDir()}
	r.http = httptest.NewServer(r.engine)
	t.Cleanup(r.http.Close)
	var err error
	r.Server, err = New(Config{FS: durable.OS{}, Engines: map[string]Engine{model: {URL: r.http.URL, Repository: r.engine.Dir}}, Class: "test", Monitor: r.monitor, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func floats(list []float32) []byte {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// weights tell four things apart by the part of the input that is set.
func weights() [][]float32 {
	w := make([][]float32, 4)
	for k := range w {
		w[k] = make([]float32, 8)
		w[k][2*k], w[k][2*k+1] = 0.5, 0.25
	}
	return w
}

const cases = 24

func input(k int) []float32 { x := make([]float32, 8); x[2*(k%4)] = 1; return x }

// slot fills a place with a model, its golden cases and a contract.
func (r *rig) slot(place, version string, bend func(m *enginetest.Model)) infer.Slot {
	r.t.Helper()
	m := &enginetest.Model{Input: "frame", Shape: []int{1, 8}, Output: "scores", Weights: weights()}
	var in, out []float32
	for k := range cases {
		in = append(in, input(k)...)
		y := make([]float32, 4)
		y[k%4] = 0.5
		out = append(out, y...)
	}
	if bend != nil {
		bend(m)
	}
	dir := filepath.Join(r.slots, place)
	must(r.t, os.RemoveAll(dir))
	must(r.t, os.MkdirAll(filepath.Join(dir, "@runtime"), 0o755))
	b, err := json.Marshal(m)
	must(r.t, err)
	npz, err := numpy.Write(map[string]*numpy.Array{"frame": {DType: "FP32", Shape: []int{cases, 8}, Data: floats(in)}, "scores": {DType: "FP32", Shape: []int{cases, 4}, Data: floats(out)}})
	must(r.t, err)
	for name, data := range map[string][]byte{"gate.linear": b, "golden.npz": npz, "@runtime/lib.so": []byte("not for the engine")} {
		must(r.t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: model, Version: version, File: "gate.linear", Serve: "external",
		Inputs: []bundle.Tensor{{Name: "frame", DType: "FP32", Shape: []int{1, 8}}}, Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 4}}},
		Golden: &bundle.Golden{File: "golden.npz", Cases: cases, Tolerance: map[string]bundle.Tolerance{"scores": {Absolute: 0.01}}}}
	return infer.Slot{Key: observe.Key{Model: model, Path: "production/gate/" + version, Bundle: version}, Version: version, Dir: dir, Contract: c}
}

func (r *rig) ask(k int) ([]float32, infer.Answer, error) {
	a, err := r.Infer(r.t.Context(), model, [][]byte{floats(input(k))})
	var y []float32
	for b := slices.Concat(a.Outputs...); len(b) >= 4; b = b[4:] {
		y = append(y, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return y, a, err
}

// TestLife proves, serves, switches and goes back, as JSON and with raw tensors.
func TestLife(t *testing.T) {
	for name, raw := range map[string]bool{"json": false, "raw": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, raw)
			first := r.slot("a", "1.0.0", nil)
			p, err := r.Prove(t.Context(), first)
			must(t, err)
			if p.Cases != cases || p.Held != cases || p.Cost.P95US == 0 || p.Cost.Start == 0 || p.Kernels != bundle.KernelsExternal {
				t.Errorf("%+v", p)
			}
			must(t, r.Activate(t.Context(), first))
			r.Settle(first)
			if y, a, err := r.ask(2); err != nil || !slices.Equal(y, []float32{0, 0, 0.5, 0}) || a.Slot.Version != "1.0.0" || a.Took <= 0 {
				t.Fatalf("%v %+v %v", y, a, err)
			}
			if _, err := os.Stat(filepath.Join(r.engine.Dir, "gate-a", "@runtime")); err == nil {
				t.Error("the runtime went to the engine")
			}
			second := r.slot("b", "1.1.0", func(m *enginetest.Model) { m.Weights[0][0] = 0.505 })
			_, err = r.Prove(t.Context(), second)
			must(t, err)
			if _, a, _ := r.ask(0); a.Slot.Version != "1.0.0" {
				t.Error("the candidate serves before its time")
			}
			must(t, r.Activate(t.Context(), second))
			if y, a, err := r.ask(0); err != nil || y[0] != 0.505 || a.Slot.Version != "1.1.0" || !r.engine.Has("gate-a") {
				t.Errorf("%v %+v %v; the way back is loaded: %v", y, a, err, r.engine.Has("gate-a"))
			}
			must(t, r.Activate(t.Context(), first)) // back
			if y, _, err := r.ask(0); err != nil || y[0] != 0.5 || r.engine.Has("gate-b") {
				t.Errorf("%v %v; the one that failed is loaded: %v", y, err, r.engine.Has("gate-b"))
			}
			third := r.slot("b", "1.2.0", nil)
			_, err = r.Prove(t.Context(), third)
			must(t, err)
			must(t, r.Activate(t.Context(), third))
			r.Settle(third)
			if r.engine.Has("gate-a") || !r.Ready(model) {
				t.Error("the slot before is loaded after the trial, or the new one is not ready")
			}
			r.Deactivate(model)
			if _, _, err := r.ask(0); !errors.Is(err, infer.ErrUnknown) || r.engine.Has("gate-b") {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestRefused proves what is not fit; what serves is not touched, and the engine
// forgets it.
func TestRefused(t *testing.T) {
	for name, x := range map[string]struct {
		code string
		bend func(m *enginetest.Model, s *infer.Slot)
	}{
		"other answers":      {"prove.golden", func(m *enginetest.Model, _ *infer.Slot) { m.Shuffled = 1 }},
		"other the 2nd time": {"prove.repeat", func(m *enginetest.Model, _ *infer.Slot) { m.Shuffled, m.After = 1, cases+1 }},
		"not loaded":         {"prove.engine", func(m *enginetest.Model, _ *infer.Slot) { m.Refuses = true }},
		"fails now and then": {"prove.engine", func(m *enginetest.Model, _ *infer.Slot) { m.FailsEvery = 5 }},
		"slow": {"prove.latency", func(m *enginetest.Model, s *infer.Slot) {
			m.DelayMS = 5
			s.Contract.Budgets = []bundle.Budget{{Class: "any", LatencyP95US: 1000}}
		}},
		"another output": {"prove.shape", func(m *enginetest.Model, _ *infer.Slot) { m.Output = "logits" }},
		"another shape": {"prove.shape", func(_ *enginetest.Model, s *infer.Slot) {
			s.Contract.Golden, s.Contract.Inputs[0].Shape = nil, []int{1, 9}
		}},
		"another datatype": {"prove.shape", func(_ *enginetest.Model, s *infer.Slot) { s.Contract.Golden, s.Contract.Inputs[0].DType = nil, "INT32" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			first := r.slot("a", "1.0.0", nil)
			must(t, r.Activate(t.Context(), first))
			s := r.slot("b", "1.1.0", nil)
			r.slot("b", "1.1.0", func(m *enginetest.Model) { x.bend(m, &s) })
			p, err := r.Prove(t.Context(), s)
			var refused *infer.Refusal
			if !errors.As(err, &refused) || refused.Code != x.code {
				t.Errorf("%v, want %s", err, x.code)
			}
			if p == nil || r.engine.Has("gate-b") {
				t.Errorf("%+v; loaded: %v", p, r.engine.Has("gate-b"))
			}
			if y, a, err := r.ask(1); err != nil || y[1] != 0.5 || a.Slot.Version != "1.0.0" {
				t.Errorf("%v %v %v", y, a.Slot.Version, err)
			}
		})
	}
}

// TestNobodyThere says nothing about the candidate: the engine is away, or nobody
// named one.
func TestNobodyThere(t *testing.T) {
	r := newRig(t, false)
	r.http.Close()
	_, err := r.Prove(t.Context(), r.slot("a", "1.0.0", nil))
	var refused *infer.Refusal
	if err == nil || errors.As(err, &refused) {
		t.Errorf("%v: the release is not to blame", err)
	}
	s, err := New(Config{FS: durable.OS{}, Monitor: r.monitor, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	if _, err := s.Prove(t.Context(), r.slot("a", "1.0.0", nil)); !errors.As(err, &refused) || refused.Code != "prove.engine" {
		t.Error(err)
	}
}

// TestSwitchLosesNothing switches back and forth under load: every request is
// answered, by one of the two.
func TestSwitchLosesNothing(t *testing.T) {
	r := newRig(t, true)
	a, b := r.slot("a", "1.0.0", nil), r.slot("b", "1.1.0", nil)
	must(t, r.Activate(t.Context(), a))
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	by := map[string]int{}
	var mu sync.Mutex
	for range 4 {
		asking.Go(func() {
			for ctx.Err() == nil {
				k := rand.N(4)
				y, from, err := r.ask(k)
				if err != nil || y[k] != 0.5 {
					t.Errorf("%v %v", y, err)
					return
				}
				mu.Lock()
				by[from.Slot.Version]++
				mu.Unlock()
			}
		})
	}
	for range 10 {
		for _, s := range []infer.Slot{b, a} {
			_, err := r.Prove(t.Context(), s)
			must(t, err)
			must(t, r.Activate(t.Context(), s))
		}
	}
	stop()
	asking.Wait()
	if by["1.0.0"] == 0 || by["1.1.0"] == 0 {
		t.Errorf("answered by %v", by)
	}
}

// TestEngineRestarts has an engine forget everything: requests fail with what a client
// may wait for, and the model comes back by itself.
func TestEngineRestarts(t *testing.T) {
	r := newRig(t, false)
	s := r.slot("a", "1.0.0", nil)
	must(t, r.Activate(t.Context(), s))
	r.engine.Forget()
	if _, _, err := r.ask(0); !errors.Is(err, infer.ErrEngine) || r.engine.Has("gate-b") {
		t.Errorf("%v, want one that says to wait", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, _, err := r.ask(0); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
	}
	codes := map[string]uint64{}
	for _, x := range r.monitor.Take(true) {
		for c, n := range x.Errors {
			codes[c] += n
		}
	}
	if codes["engine.refused"] == 0 {
		t.Errorf("nobody heard of it: %v", codes)
	}
}

// TestCopyIsMended gives the engine its files again when somebody has changed them, and
// loads them.
func TestCopyIsMended(t *testing.T) {
	r := newRig(t, false)
	s := r.slot("a", "1.0.0", nil)
	must(t, r.Activate(t.Context(), s))
	path := filepath.Join(r.engine.Dir, "gate-a", "gate.linear")
	must(t, os.WriteFile(path, []byte(`{"input":"frame","output":"scores","weights":[[9]]}`), 0o644))
	must(t, r.Activate(t.Context(), s))
	want, err := os.ReadFile(filepath.Join(s.Dir, "gate.linear"))
	must(t, err)
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) || len(r.engine.Loads()) != 2 {
		t.Errorf("%v; loaded %v", err, r.engine.Loads())
	}
}

// TestBusy refuses more requests than may be here.
func TestBusy(t *testing.T) {
	r := newRig(t, false)
	must(t, r.Activate(t.Context(), r.slot("a", "1.0.0", nil)))
	for range maxQueued {
		_, leave, err := r.enter(model)
		must(t, err)
		defer leave()
	}
	if _, _, err := r.ask(0); !errors.Is(err, infer.ErrBusy) {
		t.Error(err)
	}
}

// TestWrongInputs never reach the engine.
func TestWrongInputs(t *testing.T) {
	r := newRig(t, false)
	must(t, r.Activate(t.Context(), r.slot("a", "1.0.0", nil)))
	for _, in := range [][][]byte{nil, {make([]byte, 31)}, {make([]byte, 32), nil}} {
		if _, err := r.Infer(t.Context(), model, in); !errors.Is(err, infer.ErrInputs) {
			t.Errorf("%d inputs: %v", len(in), err)
		}
	}
}

// TestMadEngine has an engine answer nonsense: an error each time, never an answer.
func TestMadEngine(t *testing.T) {
	ok := `{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}`
	for name, x := range map[string]struct {
		header, body string
		status       int
	}{
		"no JSON":              {"", "hello", 200},
		"nothing":              {"", "", 200},
		"no outputs":           {"", `{"outputs":[]}`, 200},
		"too few numbers":      {"", `{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,4],"data":[1,2,3]}]}`, 200},
		"too many numbers":     {"", `{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,5],"data":[1,2,3,4,5]}]}`, 200},
		"another datatype":     {"", `{"outputs":[{"name":"scores","datatype":"INT32","shape":[1,4],"data":[1,2,3,4]}]}`, 200},
		"a datatype of nobody": {"", `{"outputs":[{"name":"scores","datatype":"X","shape":[1,4],"data":[1,2,3,4]}]}`, 200},
		"a shape below zero":   {"", `{"outputs":[{"name":"scores","datatype":"FP32","shape":[-1,4],"data":[]}]}`, 200},
		"a huge shape":         {"", `{"outputs":[{"name":"scores","datatype":"FP32","shape":[1099511627776,1099511627776],"data":[]}]}`, 200},
		"raw and not there":    {"", `{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}`, 200},
		"a header too long":    {"9999", ok, 200},
		"a header below zero":  {"-1", ok, 200},
		"an error":             {"", `{"error":"\u001b[2Jno"}`, 500},
		"somewhere else":       {"", "", 302},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if x.header != "" {
					w.Header().Set(headerLength, x.header)
				}
				w.WriteHeader(x.status)
				w.Write([]byte(x.body))
			})
			s := httptest.NewServer(h)
			defer s.Close()
			c, err := dial(s.URL)
			must(t, err)
			r := &rig{t: t, slots: t.TempDir()}
			out, err := c.infer(t.Context(), "x", r.slot("a", "1.0.0", nil).Contract, [][]byte{floats(input(0))})
			if !errors.Is(err, errEngine) || out != nil || bytes.ContainsRune([]byte(err.Error()), 0x1b) {
				t.Errorf("%v, %v", out, err)
			}
		})
	}
}

// TestUnixSocket reaches an engine by a socket of the file system.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	s := &http.Server{Handler: &enginetest.Engine{Binary: true}}
	go s.Serve(l)
	defer s.Close()
	c, err := dial("unix://" + path)
	must(t, err)
	if must(t, c.hello(t.Context())); !c.binary.Load() {
		t.Error("it did not say what it can")
	}
}

func TestCheckAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"http://127.0.0.1:9000": true, "http://[::1]:9000/": true, "http://localhost:9000": true, "unix:///run/engine.sock": true,
		"http://192.168.0.7:9000": false, "https://127.0.0.1": false, "unix://run/engine.sock": false, "unix:run": false, "": false, "http://127.0.0.1/v2": false, "http://engine.example": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func FuzzOutputs(f *testing.F) {
	f.Add([]byte(`{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}`), "")
	f.Add([]byte(`{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":4}}]}1234`), "97")
	f.Add([]byte(`{"outputs":[{"name":"x","datatype":"BYTES","shape":[0],"data":["a"]},{"name":"scores","datatype":"","shape":[],"data":[[]]}]}`), "1")
	c := &bundle.Contract{Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 4}}, {Name: "x", DType: "INT8", Shape: []int{-1, 2}}}}
	f.Fuzz(func(t *testing.T, b []byte, length string) {
		out, err := outputs(c, b, length)
		if err == nil && (len(out) != 2 || len(out[0]) != 16 || len(out[1])%2 != 0) {
			t.Errorf("%v", out)
		}
	})
}
