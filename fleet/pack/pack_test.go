package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/content/oci"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

const spec = `model: gate
version: 1.0.0
file: model.tflite
labels: labels.txt
golden: golden.npz
input: tensor
output: classes softmax
reference: reference.npz
tolerance: {scores: {relative: 0.02, top: 1}}
budgets: {pi: {latency_p95_us: 9000}, any: {start_ms: 500}}
probation: {minutes: 0.5, requests: 20}
files: [docs/card.md]
about: {licence: Apache-2.0}
`

// folder writes a publisher's folder; changes replace or, if empty, remove files.
func folder(t *testing.T, changes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		SpecName: spec, "labels.txt": "a\nb\nc\n", "docs/card.md": "# Gate\n",
		"model.tflite":  string(tflitetest.Marshal(tflitetest.Classifier(3))),
		"golden.npz":    arrays(map[string][]float32{"image": {0, 0, 0, 1, 1, 1}, "scores": {1, 0, 0, 0, 1, 0}}, 3),
		"reference.npz": arrays(map[string][]float32{"scores": {0.92, 0.05, 0.03, 0.2, 0.72, 0.08, 0.1, 0.62, 0.28, 0.97, 0.03, 0}}, 3),
	}
	for name, text := range changes {
		files[name] = text
	}
	for name, text := range files {
		if text == "" {
			continue
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// arrays writes an .npz of float32 arrays with rows of the given width.
func arrays(list map[string][]float32, width int) string {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(list)) {
		values := list[name]
		f, _ := w.Create(name + ".npy")
		header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }\n", len(values)/width, width)
		data := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
		data = append(data, header...)
		for _, v := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		f.Write(data)
	}
	w.Close()
	return b.String()
}

func pack(t *testing.T, changes map[string]string) (*Plan, error) {
	t.Helper()
	return Model(Config{Dir: folder(t, changes)})
}

func TestPackModel(t *testing.T) {
	p, err := pack(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Contract
	want := &bundle.Contract{
		Number: 1, Kind: bundle.KindModel, Model: "gate", Version: "1.0.0", File: "model.tflite", Labels: "labels.txt",
		Runtime:   &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"},
		Inputs:    []bundle.Tensor{{Name: "image", DType: "FP32", Shape: []int{1, 3}, Meaning: &bundle.Meaning{Kind: "tensor"}}},
		Outputs:   []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 3}, Meaning: &bundle.Meaning{Kind: "classes", Score: "softmax"}}},
		Golden:    &bundle.Golden{File: "golden.npz", Cases: 2, Tolerance: map[string]bundle.Tolerance{"scores": {Relative: 0.02, Top: 1}}},
		Budgets:   []bundle.Budget{{Class: "any", StartMS: 500}, {Class: "pi", LatencyP95US: 9000}},
		Watch:     &bundle.Watch{Output: "scores"},
		Reference: &bundle.Reference{Samples: 4, Score: c.Reference.Score, Classes: []uint64{2, 2, 0}, Entropy: c.Reference.Entropy, Margin: c.Reference.Margin},
		Probation: bundle.Probation{Minutes: 0.5, Requests: 20}, Provenance: &bundle.Provenance{Licence: "Apache-2.0"},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	score := make([]uint64, 20)
	score[12], score[14], score[18], score[19] = 1, 1, 1, 1 // 0.62, 0.72, 0.92, 0.97
	if !slices.Equal(c.Reference.Score.Bins, score) {
		t.Errorf("scores %v", c.Reference.Score.Bins)
	}
	if c.Reference.Entropy == nil || c.Reference.Entropy.Total() != 4 || c.Reference.Margin.Total() != 4 {
		t.Errorf("entropy %+v, margin %+v", c.Reference.Entropy, c.Reference.Margin)
	}
}

// A reference in the tensor's own quantized type counts the same real scores as
// one in real numbers.
func TestReferenceQuantized(t *testing.T) {
	tensor := &bundle.Tensor{
		Name: "scores", DType: "FP32", Shape: []int{1, 2}, Meaning: &bundle.Meaning{Kind: "classes", Score: "softmax"},
		Quant: &bundle.Quant{Scale: []float32{0.01}, Zero: []int64{0}},
	}
	stored := arrays(map[string][]float32{"scores": {97, 3, 38, 62}}, 2)
	real := arrays(map[string][]float32{"scores": {0.97, 0.03, 0.38, 0.62}}, 2)
	a, err1 := reference("a", read(t, stored), tensor)
	tensor.DType = "INT8"
	b, err2 := reference("b", read(t, real), tensor)
	if err1 != nil || err2 != nil || !cmp.Equal(a, b) || a.Score.Bins[19] != 1 || a.Score.Bins[12] != 1 {
		t.Errorf("%v, %v\n%s", err1, err2, cmp.Diff(a, b))
	}
}

