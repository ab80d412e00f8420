// Package triton asks the device's inference server through NVIDIA's client library,
// as programs do that were written for Triton.
package triton

import (
	"encoding/json"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestMain(m *testing.M) { infertest.Main(m) }

// seen is what client.py prints.
type seen struct {
	Live         bool           `json:"live"`
	Ready        bool           `json:"ready"`
	ModelReady   bool           `json:"model ready"`
	VersionReady bool           `json:"version ready"`
	OtherVersion bool           `json:"other version ready"`
	Server       map[string]any `json:"server"`
	Model        map[string]any `json:"model"`
	Index        []map[string]string
	Regions      []any
	Scores       map[string][][]float64
	Classes      []int
	Top          [][]string
	Errors       map[string][]string
	Statistics   struct {
		ModelStats []struct {
			Count int `json:"inference_count"`
		} `json:"model_stats"`
	}
}

// TestHTTP runs the client against a real worker: every way of asking gives the same
// scores, sixteen held-out images get the classes that the file says, and what is
// wrong is refused in words.
func TestHTTP(t *testing.T) {
	root := infertest.Root(t)
	python := filepath.Join(root, "build", "triton", "bin", "python")
	engine, _ := infertest.Server(t)
	if err := engine.Activate(t.Context(), infertest.Digits(t, "1.1.0")); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: engine, Version: "0", SharedMemory: true}))
	defer h.Close()
	file := filepath.Join(root, "testbed", "models", "digits", "test.npz")
	cmd := exec.CommandContext(t.Context(), python, "client.py", strings.TrimPrefix(h.URL, "http://"), file)
	out, err := cmd.Output()
	if err != nil {
		if e, ok := err.(*exec.ExitError); ok {
			t.Fatalf("%v\n%s", err, e.Stderr)
		}
		t.Fatalf("%v: run make readers", err)
	}
	var s seen
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !s.Live || !s.Ready || !s.ModelReady || !s.VersionReady || s.OtherVersion {
		t.Errorf("ready: %+v", s)
	}
	if s.Server["name"] != "dunlin" || s.Model["name"] != "digits" || len(s.Regions) != 0 {
		t.Errorf("%v %v %v", s.Server, s.Model, s.Regions)
	}
	if d := cmp.Diff([]map[string]string{{"name": "digits", "version": "1.1.0", "state": "READY", "reason": ""}}, s.Index); d != "" {
		t.Error(d)
	}
	want := s.Scores["default"]
	if len(s.Scores) != 8 || len(want) != 1 || len(want[0]) != 10 {
		t.Fatalf("scores %v", s.Scores)
	}
	for how, scores := range s.Scores {
		if d := cmp.Diff(want, scores); d != "" {
			t.Errorf("%s: %s", how, d)
		}
	}
	labels := infertest.Array(t, file, "labels")
	right := 0
	for i, class := range s.Classes {
		if bundle.Values("INT64", labels.Row(i))[0] == float64(class) {
			right++
		}
	}
	if len(s.Classes) != 16 || right < 14 {
		t.Errorf("%d of %d right", right, len(s.Classes))
	}
	if len(s.Top) != 1 || len(s.Top[0]) != 2 || len(strings.Split(s.Top[0][0], ":")) != 2 {
		t.Errorf("top %q", s.Top)
	}
	for what, status := range map[string]string{"shape": "400", "model": "404", "output": "400", "load": "400", "region": "400"} {
		if e := s.Errors[what]; len(e) != 2 || e[0] != status || len(e[1]) < 10 {
			t.Errorf("%s: %q, want %s", what, e, status)
		}
	}
	if len(s.Statistics.ModelStats) != 1 || s.Statistics.ModelStats[0].Count != 8+16+1 {
		t.Errorf("statistics %+v", s.Statistics)
	}
}
