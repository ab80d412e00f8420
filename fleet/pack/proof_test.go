package pack

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestProof: what model.yaml asks of the proof is in the contract, with what it
// leaves out filled in.
func TestProof(t *testing.T) {
	text := strings.Replace(spec, "budgets: {pi: {latency_p95_us: 9000}, any: {start_ms: 500}}", `repeat: close
shadow: {requests: 50, agree: 0.8}
budgets: {any: {latency_p50_us: 1, latency_p99_us: 3, cold_start_ms: 700, relative: {latency_p95: 1.2, peak_memory: 1.5}}}`, 1)
	text = strings.Replace(text, "{relative: 0.02, top: 1}", "{relative: 0.02, top: 1, cosine: 0.99, pass: 0.9}", 1)
	plan, err := Model(Config{Dir: folder(t, map[string]string{SpecName: text})})
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Contract
	if d := cmp.Diff(&bundle.Shadow{Share: 0.1, Minutes: 5, Requests: 50, Duty: 0.2, Agree: 0.8}, c.Shadow); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]bundle.Budget{{Class: "any", LatencyP50US: 1, LatencyP99US: 3, ColdStartMS: 700, Relative: &bundle.Relative{LatencyP95: 1.2, PeakMemory: 1.5}}}, c.Budgets); d != "" {
		t.Error(d)
	}
	if g := c.Golden; g.Repeat != bundle.RepeatClose || g.Tolerance["scores"] != (bundle.Tolerance{Relative: 0.02, Top: 1, Cosine: 0.99, Pass: 0.9}) {
		t.Errorf("%+v", g)
	}
	for _, wrong := range []string{"repeat: often\n", "slices: site\n", "shadow: {agree: 2}\n"} {
		if _, err := Model(Config{Dir: folder(t, map[string]string{SpecName: spec + wrong})}); err == nil {
			t.Errorf("%q is packed", wrong)
		}
	}
}

// TestGoldenFolder: cases in folders by slice are one file with labels, the same one
// each time.
func TestGoldenFolder(t *testing.T) {
	files := map[string]string{
		SpecName:                       strings.Replace(spec, "golden: golden.npz", "golden: cases", 1),
		"golden.npz":                   "",
		"cases/site=a/1.npz":           arrays(map[string][]float32{"image": {0, 0, 0, 1, 1, 1}, "scores": {1, 0, 0, 0, 1, 0}}, 3),
		"cases/site=a,light=dim/1.npz": arrays(map[string][]float32{"image": {0, 1, 0}, "scores": {1, 0, 0}}, 3),
	}
	dir := folder(t, files)
	plan, err := Model(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Model(Config{Dir: dir})
	if err != nil || again.Digest != plan.Digest {
		t.Errorf("packed again it is another: %v", err)
	}
	out := t.TempDir() + "/out"
	if err := plan.Write(out); err != nil {
		t.Fatal(err)
	}
	var made []byte
	for _, f := range plan.files {
		if f.Path == goldenFile {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if made, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases, err := bundle.LoadGolden(plan.Contract, made)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]string{{"site=a"}, {"site=a"}, {"site=a", "light=dim"}}, cases.Slices); d != "" {
		t.Error(d)
	}
	files["cases/loose.npz"] = "x"
	if _, err := Model(Config{Dir: folder(t, files)}); err == nil {
		t.Error("a file that belongs to no slice is packed")
	}
}