func read(t *testing.T, npz string) map[string]*bundle.Array {
	t.Helper()
	a, err := bundle.ReadNPZ([]byte(npz))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Inputs that the validation set holds are part of the reference, in the range of
// their meaning or, without one, twice as wide as the set shows.
func TestReferenceInputs(t *testing.T) {
	set := read(t, arrays(map[string][]float32{"free": {1, 2, 3, 5}, "image": {0, 1, 0.5, 0.5}}, 2))
	got := inputs([]bundle.Tensor{
		{Name: "image", DType: "FP32", Meaning: &bundle.Meaning{Kind: "image", Range: [2]float64{1, 0}}}, {Name: "missing", DType: "FP32"}, {Name: "free", DType: "FP32"},
	}, set)
	if len(got) != 3 || got[1].Requests != 0 || got[0].Requests != 2 || got[2].Requests != 2 {
		t.Fatalf("%+v", got)
	}
	if b := got[0]; b.Bins.Lo != 0 || b.Bins.Hi != 1 || b.Low != 1 || b.High != 1 || b.Values.Mean != 0.5 || b.Means.Total() != 2 {
		t.Errorf("image: %+v", b)
	}
	if b := got[2].Bins; b.Lo != -1 || b.Hi != 7 || b.Total() != 4 || b.Under+b.Over != 0 {
		t.Errorf("free: %+v", b)
	}
	if got := inputs([]bundle.Tensor{{Name: "missing", DType: "FP32"}}, set); got != nil {
		t.Errorf("nothing measured: %+v", got)
	}
}

// Equal folders give equal digests, wherever and whenever they are packed; what
// is written can be opened, verified and checked.
func TestWrite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "deep", "out")
	var digests []string
	for range 2 { // the second replaces the first
		p, err := pack(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write(out); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.OpenLayout(os.DirFS(out))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Verify(), b.Check()); err != nil {
			t.Error(err)
		}
		digests = append(digests, p.Digest, b.Digest)
	}
	if len(slices.Compact(digests)) != 1 {
		t.Errorf("digests %v", digests)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".pack-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWriteRefuses(t *testing.T) {
	p, err := pack(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	precious := folder(t, nil)
	if err := p.Write(precious); code(err) != "pack.out" {
		t.Errorf("over a folder that is no bundle: %v", err)
	}
	if _, err := os.Stat(filepath.Join(precious, SpecName)); err != nil {
		t.Error(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(filepath.Join(p.dirOf(t), "labels.txt"), []byte("x\ny\nz\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(out); bundle.Code(err) != bundle.CodeBlobDigest {
		t.Errorf("a file that changed since it was hashed: %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a bundle was left: %v", err)
	}
}

// dirOf is the folder that a plan was made from.
func (p *Plan) dirOf(t *testing.T) string {
	t.Helper()
	r, err := p.files[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return filepath.Dir(r.(*os.File).Name())
}

func code(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return bundle.Code(err)
}

func TestPackRefuses(t *testing.T) {
	without := func(key string) string {
		var lines []string
		for line := range strings.Lines(spec) {
			if !strings.HasPrefix(line, key+":") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	with := func(old, new string) string { return strings.Replace(spec, old, new, 1) }
	for name, c := range map[string]struct {
		code    string
		says    string
		changes map[string]string
	}{
		"no spec":              {"pack.missing", "the name of the model", map[string]string{SpecName: ""}},
		"no model":             {"pack.missing", "model.yaml does not say", map[string]string{SpecName: without("model")}},
		"no version":           {"pack.missing", "version", map[string]string{SpecName: without("version")}},
		"no file":              {"pack.missing", "model file", map[string]string{SpecName: without("file")}},
		"no golden":            {"pack.missing", "proves the model", map[string]string{SpecName: without("golden")}},
		"no input":             {"pack.missing", "what the input image stands for", map[string]string{SpecName: without("input")}},
		"no output":            {"pack.missing", "what the output scores stands for", map[string]string{SpecName: without("output")}},
		"unknown key":          {"pack.spec", "field outputt", map[string]string{SpecName: with("output:", "outputt:")}},
		"key twice":            {"pack.spec", "already defined", map[string]string{SpecName: spec + "model: other\n"}},
		"not YAML":             {"pack.spec", "", map[string]string{SpecName: "\t{"}},
		"immense":              {"pack.spec", "larger than", map[string]string{SpecName: "#" + strings.Repeat("x", maxSpec)}},
		"meaning":              {"pack.meaning", "picture", map[string]string{SpecName: with("tensor", "picture")}},
		"meaning of nothing":   {"pack.meaning", "no input", map[string]string{SpecName: with("input: tensor", "inputs: {other: tensor}")}},
		"image without colour": {"pack.meaning", "image 8x8", map[string]string{SpecName: with("tensor", "image 8x8 0..1")}},
		"image of vectors":     {"pack.shape", "[1 3]", map[string]string{SpecName: with("tensor", "image gray 8x8 0..1")}},
		"file is not there":    {"pack.file", "model.tflite", map[string]string{"model.tflite": ""}},
		"file from above":      {"pack.path", "../model.tflite", map[string]string{SpecName: with("model.tflite", "../model.tflite")}},
		"file is no model":     {"pack.model", "TFL3", map[string]string{"model.tflite": "no"}},
		"golden is not there":  {"pack.file", "golden.npz", map[string]string{"golden.npz": ""}},
		"golden is no npz":     {bundle.CodeArrayMalformed, "", map[string]string{"golden.npz": "no"}},
		"golden of others":     {"pack.golden", `no array named "image"`, map[string]string{"golden.npz": arrays(map[string][]float32{"scores": {1, 2, 3}}, 3)}},
		"golden of width 2":    {"pack.golden", "[2 2]", map[string]string{"golden.npz": arrays(map[string][]float32{"image": {0, 0, 0, 0}, "scores": {1, 0, 1, 0}}, 2)}},
		"reference of others":  {"pack.reference", "no array", map[string]string{"reference.npz": arrays(map[string][]float32{"image": {1}}, 1)}},
		"reference of width 2": {"pack.reference", "2 numbers a sample", map[string]string{"reference.npz": arrays(map[string][]float32{"scores": {1, 2}}, 2)}},
		"reference with NaN":   {"pack.reference", "NaN", map[string]string{"reference.npz": arrays(map[string][]float32{"scores": {1, float32(math.NaN()), 0}}, 3)}},
		"labels":               {bundle.CodeModelMismatch, "2 labels", map[string]string{"labels.txt": "a\nb\n"}},
		"watch of nothing":     {"pack.watch", "image", map[string]string{SpecName: spec + "watch: image\n"}},
		"runtime":              {"pack.runtime", "newest", map[string]string{SpecName: spec + "runtime: newest\n"}},
		"name":                 {bundle.CodeContractInvalid, "Gate!", map[string]string{SpecName: with("gate", "Gate!")}},
		"tolerance of nothing": {bundle.CodeContractInvalid, "no output", map[string]string{SpecName: with("scores: {rel", "score: {rel")}},
		"custom operator":      {bundle.CodeModelCheck, "FlexErf", map[string]string{"model.tflite": string(flex())}},
		"carried from above":   {"pack.path", "..", map[string]string{SpecName: with("docs/card.md", "../card.md")}},
		"carried is not there": {"pack.file", "docs/card.md", map[string]string{"docs/card.md": ""}},
		"carried twice":        {bundle.CodeManifestDuplicate, "labels.txt", map[string]string{SpecName: with("docs/card.md", "labels.txt")}},
	} {
		_, err := pack(t, c.changes)
		if code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v (%s), want %s", name, err, code(err), c.code)
		}
	}
	if _, err := Model(Config{Dir: filepath.Join(t.TempDir(), "none")}); code(err) != "pack.folder" {
		t.Errorf("no folder: %v", err)
	}
}

func flex() []byte {
	m := tflitetest.Classifier(3)
	m.OpCodes[0] = tflite.OpCode{Builtin: 32, Custom: "FlexErf"}
	return tflitetest.Marshal(m)
}

// The next step of what is missing is a line that can be pasted.
func TestMissingHelps(t *testing.T) {
	_, err := pack(t, map[string]string{SpecName: ""})
	var e *fleet.Error
	if !errors.As(err, &e) || e.Next != "add a line like 'model: meter-digits' to model.yaml" {
		t.Errorf("%+v", e)
	}
}

type answers map[string]string

func (a answers) Ask(q Question) (string, error) { return a[q.Key], nil }

func TestAsk(t *testing.T) {
	dir := folder(t, map[string]string{SpecName: "file: model.tflite\n"})
	p, err := Model(Config{Dir: dir, Asker: answers{"model": "gate", "version": "2.0.0", "golden": "none", "input": "tensor", "output": "classes logits"}})
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Contract; c.Version != "2.0.0" || c.Golden != nil || c.Outputs[0].Meaning.Score != "logits" {
		t.Errorf("%+v", c)
	}
	if _, err := Model(Config{Dir: dir, Asker: answers{"model": "gate"}}); code(err) != "pack.missing" {
		t.Errorf("a question without an answer: %v", err)
	}
}

func image(shape ...int32) string {
	m := tflitetest.Classifier(3)
	m.Subgraphs[0].Tensors[0].Shape = shape
	return string(tflitetest.Marshal(m))
}

// People say 8x8, the file says 16x16: refused, unless somebody insists; then
// the contract holds what people said and the devices will refuse the file.
func TestForce(t *testing.T) {
	text := strings.NewReplacer("input: tensor", "input: image gray 8x8 0..1", "golden: golden.npz", "golden: none", "reference: reference.npz", "watch: scores").Replace(spec)
	text = strings.Replace(text, "tolerance: {scores: {relative: 0.02, top: 1}}\n", "", 1)
	for _, c := range []struct {
		shape []int32
		ok    bool
	}{{[]int32{1, 8, 8, 1}, true}, {[]int32{1, 8, 8}, true}, {[]int32{1, 16, 16, 1}, false}, {[]int32{1, 8, 8, 3}, false}} {
		dir := folder(t, map[string]string{SpecName: text, "model.tflite": image(c.shape...)})
		_, err := Model(Config{Dir: dir})
		if (err == nil) != c.ok || !c.ok && code(err) != "pack.shape" {
			t.Errorf("%v: %v", c.shape, err)
		}
	}
	dir := folder(t, map[string]string{SpecName: text, "model.tflite": image(1, 16, 16, 1)})
	p, err := Model(Config{Dir: dir, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Contract.Inputs[0].Shape; !slices.Equal(got, []int{1, 8, 8, 1}) {
		t.Errorf("the contract says %v", got)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := p.Write(out); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.OpenLayout(os.DirFS(out))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Check(); bundle.Code(err) != bundle.CodeModelMismatch {
		t.Errorf("a device would say %v", err)
	}
}

// oras can carry a bundle: from our layout to a store, on to another layout.
func TestORAS(t *testing.T) {
	ctx := context.Background()
	p, err := pack(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	if err := p.Write(from); err != nil {
		t.Fatal(err)
	}
	source, err := oci.NewFromFS(ctx, os.DirFS(from))
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New()
	pushed, err := oras.Copy(ctx, source, "1.0.0", store, "v1", oras.DefaultCopyOptions)
	if err != nil {
		t.Fatal(err)
	}
	target, err := oci.New(to)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := oras.Copy(ctx, store, "v1", target, "again", oras.DefaultCopyOptions)
	if err != nil {
		t.Fatal(err)
	}
	if pushed.Digest.String() != p.Digest || pulled.Digest != pushed.Digest {
		t.Errorf("packed %s, pushed %s, pulled %s", p.Digest, pushed.Digest, pulled.Digest)
	}
	b, err := bundle.OpenLayout(os.DirFS(to))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Verify(), b.Check()); err != nil || b.Digest != p.Digest {
		t.Errorf("after the way: %v, %s", err, b.Digest)
	}
}

// TestPackDeclared packs a file of any kind, whose tensors people declare.
func TestPackDeclared(t *testing.T) {
	declared := strings.NewReplacer("file: model.tflite", "file: model.onnx\nserve: external", "input: tensor", "inputs: {image: FP32 1x3}", "output: classes softmax", "outputs: {scores: FP32 1x3 classes softmax}").Replace(spec)
	with := func(old, new string) map[string]string {
		return map[string]string{SpecName: strings.Replace(declared, old, new, 1), "model.onnx": "of any kind", "model.tflite": ""}
	}
	p, err := pack(t, with("", ""))
	if err != nil {
		t.Fatal(err)
	}
	c := p.Contract
	want := []bundle.Tensor{{Name: "image", DType: "FP32", Shape: []int{1, 3}, Meaning: &bundle.Meaning{Kind: "tensor"}}, {Name: "scores", DType: "FP32", Shape: []int{1, 3}, Meaning: &bundle.Meaning{Kind: "classes", Score: "softmax"}}}
	if d := cmp.Diff(want, append(c.Inputs, c.Outputs...)); d != "" || c.Golden == nil || c.Reference == nil {
		t.Error(d)
	}
	for name, x := range map[string][3]string{
		"without names":            {"inputs: {image: FP32 1x3}", "input: tensor", "pack.declared"},
		"without a shape":          {"FP32 1x3}", "FP32}", "pack.declared"},
		"without a type":           {"FP32 1x3}", "1x3 tensor}", "pack.declared"},
		"a type of nobody":         {"FP32 1x3}", "F32 1x3}", "pack.declared"},
		"a shape of zero":          {"FP32 1x3}", "FP32 1x0}", "pack.declared"},
		"ten dimensions":           {"FP32 1x3}", "FP32 1x3x1x1x1x1x1x1x1x1}", "pack.declared"},
		"another meaning":          {"FP32 1x3}", "FP32 1x3 image rgb 0..1}", "pack.shape"},
		"golden that does not fit": {"FP32 1x3}", "FP32 1x4}", "pack.golden"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pack(t, with(x[0], x[1]))
			var coded *fleet.Error
			if errors.As(err, &coded); (coded == nil || coded.Code != x[2]) && bundle.Code(err) != x[2] {
				t.Errorf("%v, want %s", err, x[2])
			}
		})
	}
}
