package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestConfigIsStrict(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown key":        {"stat: /x\n", "stat"},
		"relative state":     {"state: here\n", "absolute"},
		"threads":            {"threads: 0\n", "threads"},
		"accelerators":       {"accelerators: [gpu, warp]\n", "accelerators"},
		"queue":              {"queue_mb: 0\n", "queue_mb"},
		"pauses crossed":     {"reconnect_min: 10s\nreconnect_max: 1s\n", "reconnect"},
		"capture":            {"capture: maybe\n", "off or allow"},
		"capture room":       {"capture_mb: 0\n", "capture_mb"},
		"capture redaction":  {"capture_redact: blur\n", "absolute"},
		"not YAML":           {"{", "configuration"},
		"longer than it may": {"log: " + strings.Repeat("x", maxConfig), "longer"},
	} {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("threads: auto\nworkers: auto\naccelerators: [gpu, npu]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadConfig(path); err != nil || c.Threads != 0 || c.Workers != 0 || len(c.Accelerators) != 2 || !strings.Contains(c.YAML(), "threads: auto") {
		t.Errorf("what the proof is to find: %+v %v", c, err)
	}
	if err := os.WriteFile(path, []byte(Defaults().YAML()), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadConfig(path); err != nil || !reflect.DeepEqual(c, Defaults()) {
		t.Errorf("what status --config shows is not what can be read: %v", err)
	}
}

func TestRequestFromFiles(t *testing.T) {
	meta := []byte(`{"inputs":[{"name":"image","datatype":"FP32","shape":[1,8,8,1]}]}`)
	npz, err := os.ReadFile("../testbed/models/digits/1.1.0/golden.npz")
	if err != nil {
		t.Fatal(err)
	}
	b, err := RequestFrom("x.npz", npz, meta)
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Inputs []struct {
			Name string
			Data []float64
		}
	}
	if err := json.Unmarshal(b, &r); err != nil || len(r.Inputs) != 1 || r.Inputs[0].Name != "image" || len(r.Inputs[0].Data) != 64 {
		t.Errorf("request %s, %v", b, err)
	}
	var local *LocalError
	if _, err := RequestFrom("x.txt", nil, meta); !errors.As(err, &local) || local.Code != "input.kind" {
		t.Errorf("another kind: %v", err)
	}
	if _, err := RequestFrom("x.npz", npz, []byte(`{"inputs":[{"name":"other","datatype":"FP32","shape":[1]}]}`)); !errors.As(err, &local) || local.Code != "input.missing" {
		t.Errorf("a missing array: %v", err)
	}
	if _, err := RequestFrom("x.npz", npz[:100], meta); err == nil {
		t.Error("a cut file was accepted")
	}
}
