package shelf

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// slot is a folder as a place has it.
func slot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"model.onnx": "model", "1/weights.bin": "weights", "1/2/deep": "", "@runtime/lib.so": "library"} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// TestPut makes a copy that is a copy again whatever was done to it.
func TestPut(t *testing.T) {
	from, dir := slot(t), filepath.Join(t.TempDir(), "new", "gate-a")
	put := func(want bool) {
		t.Helper()
		changed, err := Put(durable.OS{}, from, dir)
		if err != nil || changed != want {
			t.Errorf("changed: %v, %v", changed, err)
		}
		files, err := list(durable.OS{}, dir, "")
		if want := []string{"1/2/deep", "1/weights.bin", "model.onnx"}; err != nil || !slices.Equal(files, want) {
			t.Errorf("%v, %v", files, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "model.onnx")); err != nil || string(b) != "model" {
			t.Errorf("%q, %v", b, err)
		}
	}
	put(true)
	put(false)
	if st, err := os.Stat(filepath.Join(dir, "model.onnx")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("an application cannot read it: %v, %v", st, err)
	}
	for name, spoil := range map[string]func() error{
		"a byte":         func() error { return os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("modem"), 0o644) },
		"a longer file":  func() error { return os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("model and more"), 0o644) },
		"a missing file": func() error { return os.Remove(filepath.Join(dir, "1/weights.bin")) },
		"one more":       func() error { return os.WriteFile(filepath.Join(dir, "cache"), nil, 0o644) },
		"a link in it":   func() error { return os.Symlink("/etc/passwd", filepath.Join(dir, "passwd")) },
		"no folder":      func() error { return os.RemoveAll(dir) },
		"a file instead": func() error { return os.Rename(filepath.Join(dir, "model.onnx"), dir+".x") },
	} {
		t.Run(name, func(t *testing.T) { must(t, spoil()); put(true) })
	}
	must(t, Drop(durable.OS{}, dir))
	must(t, Drop(durable.OS{}, dir))
	if _, err := os.Stat(dir); err == nil {
		t.Error("it is still there")
	}
}

// TestPutSweeps what a power cut left beside, and nothing of others.
func TestPutSweeps(t *testing.T) {
	from, parent := slot(t), t.TempDir()
	temp, err := durable.TempDir(durable.OS{}, "test", filepath.Join(parent, "gate-a"), 0o755)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(parent, "another"), 0o755))
	if _, err := Put(durable.OS{}, from, filepath.Join(parent, "gate-a")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(temp); err == nil {
		t.Error("half a copy stays")
	}
	if _, err := os.Stat(filepath.Join(parent, "another")); err != nil {
		t.Error("somebody else's folder is gone")
	}
}

// TestPutRefuses what is no plain file.
func TestPutRefuses(t *testing.T) {
	from := slot(t)
	must(t, os.Symlink("/etc/passwd", filepath.Join(from, "passwd")))
	if _, err := Put(durable.OS{}, from, filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("a link was copied")
	}
}
