package journeys

import (
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

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
