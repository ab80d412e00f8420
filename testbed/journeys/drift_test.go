package journeys

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// images writes the test pictures of digits, one a line: as they are, or as a
// camera with its light burnt out would see them: images FILE.csv [pale].
func images(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: images FILE.csv [pale]")
	}
	a := arrays(ts, filepath.Join(ts.Getenv("DIGITS"), "test.npz"))["images"]
	var b strings.Builder
	for i := range a.Len() {
		for j, v := range bundle.Values(a.DType, a.Row(i)) {
			if len(args) == 2 {
				v = 0.55 + 0.2*v
			}
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.FormatFloat(v, 'g', 6, 32))
		}
		b.WriteByte('\n')
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
}

// modelwith copies a model's folder and adds the test pictures to its reference:
// modelwith FROM TO.
func modelwith(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: modelwith FROM TO")
	}
	to := ts.MkAbs(args[1])
	ts.Check(os.CopyFS(to, os.DirFS(args[0])))
	scores := arrays(ts, filepath.Join(args[0], "reference.npz"))["scores"]
	pictures := arrays(ts, filepath.Join(ts.Getenv("DIGITS"), "test.npz"))["images"]
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, a := range map[string]*bundle.Array{"scores": scores, "image": pictures} {
		f, err := z.Create(name + ".npy")
		ts.Check(err)
		shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(a.Shape), " ", ", "), "[]")
		header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n", shape)
		_, err = f.Write(append(binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header))), header...))
		ts.Check(err)
		_, err = f.Write(a.Data)
		ts.Check(err)
	}
	ts.Check(z.Close())
	ts.Check(os.Remove(filepath.Join(to, "reference.npz")))
	ts.Check(os.WriteFile(filepath.Join(to, "reference.npz"), b.Bytes(), 0o644))
}

func arrays(ts *testscript.TestScript, path string) map[string]*bundle.Array {
	b, err := os.ReadFile(path)
	ts.Check(err)
	a, err := bundle.ReadNPZ(b)
	ts.Check(err)
	return a
}
