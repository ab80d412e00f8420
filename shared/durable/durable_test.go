package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

func TestOnTheRealFileSystem(t *testing.T) {
	dir := t.TempDir()
	disk := durable.OS{}
	path := filepath.Join(dir, "deep", "er", "file")
	if err := durable.MkdirAll(disk, "t", filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if err := durable.WriteFile(disk, "t", path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := durable.ReadFile(disk, path, 3); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	if _, err := durable.ReadFile(disk, path, 2); err == nil {
		t.Error("a file longer than the limit was read")
	}
	link := filepath.Join(dir, "current")
	for _, to := range []string{"deep", "deep/er"} {
		if err := durable.Point(disk, "t", link, to); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := durable.ReadFile(disk, filepath.Join(link, "file"), 9); err != nil || string(got) != "two" {
		t.Fatalf("through the pointer: %q, %v", got, err)
	}
	if err := durable.RemoveAll(disk, "t", filepath.Join(dir, "deep")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Remove(disk, "t", link); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(durable.FS, string, string) error{durable.Remove, durable.RemoveAll} {
		if err := again(disk, "t", link); err != nil {
			t.Errorf("removing what is not there: %v", err)
		}
	}
	wantNames(t, dir)
}

func TestPublishDir(t *testing.T) {
	dir := t.TempDir()
	disk := durable.OS{}
	final := filepath.Join(dir, "a")
	temp, err := durable.TempDir(disk, "t", final, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(temp, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.PublishDir(disk, "t", temp, filepath.Join(dir, "x", "a")); err == nil {
		t.Error("published into another directory")
	}
	if err := durable.PublishDir(disk, "t", temp, final); err != nil {
		t.Fatal(err)
	}
	temp, err = durable.TempDir(disk, "t", final, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.PublishDir(disk, "t", temp, final); !errors.Is(err, fs.ErrExist) {
		t.Errorf("published over a directory: %v", err)
	}
	if err := durable.Sweep(disk, "t", dir); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "a")
	if err := durable.Sweep(disk, "t", filepath.Join(dir, "none")); err != nil {
		t.Errorf("sweep of a missing directory: %v", err)
	}
}

func TestAbortLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.WriteFile(durable.OS{}, "t", path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := durable.Create(durable.OS{}, "t", path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	if _, err := w.Write(nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after abort: %v", err)
	}
	if err := w.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("commit after abort: %v", err)
	}
	if got, _ := durable.ReadFile(durable.OS{}, path, 9); string(got) != "old" {
		t.Errorf("file is %q", got)
	}
	wantNames(t, dir, "f")
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{
		".a.tmp-0123abcd": true, ".a.trash-ffffffff": true, "..tmp-00000000": true,
		"a": false, "": false, ".": false, "a.tmp-0123abcd": false, ".a.tmp-0123abc": false,
		".a.tmp-0123abcg": false, ".0123abcd": false, ".tmp": false,
	} {
		if got := durable.IsTemp(name); got != want {
			t.Errorf("IsTemp(%q) = %v", name, got)
		}
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("%s holds %v, want %v", dir, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s holds %v, want %v", dir, got, want)
		}
	}
}

func TestPublishFile(t *testing.T) {
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "f"), filepath.Join(dir, "f.new")
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(temp, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := durable.PublishFile(durable.OS{}, "t", temp, path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("published %q, %v", got, err)
		}
	}
	if err := durable.PublishFile(durable.OS{}, "t", filepath.Join(dir, "x", "f"), path); err == nil {
		t.Error("published from another directory")
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Lock(path); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
