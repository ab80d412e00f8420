// Package triton asks the device's inference server through NVIDIA's client library,
// as programs do that were written for Triton.
package triton

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
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
	Regions      int
	Scores       map[string][][]float64
	Classes      []int
	Top          [][]string
	Errors       map[string][]string
	Statistics   []struct {
		Count json.Number `json:"inference_count"` // gRPC's JSON writes text
	}
}

// ask runs the client against a real worker.
func ask(t *testing.T, mode, file string) (s seen) {
	root := infertest.Root(t)
	engine, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.1.0")
	slot.Contract.Inputs[0].Meaning = &bundle.Meaning{Kind: "image", Colour: "gray", Range: [2]float64{0, 255. / 16}} // the client's PNG holds sixteenths
	if err := engine.Activate(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(oip.Handler(oip.Config{Engine: engine, Version: "0", SharedMemory: true}))
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Start()
	defer h.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "build", "triton", "bin", "python"), "client.py", mode, h.Listener.Addr().String(), file)
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%v\n%s", err, e.Stderr)
	}
	if err != nil {
		t.Fatalf("%v: run make readers", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// TestClient: every way of asking gives the same scores, sixteen held-out images get
// the classes that the file says, and what is wrong is refused in words.
func TestClient(t *testing.T) {
	for mode, c := range map[string]struct {
		ways   int
		errors map[string]string
	}{
		"http": {10, map[string]string{"shape": "400", "model": "404", "output": "400", "load": "400", "region": "400"}},
		"grpc": {10, map[string]string{
			"shape": "StatusCode.INVALID_ARGUMENT", "model": "StatusCode.NOT_FOUND", "output": "StatusCode.INVALID_ARGUMENT",
			"load": "StatusCode.UNIMPLEMENTED", "region": "StatusCode.INVALID_ARGUMENT",
		}},
	} {
		t.Run(mode, func(t *testing.T) {
			file := filepath.Join(infertest.Root(t), "testbed", "models", "digits", "test.npz")
			s := ask(t, mode, file)
			s.check(t, infertest.Array(t, file, "labels"))
			if len(s.Scores) != c.ways {
				t.Errorf("%d ways of asking", len(s.Scores))
			}
			for what, status := range c.errors {
				if e := s.Errors[what]; len(e) != 2 || e[0] != status || len(e[1]) < 10 {
					t.Errorf("%s: %q, want %s", what, e, status)
				}
			}
		})
	}
}

func (s *seen) check(t *testing.T, labels *bundle.Array) {
	t.Helper()
	if !s.Live || !s.Ready || !s.ModelReady || !s.VersionReady || s.OtherVersion {
		t.Errorf("ready: %+v", s)
	}
	if s.Server["name"] != "dunlin" || s.Model["name"] != "digits" || s.Regions != 0 {
		t.Errorf("%v %v %v", s.Server, s.Model, s.Regions)
	}
	if d := cmp.Diff([]map[string]string{{"name": "digits", "version": "1.1.0", "state": "READY"}}, s.Index); d != "" {
		t.Error(d)
	}
	want := s.Scores["default"]
	if len(want) != 1 || len(want[0]) != 10 {
		t.Fatalf("scores %v", s.Scores)
	}
	for how, scores := range s.Scores {
		if d := cmp.Diff(want, scores); d != "" {
			t.Errorf("%s: %s", how, d)
		}
	}
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
	if len(s.Statistics) != 1 || s.Statistics[0].Count.String() != strconv.Itoa(len(s.Scores)+16+1) {
		t.Errorf("statistics %+v", s.Statistics)
	}
}
