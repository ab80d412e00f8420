package blob

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob/blobtest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func opened(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.Store { return opened(t, t.TempDir()) })
}

func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	d := opened(t, dir)
	if err := d.Put(bundle.DigestOf([]byte("x")), bytes.NewReader([]byte("y")), 9); !errors.Is(err, fleet.ErrBlobMismatch) {
		t.Fatal(err)
	}
	data := []byte("whole")
	if err := d.Put(bundle.DigestOf(data), bytes.NewReader(data), 9); err != nil {
		t.Fatal(err)
	}
	// An upload that a power cut ended.
	if err := os.WriteFile(filepath.Join(dir, "sha256", "upload-123"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	opened(t, dir)
	entries, err := os.ReadDir(filepath.Join(dir, "sha256"))
	if err != nil || len(entries) != 1 || "sha256:"+entries[0].Name() != bundle.DigestOf(data) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestBlobsAreReadAtOffsets(t *testing.T) {
	d := opened(t, t.TempDir())
	data := []byte("0123456789")
	if err := d.Put(bundle.DigestOf(data), bytes.NewReader(data), 10); err != nil {
		t.Fatal(err)
	}
	f, err := d.OpenAt(bundle.DigestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 3)
	if _, err := f.ReadAt(b, 4); err != nil || string(b) != "456" {
		t.Errorf("%s, %v", b, err)
	}
}
