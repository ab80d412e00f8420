package blob

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestBlobs(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("a model")
	digest := bundle.DigestOf(data)
	other := bundle.DigestOf([]byte("another"))
	for _, c := range []struct {
		name, digest string
		limit        int64
		want         error
	}{
		{"no digest", "sha256:../../etc/passwd", 100, fleet.ErrBlobUnknown},
		{"other bytes", other, 100, fleet.ErrBlobMismatch},
		{"too long", digest, 3, fleet.ErrBlobMismatch},
		{"good", digest, 100, nil},
		{"again", digest, 100, nil},
	} {
		if err := d.Put(c.digest, bytes.NewReader(data), c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, ok, _ := d.Has(other); ok {
		t.Error("a refused blob is here")
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "sha256")); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	f, err := d.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, _ := io.ReadAll(f); !bytes.Equal(b, data) {
		t.Errorf("read back %q", b)
	}
	if _, err := d.Open(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that is not here: %v", err)
	}
}
