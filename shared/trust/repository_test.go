package trust

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// folder is a repository's files by role, the newest only.
type folder map[string][]byte

// File implements Files.
func (f folder) File(_ context.Context, role string, version, _ int64) ([]byte, error) {
	b, ok := f[role]
	if !ok || role == "root" && version > 1 {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

// catalogAlone is the catalog of a world, read as any TUF repository.
func catalogAlone(t *testing.T) (*Repository, folder) {
	w := newWorld(t)
	dir, files := t.TempDir(), folder{}
	w.must(durable.WriteFile(durable.OS{}, "test", filepath.Join(dir, rootName(1)), w.catalogRoot, 0o600))
	for _, f := range w.files() {
		if f.Repo == Catalog {
			files[f.Role] = f.Bytes
		}
	}
	r, err := OpenRepository(RepositoryConfig{FS: durable.OS{}, Dir: dir, Anchor: 1})
	w.must(err)
	return r, files
}

// TestCatalogAlone finds a channel's release in the catalog by the way of the
// specification, and again when nothing but the timestamp can be had.
func TestCatalogAlone(t *testing.T) {
	r, files := catalogAlone(t)
	for range 2 {
		if err := r.Refresh(t.Context(), files, now); err != nil {
			t.Fatal(err)
		}
		found, err := r.Find(t.Context(), files, "production/meter-digits/1.0.0")
		if err != nil || found.Length != int64(len(manifest)) {
			t.Fatal(err)
		}
		for role := range files {
			if role != "timestamp" {
				delete(files, role)
			}
		}
	}
	for _, missing := range []string{"production/meter-digits/2.0.0", "dev/meter-digits/1.0.0", "production", ""} {
		if _, err := r.Find(t.Context(), files, missing); !errors.Is(err, ErrNoTarget) {
			t.Errorf("%q: %v", missing, err)
		}
	}
}

// FuzzRepository serves foreign bytes in the place of one file.
func FuzzRepository(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"targets","targets":{"a":null}},"signatures":[]}`), uint8(0))
	f.Add([]byte(`{"signed":{"_type":"timestamp","meta":{}},"signatures":[]}`), uint8(3))
	f.Add([]byte(`{"signed":{"_type":"root","keys":{},"roles":{}},"signatures":[]}`), uint8(4))
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		r, files := catalogAlone(t)
		roles := []string{"production", "targets", "snapshot", "timestamp"}
		role := roles[int(which)%len(roles)]
		files[role] = b
		err := r.Refresh(t.Context(), files, now)
		if err == nil {
			_, err = r.Find(t.Context(), files, "production/meter-digits/1.0.0")
		}
		if err == nil {
			t.Fatal("foreign bytes were believed")
		}
	})
}

// FuzzMatches compares patterns with paths: never across a slash.
func FuzzMatches(f *testing.F) {
	f.Add("production/*/*", "production/a/1.0.0")
	f.Add("a/[", "a/[")
	f.Add("*", "../x")
	f.Fuzz(func(t *testing.T, pattern, target string) {
		if matches(pattern, target) != matches(pattern+"/*", target+"/x") {
			t.Errorf("%q and %q do not match part by part", pattern, target)
		}
		if matches("*", target) && path.Base(target) != target && target != "" {
			t.Errorf("* crosses a slash in %q", target)
		}
	})
}
