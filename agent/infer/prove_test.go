package infer_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

func refusalOf(t *testing.T, err error) *infer.Refusal {
	t.Helper()
	var r *infer.Refusal
	if err != nil && !errors.As(err, &r) {
		t.Fatal(err)
	}
	return r
}

// array is what numpy writes.
func array(descr string, shape []int, data []byte) []byte {
	dims := strings.Trim(strings.ReplaceAll(fmt.Sprint(shape), " ", ","), "[]") + ","
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n", descr, dims)
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	return append(append(b, header...), data...)
}

func npz(t *testing.T, path string, arrays map[string][]byte) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range arrays {
		f, err := z.Create(name + ".npy")
		if err != nil {
			t.Fatal(err)
		}
		f.Write(data)
	}
	if err := errors.Join(z.Close(), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// sliced is a digit reader whose golden cases of site=b are wrong: the highest
// score is another's.
func sliced(t *testing.T) infer.Slot {
	slot := infertest.Digits(t, "1.1.0")
	dir := t.TempDir()
	copyFile(t, filepath.Join(slot.Dir, "model.tflite"), filepath.Join(dir, "model.tflite"))
	images, scores := infertest.Array(t, filepath.Join(slot.Dir, "golden.npz"), "image"), infertest.Array(t, filepath.Join(slot.Dir, "golden.npz"), "scores")
	var labels []byte
	for i := range scores.Len() {
		if i%4 != 0 {
			labels = append(labels, "site=a\x00\x00\x00\x00"...)
			continue
		}
		labels = append(labels, "site=b,dim"...)
		row := scores.Row(i)
		copy(row, slices.Concat(row[4:], row[:4]))
	}
	npz(t, filepath.Join(dir, "golden.npz"), map[string][]byte{
		"image": array("<f4", images.Shape, images.Data), "scores": array("<f4", scores.Shape, scores.Data), "where": array("|S10", []int{scores.Len()}, labels),
	})
	slot.Dir, slot.Contract.Golden.Slices = dir, "where"
	slot.Contract.Golden.Tolerance = map[string]bundle.Tolerance{"scores": {Top: 1, Pass: 0.5}}
	return slot
}

// TestSlices: a share of the cases may be too kind to one site.
func TestSlices(t *testing.T) {
	s, _ := infertest.Server(t)
	for gap, code := range map[float64]string{0: "", 1: "", 0.5: "prove.slices"} {
		slot := sliced(t)
		slot.Contract.Budgets[0].MaxSliceGap = gap
		p, err := s.Prove(t.Context(), slot)
		if r := refusalOf(t, err); codeOf(r) != code || r != nil && (!strings.Contains(r.Reason, "of site=a hold") || !strings.Contains(r.Reason, "of site=b: a gap of 1.000")) {
			t.Errorf("gap %v: %v", gap, err)
		}
		if len(p.Slices) != 3 || p.Slices[0].Slice != "dim" || p.Slices[1].Held != p.Slices[1].Cases || p.Slices[2].Held != 0 || p.Slices[2].Cases == 0 || p.Held != p.Slices[1].Held {
			t.Errorf("gap %v: %+v", gap, p)
		}
	}
}

// counter is a model whose output is the sum of all its inputs, and one each.
func counter(t *testing.T) infer.Slot {
	const add, callOnce, varHandle, readVariable, assignVariable = 0, 129, 142, 143, 144
	tensor := func(name string, buffer uint32) tflite.Tensor {
		return tflite.Tensor{Name: name, Type: tflite.Float32, Shape: []int32{1, 1}, Buffer: buffer}
	}
	handle := tflite.Tensor{Name: "handle", Type: tflite.Resource}
	op := func(code uint32, in, out []int32) tflite.Operator {
		return tflite.Operator{OpCode: code, Inputs: in, Outputs: out}
	}
	once := op(1, nil, nil)
	once.Options, once.Calls = "CallOnceOptions", []int32{1}
	m := &tflite.Model{Version: tflite.Version, Buffers: make([]tflite.Buffer, 3)}
	for _, code := range []int32{add, callOnce, varHandle, readVariable, assignVariable} {
		m.OpCodes = append(m.OpCodes, tflite.OpCode{Builtin: code, Version: 1})
	}
	m.Subgraphs = []tflite.Subgraph{{
		Name: "main", Tensors: []tflite.Tensor{tensor("in", 0), handle, tensor("state", 0), tensor("sum", 0), tensor("one", 1), tensor("out", 0)},
		Inputs: []int32{0}, Outputs: []int32{5},
		Operators: []tflite.Operator{
			once, op(2, nil, []int32{1}), op(3, []int32{1}, []int32{2}), op(0, []int32{0, 2}, []int32{3}), op(0, []int32{3, 4}, []int32{5}), op(4, []int32{1, 5}, nil),
		},
	}, {
		Name: "begin", Tensors: []tflite.Tensor{handle, tensor("zero", 2)},
		Operators: []tflite.Operator{op(2, nil, []int32{0}), op(4, []int32{0, 1}, nil)},
	}}
	m.Signatures = []tflite.Signature{{Key: "serving_default", Inputs: []tflite.Named{{Name: "in", Tensor: 0}}, Outputs: []tflite.Named{{Name: "out", Tensor: 5}}}}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.tflite"), tflitetest.MarshalData(m, map[int][]byte{1: floats(1), 2: floats(0)}), 0o600); err != nil {
		t.Fatal(err)
	}
	slot := infertest.Model(t, dir, "model.tflite")
	npz(t, filepath.Join(dir, "golden.npz"), map[string][]byte{"in": array("<f4", []int{4, 1}, floats(1, 2, 3, 0)), "out": array("<f4", []int{4, 1}, floats(2, 5, 9, 10))})
	slot.Contract.Golden = &bundle.Golden{File: "golden.npz", Cases: 4, Tolerance: map[string]bundle.Tolerance{"out": {Absolute: 0.001}}}
	slot.Contract.State = "carry"
	return slot
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// TestState: the cases of a model that carries state are judged in order from a fresh
// state, and repeated so; one that says it carries none is found out.
func TestState(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := counter(t)
	p, err := s.Prove(t.Context(), slot)
	if err != nil || p.Held != 4 {
		t.Fatalf("%+v %v", p, err)
	}
	activate(t, s, slot)
	if a, err := s.Infer(t.Context(), "digits", [][]byte{floats(41)}); err != nil || !bytes.Equal(a.Outputs[0], floats(42)) {
		t.Errorf("the first answer is not of a fresh state: %v %v", a.Outputs, err)
	}
	slot.Contract.State = ""
	slot.Contract.Golden.Tolerance["out"] = bundle.Tolerance{Absolute: 1000}
	_, err = s.Prove(t.Context(), slot)
	if r := refusalOf(t, err); codeOf(r) != "prove.repeat" || !strings.Contains(r.Reason, "case 0 gives something else when it is run again: output out: element 0 is") {
		t.Errorf("a state that nobody told of: %v", err)
	}
	for repeat, code := range map[string]string{bundle.RepeatAny: "", bundle.RepeatClose: ""} {
		if slot.Contract.Golden.Repeat = repeat; repeat == bundle.RepeatClose {
			slot.Contract.Golden.Tolerance["out"] = bundle.Tolerance{Absolute: 1000}
		}
		if _, err := s.Prove(t.Context(), slot); codeOf(refusalOf(t, err)) != code {
			t.Errorf("repeat %q: %v", repeat, err)
		}
	}
}

// TestLadder: what XNNPACK does not run is run by the built-in kernels, said so, and
// served so.
func TestLadder(t *testing.T) {
	c := infertest.Config(t)
	self := c.Launcher
	c.Launcher = filepath.Join(t.TempDir(), "launcher")
	script := `case "$*" in *"-kernels xnnpack"*) echo "SIGSEGV: segmentation violation" >&2; exit 2;; esac; exec "` + self + `" "$@"`
	if err := os.WriteFile(c.Launcher, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := infer.New(c)
	t.Cleanup(s.Close)
	slot := infertest.Digits(t, "1.1.0")
	p, err := s.Prove(t.Context(), slot)
	if err != nil || p.Kernels != infer.Builtin || p.Held != p.Cases || len(p.Tried) != 1 || p.Tried[0].Kernels != infer.XNNPACK || !strings.Contains(p.Tried[0].Why, "prove.crash") {
		t.Fatalf("%+v %v", p, err)
	}
	slot.Setup = infer.Setup{Kernels: p.Kernels, Threads: p.Threads}
	activate(t, s, slot)
	if line := commandLine(t, s); !strings.Contains(line, "-kernels builtin") || strings.Contains(line, "-cache") {
		t.Errorf("served by %q", line)
	}
	// When nothing does, the first reason stands; another one is joined to it.
	slot = infertest.Digits(t, "1.1.0")
	slot.Contract.Budgets[0].StartMS = 1
	_, err = s.Prove(t.Context(), slot)
	if r := refusalOf(t, err); codeOf(r) != "prove.start" || !strings.Contains(r.Reason, "because with XNNPACK's: the worker is gone (crash)") {
		t.Errorf("%v", err)
	}
}

func commandLine(t *testing.T, s *infer.Server) string {
	return strings.ReplaceAll(read(t, filepath.Join("/proc", strconv.Itoa(s.Status()[0].PID)), "cmdline"), "\x00", " ")
}

// TestAccelerators: one that is not here, and one whose library does not do, are
// facts; the candidate is proven on the processor.
func TestAccelerators(t *testing.T) {
	c := infertest.Config(t)
	c.Accelerators = []string{infer.GPU, infer.NPU, infer.EdgeTPU}
	s := infer.New(c)
	t.Cleanup(s.Close)
	slot := infertest.Digits(t, "1.0.0")
	lib := filepath.Join(t.TempDir(), "libLiteRt.so")
	copyFile(t, slot.Library, lib)
	slot.Library = lib
	if err := os.WriteFile(filepath.Join(filepath.Dir(lib), "libLiteRtWebGpuAccelerator.so"), []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := s.Prove(t.Context(), slot)
	if err != nil || p.Kernels != infer.XNNPACK || len(p.Tried) != 3 {
		t.Fatalf("%+v %v", p, err)
	}
	for i, want := range []string{"gpu", "npu: not on this device: libLiteRtDispatch_*.so does not lie beside", "edgetpu: not on this device"} {
		if have := p.Tried[i].Kernels + ": " + p.Tried[i].Why; !strings.HasPrefix(have, want) {
			t.Errorf("%q, want %q", have, want)
		}
		t.Log(p.Tried[i])
	}
}

// TestTuned: where Config leaves it open, the proof finds how many workers and
// threads there are to be, and the slot is served so; state is never split.
func TestTuned(t *testing.T) {
	c := infertest.Config(t)
	c.Threads, c.Workers = 0, 0
	s := infer.New(c)
	t.Cleanup(s.Close)
	slot := infertest.Digits(t, "slow")
	p, err := s.Prove(t.Context(), slot)
	if err != nil || p.Threads < 1 || p.Workers < 1 || p.Workers*p.Threads > runtime.NumCPU() {
		t.Fatalf("%+v %v", p, err)
	}
	t.Logf("%d workers, %d threads", p.Workers, p.Threads)
	slot.Setup = infer.Setup{Kernels: p.Kernels, Workers: 3, Threads: 2}
	activate(t, s, slot)
	until(t, "three workers", func() bool { return len(s.Status()[0].PIDs) == 3 })
	if line := commandLine(t, s); !strings.Contains(line, "-threads 2") {
		t.Errorf("served by %q", line)
	}
	carries := counter(t)
	p, err = s.Prove(t.Context(), carries)
	if err != nil || p.Workers != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	c.Workers = 3
	many := infer.New(c)
	t.Cleanup(many.Close)
	activate(t, many, carries)
	for n := range 4 {
		if a, err := many.Infer(t.Context(), "digits", [][]byte{floats(1)}); err != nil || !bytes.Equal(a.Outputs[0], floats(2*float32(n+1))) {
			t.Errorf("after %d: %v %v", n, a.Outputs, err)
		}
	}
}

// TestRelative: a candidate may be bounded by what the active slot takes on this very
// device; without one nothing is compared.
func TestRelative(t *testing.T) {
	s, _ := infertest.Server(t)
	candidate := func(most float64) infer.Slot {
		slot := infertest.Digits(t, "slow")
		slot.Contract.Budgets[0].Relative = &bundle.Relative{LatencyP50: most}
		return slot
	}
	fast := infertest.Digits(t, "1.0.0")
	fast.Contract.Budgets[0].Relative = &bundle.Relative{LatencyP50: 0.01}
	if p, err := s.Prove(t.Context(), fast); err != nil || p.Base != nil {
		t.Errorf("nothing is active: %+v %v", p, err)
	}
	activate(t, s, infertest.Digits(t, "1.0.0"))
	p, err := s.Prove(t.Context(), candidate(1.5))
	r := refusalOf(t, err)
	if codeOf(r) != "prove.relative_latency" || p.Base == nil || p.Base.P50US == 0 || p.Base.Start == 0 || p.Base.PeakKB == 0 {
		t.Fatalf("%+v %v", p, err)
	}
	t.Log(r)
	big := candidate(0)
	big.Contract.Budgets[0].Relative = &bundle.Relative{PeakMemory: 10}
	if p, err := s.Prove(t.Context(), big); err != nil || p.Base == nil {
		t.Errorf("%+v %v", p, err)
	}
}

// TestColdStart: the start from the disk has a budget of its own.
func TestColdStart(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.0.0")
	slot.Contract.Budgets[0].ColdStartMS = 1
	if _, err := s.Prove(t.Context(), slot); codeOf(refusalOf(t, err)) != "prove.cold_start" {
		t.Error(err)
	}
}

// TestRefusalNames: who reads why knows the case, the output, the element and both
// values.
func TestRefusalNames(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := infertest.Digits(t, "wrong")
	slot.Contract.Golden.Tolerance["scores"] = bundle.Tolerance{Relative: 0.01}
	_, err := s.Prove(t.Context(), slot)
	var failed, cases, n, element int
	var have, want, bound float64
	r := refusalOf(t, err)
	if r == nil {
		t.Fatal("a wrong model is proven")
	}
	if _, err := fmt.Sscanf(r.Reason, "%d of %d golden cases failed; case %d: output scores: element %d is %g, expected %g within %g", &failed, &cases, &n, &element, &have, &want, &bound); err != nil && err != io.EOF {
		t.Errorf("%q: %v", r.Reason, err)
	}
}
