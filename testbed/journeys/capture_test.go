package journeys

import (
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCapture runs the journey of captured inputs; beside the commands of the others
// its script has picture.
func TestCapture(t *testing.T) {
	folder := func(name string) string {
		path, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	testscript.Run(t, testscript.Params{
		Deadline: time.Now().Add(scriptLimit),
		Dir:      "testdata/capture",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("DUNLIN_SIGN_KEY", filepath.Join(bin, "sign.pem"))
			e.Setenv("DIGITS", folder("testbed/models/digits"))
			e.Setenv("RUNTIME", folder("build/runtime/litert-2.3.0"))
			e.Setenv("GOARCH", runtime.GOARCH)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"secret": secret, "ready": ready, "api": api, "device": device, "until": until, "picture": picture},
	})
}

// picture compares the only PNG that matches a pattern with the 8x8 input of a
// request: picture PATTERN REQUEST.
func picture(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: picture PATTERN REQUEST")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("picture: %s matches %v", args[0], files)
	}
	f, err := os.Open(files[0])
	ts.Check(err)
	defer f.Close()
	m, err := png.Decode(f)
	ts.Check(err)
	var request struct {
		Inputs []struct{ Data []float64 }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &request))
	if b := m.Bounds(); b.Dx() != 8 || b.Dy() != 8 {
		ts.Fatalf("picture: %v", b)
	}
	for i, v := range request.Inputs[0].Data {
		grey, _, _, _ := m.At(i%8, i/8).RGBA()
		if want := uint32(math.Round(v*255)) * 0x101; grey != want {
			ts.Fatalf("picture: %d at %d,%d, %d wanted", grey/0x101, i%8, i/8, want/0x101)
		}
	}
}
