package litert

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const root = "../../.."

// library is the official runtime of the architecture that the test runs on.
func library(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("DUNLIN_TEST_RUNTIME")
	if path == "" {
		path = filepath.Join(root, "build", "runtime", "litert-2.3.0", runtime.GOARCH, "libLiteRt.so")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		tb.Fatalf("the runtime is missing (%v): run make runtime", err)
	}
	return path
}

func environment(tb testing.TB) *Env {
	tb.Helper()
	l, err := Open(library(tb))
	if err != nil {
		tb.Fatal(err)
	}
	if l.ABI != "2.3" {
		tb.Errorf("ABI %q, want 2.3", l.ABI)
	}
	e, err := l.NewEnv(4)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

func load(tb testing.TB, e *Env, path string) (*Model, error) {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	m, err := e.LoadModelFile(f)
	if err == nil {
		tb.Cleanup(m.Close)
	}
	return m, err
}

// memory is page aligned, as tensors want it.
func memory(tb testing.TB, n int) []byte {
	tb.Helper()
	b, err := unix.Mmap(-1, 0, max(n, 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Munmap(b) })
	return b
}

// TestGolden runs the golden cases of three releases, in real numbers and in
// whole ones, with one thread and with two.
func TestGolden(t *testing.T) {
	e := environment(t)
	for _, release := range []string{"1.0.0", "1.1.0", "1.1.1"} {
		for _, threads := range []int{1, 2} {
			dir := filepath.Join(root, "testbed", "models", "digits", release)
			m, err := load(t, e, filepath.Join(dir, "model.tflite"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := e.Compile(m, Options{Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			in, out := c.Inputs[0], c.Outputs[0]
			if in.Name != "image" || out.Name != "scores" || len(in.Shape) != 4 || in.Shape[1] != 8 {
				t.Fatalf("%+v %+v", in, out)
			}
			if q := in.Quant; (release == "1.1.1") != (q.Kind == "per-tensor" && len(q.Scales) == 1 && q.Scales[0] > 0) {
				t.Errorf("%s: quantization %+v", release, q)
			}
			a, b := room(t, c, true), room(t, c, false)
			set, err := c.Bind([][]byte{a}, [][]byte{b})
			if err != nil {
				t.Fatal(err)
			}
			images, scores := golden(t, dir)
			n, _ := out.Bytes()
			for i := range images.Len() {
				copy(a, images.Row(i))
				if err := c.Run(set); err != nil {
					t.Fatal(err)
				}
				compare(t, release, scores, i, b[:n])
			}
			c.Close()
		}
	}
}

func room(t *testing.T, c *Compiled, input bool) []byte {
	n, err := c.Room(input, 0)
	if err != nil {
		t.Fatal(err)
	}
	return memory(t, n)
}

func golden(t *testing.T, dir string) (images, scores *bundle.Array) {
	b, err := os.ReadFile(filepath.Join(dir, "golden.npz"))
	if err != nil {
		t.Fatal(err)
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		t.Fatal(err)
	}
	return arrays["image"], arrays["scores"]
}

func compare(t *testing.T, release string, scores *bundle.Array, i int, have []byte) {
	want := bundle.Values(scores.DType, scores.Row(i))
	bound := 1e-3
	if scores.DType == "INT8" {
		bound = 3
	}
	for k, x := range bundle.Values(scores.DType, have) {
		if d := math.Abs(x - want[k]); !(d <= bound) {
			t.Fatalf("%s, case %d: %v, want %v", release, i, bundle.Values(scores.DType, have), want)
		}
	}
}

// TestRefused: what is no library and no model is an error with words, not the
// end of the process.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{filepath.Join(dir, "missing.so"), write("text.so", []byte("no library")), write("empty.so", nil)} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "load runtime") {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	e := environment(t)
	model, err := os.ReadFile(filepath.Join(root, "testbed", "models", "digits", "1.1.0", "model.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "short": []byte("TFL3"), "text": bytes.Repeat([]byte("no model "), 100), "cut": model[:len(model)/2], "header": model[:32]} {
		if _, err := load(t, e, write(name, b)); err == nil {
			t.Errorf("%s was taken as a model", name)
		}
	}
}

func TestBindChecksNumbers(t *testing.T) {
	e := environment(t)
	m, err := load(t, e, filepath.Join(root, "testbed", "models", "digits", "1.0.0", "model.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Compile(m, Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Bind(nil, nil); err == nil {
		t.Error("no memory was bound")
	}
	if _, err := c.Bind([][]byte{memory(t, 8)}, [][]byte{memory(t, 4096)}); err == nil {
		t.Error("an input of 8 bytes was bound where 256 are wanted")
	}
}

// TestLayouts are those of the library's headers, which assert them too.
func TestLayouts(t *testing.T) {
	for name, c := range map[string][2]uintptr{
		"any": {unsafe.Sizeof(anyValue{}), 16}, "option": {unsafe.Sizeof(envOption{}), 24},
		"layout": {unsafe.Sizeof(layout{}), 68}, "ranked type": {unsafe.Sizeof(rankedType{}), 72},
	} {
		if c[0] != c[1] {
			t.Errorf("%s has %d bytes, want %d", name, c[0], c[1])
		}
	}
}

func TestTensorBytes(t *testing.T) {
	for _, c := range []struct {
		t Tensor
		n int // -1: an error
	}{
		{Tensor{DType: 1, Shape: []int32{1, 8, 8, 1}}, 256},
		{Tensor{DType: 18, Shape: []int32{3}}, 2},
		{Tensor{DType: 1, Shape: nil}, 4},
		{Tensor{DType: 9, Shape: []int32{4, 0}}, 0},
		{Tensor{DType: 5, Shape: []int32{1}}, -1},
		{Tensor{DType: 1, Shape: []int32{-1, 2}}, -1},
		{Tensor{DType: 1, Shape: []int32{math.MaxInt32, math.MaxInt32, math.MaxInt32}}, -1},
	} {
		n, err := c.t.Bytes()
		if c.n < 0 && err == nil || c.n >= 0 && (err != nil || n != c.n) {
			t.Errorf("%v %v: %d, %v", c.t.DType, c.t.Shape, n, err)
		}
	}
}

func TestErrorText(t *testing.T) {
	for e, want := range map[*Error]string{
		{Func: "F", Status: 501}:                   "F: invalid flatbuffer (501)",
		{Func: "F", Status: 3, Detail: "Node 7 …"}: "F: runtime failure (3): Node 7 …",
		{Func: "F", Status: -77}:                   "F: unlisted status (-77)",
	} {
		var target *Error
		if e.Error() != want || !errors.As(error(e), &target) {
			t.Errorf("%q, want %q", e, want)
		}
	}
}
