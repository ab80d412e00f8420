// Package infertest gives tests a real worker: the sandbox, dunlin-infer, the
// official runtime and the digit readers of testbed/models.
package infertest

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// Main runs a package's tests. The test's own program is the launcher of its
// workers, as the agent is of its own.
func Main(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Word {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// built is the worker, made once by the first test that wants it.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Worker returns the path of dunlin-infer: DUNLIN_TEST_WORKER, or built here.
func Worker(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("DUNLIN_TEST_WORKER"); path != "" {
		return path
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "dunlin-worker-"); built.err != nil {
			return
		}
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", built.dir, "./agent/cmd/dunlin-infer")
		c.Dir, c.Env = Root(tb), append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+runtime.GOARCH)
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the worker: %w: %s", err, out)
			return
		}
		built.path = filepath.Join(built.dir, "dunlin-infer")
		if Emulated() {
			built.path, built.err = emulate(built.path)
		}
	})
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return built.path
}

// Emulated tells whether this test runs under qemu-user, whose kernel starts no
// program of the emulated architecture.
func Emulated() bool { return os.Getenv("QEMU_LD_PREFIX") != "" }

// emulate wraps a program in a script that the real kernel starts.
func emulate(program string) (string, error) {
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		return "", err
	}
	script := program + ".sh"
	return script, durable.WriteFile(durable.OS{}, "infertest", script, []byte("#!/bin/sh\nexec "+qemu+" -cpu cortex-a72 "+program+` "$@"`+"\n"), 0o700)
}

// Root is the folder of go.mod.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	tb.Fatalf("no go.mod above %s", dir)
	return ""
}

// Runtime returns the path of the official library: DUNLIN_TEST_RUNTIME, or where
// `make runtime` puts it.
func Runtime(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("DUNLIN_TEST_RUNTIME")
	if path == "" {
		path = filepath.Join(Root(tb), "build", "runtime", "litert-2.3.0", runtime.GOARCH, "libLiteRt.so")
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("the runtime is missing (%v): run make runtime", err)
	}
	return path
}

// Server returns a Server with nothing to serve yet; it is closed with the test.
func Server(tb testing.TB) (*infer.Server, *observe.Monitor) {
	tb.Helper()
	c := Config(tb)
	s := infer.New(c)
	tb.Cleanup(s.Close)
	return s, c.Monitor
}

// Config is what Server uses.
func Config(tb testing.TB) infer.Config {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return infer.Config{
		FS: durable.OS{}, Launcher: self, Worker: Worker(tb), CacheDir: tb.TempDir(), Class: "test", Threads: 1,
		Monitor: observe.NewMonitor(time.Now), Log: slog.New(slog.DiscardHandler),
	}
}

// Digits returns a release of the digit reader as a slot: "1.1.0", "wrong", ….
func Digits(tb testing.TB, release string) infer.Slot {
	tb.Helper()
	dir := filepath.Join(Root(tb), "testbed", "models", "digits", release)
	s := Model(tb, dir, "model.tflite")
	c := s.Contract
	c.Version = release
	s.Version = release
	scores := Array(tb, filepath.Join(dir, "golden.npz"), c.Outputs[0].Name)
	c.Golden = &bundle.Golden{File: "golden.npz", Cases: scores.Len(), Tolerance: map[string]bundle.Tolerance{c.Outputs[0].Name: {Relative: 0.05, Top: 1}}}
	c.Budgets = []bundle.Budget{{Class: "any", LatencyP95US: 1_000_000, PeakMemoryKB: 64 << 10, StartMS: 60_000}}
	c.Watch = &bundle.Watch{Output: c.Outputs[0].Name}
	c.Reference = reference(tb, filepath.Join(dir, "reference.npz"), c.Outputs[0].Name)
	c.Probation = bundle.Probation{Minutes: 0.05, Requests: 100}
	if release == "shape" { // its publisher's word against its file's
		c.Inputs[0].Shape = []int{1, 8, 8, 1}
	}
	return s
}

// Model returns any .tflite file as a slot with the contract that it describes
// itself.
func Model(tb testing.TB, dir, file string) infer.Slot {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		tb.Fatal(err)
	}
	m, err := tflite.Parse(b)
	if err != nil {
		tb.Fatal(err)
	}
	c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: "digits", Version: "1.0.0", File: file}
	if c.Inputs, c.Outputs, err = bundle.Describe(m); err != nil {
		tb.Fatal(err)
	}
	return infer.Slot{
		Key:     observe.Key{Model: "digits", Path: "dev/digits/" + filepath.Base(dir), Bundle: bundle.DigestOf(b), Runtime: "sha256:runtime"},
		Version: "1.0.0", Dir: dir, Library: Runtime(tb), Contract: c,
	}
}

func reference(tb testing.TB, file, name string) *bundle.Reference {
	a := Array(tb, file, name)
	r := &bundle.Reference{Samples: uint64(a.Len()), Score: sketch.NewHistogram(0, 1, 20)}
	for i := range a.Len() {
		best, values := 0, bundle.Values(a.DType, a.Row(i))
		for k, v := range values {
			if v > values[best] {
				best = k
			}
		}
		for len(r.Classes) < len(values) {
			r.Classes = append(r.Classes, 0)
		}
		r.Classes[best]++
		r.Score.Add(values[best])
	}
	return r
}

// Array reads one array of an .npz file.
func Array(tb testing.TB, file, name string) *bundle.Array {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		tb.Fatal(err)
	}
	if arrays[name] == nil {
		tb.Fatalf("%s: no array %q", file, name)
	}
	return arrays[name]
}
