package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzCheck feeds altered databases to the check that stands before bbolt, and to
// bbolt what passed it: then opening and reading must work.
func FuzzCheck(f *testing.F) {
	dir := f.TempDir()
	db, _, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	b, err := NewBucket[string](db, "b")
	if err != nil {
		f.Fatal(err)
	}
	for _, k := range []string{"one", "two", "three"} {
		if err := b.Put(k, k); err != nil {
			f.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), byte(0))
	f.Add(uint32(pageSize+16), byte(1))
	f.Add(uint32(3*pageSize+8), byte(2))
	f.Add(uint32(4*pageSize+20), byte(0xff))
	f.Fuzz(func(t *testing.T, at uint32, mask byte) {
		file := []byte(string(good))
		file[int(at)%len(file)] ^= mask
		if _, err := checkBytes(file); err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v is not ErrDamaged", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, file, fileMode); err != nil {
			t.Fatal(err)
		}
		bdb, err := openBolt(path)
		if err != nil {
			t.Fatalf("bbolt refuses what passed the check: %v", err)
		}
		defer bdb.Close()
		reader := Bucket[string]{db: &DB{bolt: bdb}, name: []byte("b")}
		if _, err := reader.All(); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}

// FuzzCheckBytes takes anything.
func FuzzCheckBytes(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, 4*pageSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := checkBytes(b); err == nil {
			t.Log("a whole database")
		}
	})
}
