package state_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/state"
)

const pageSize = 4096

// filled makes a state with enough records for branch pages, and overflow pages,
// and one commit that no copy has. It returns the number of records.
func filled(t *testing.T, dir string) int {
	t.Helper()
	db, b, _ := open(t, dir, state.Options{})
	const n = 40
	err := db.Update(func(tx *state.Tx) error {
		for i := range n {
			r := step{Name: strings.Repeat("x", 100+i%7*900), Count: i}
			if err := b.PutIn(tx, fmt.Sprintf("k%05d", i), r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // copies the state
		t.Fatal(err)
	}
	db, b, _ = open(t, dir, state.Options{})
	if err := b.Put("last", step{Count: n}); err != nil {
		t.Fatal(err)
	}
	// The process dies here: no Close, no copy. The lock goes with it.
	snapshot(t, dir, dir+".killed")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return n + 1
}

func snapshot(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// reopen opens a damaged state and counts the whole records in it.
func reopen(t *testing.T, dir string) (state.Health, int) {
	t.Helper()
	db, h, err := state.Open(dir, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b, err := state.NewBucket[step](db, "steps")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.All()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put("after", step{}); err != nil {
		t.Fatalf("write after repair: %v", err)
	}
	return h, len(all)
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func zero(b []byte, from, to int) []byte {
	clear(b[from:min(to, len(b))])
	return b
}

// newest returns the offset of the meta page with the higher transaction number.
func newest(b []byte) int {
	at := func(page int) byte { return b[page*pageSize+16+48] }
	if at(1) == at(0)+1 {
		return pageSize
	}
	return 0
}

func TestDamageTable(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	n := filled(t, base)
	remove := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	change := func(f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(dir, "state.db"), f) }
	}
	tests := []struct {
		name    string
		damage  func(*testing.T, string)
		origin  state.Origin
		records int
		lost    uint64
	}{
		{"intact", func(*testing.T, string) {}, state.Kept, n, 0},
		{"cut to nothing", change(func(b []byte) []byte { return nil }), state.Copy, n - 1, 1},
		{"cut to a page", change(func(b []byte) []byte { return b[:pageSize] }), state.Copy, n - 1, 1},
		{"cut to half", change(func(b []byte) []byte { return b[:len(b)/2] }), state.Copy, n - 1, 1},
		{"newest meta zeroed", change(func(b []byte) []byte { return zero(b, newest(b), newest(b)+pageSize) }), state.Kept, n - 1, 1},
		{"newest meta flipped", change(func(b []byte) []byte { b[newest(b)+16+17] ^= 1; return b }), state.Kept, n - 1, 1},
		{"older meta zeroed", change(func(b []byte) []byte { o := pageSize - newest(b); return zero(b, o, o+pageSize) }), state.Kept, n, 0},
		{"both metas zeroed", change(func(b []byte) []byte { return zero(b, 0, 2*pageSize) }), state.Copy, n - 1, 1},
		{"all zeroed", change(func(b []byte) []byte { return zero(b, 0, len(b)) }), state.Copy, n - 1, 1},
		{"not a database", change(func([]byte) []byte { return []byte(strings.Repeat("garbage ", 4096)) }), state.Copy, n - 1, 1},
		{"missing", remove("state.db"), state.Copy, n - 1, 1},
		{"generation missing", remove("state.generation"), state.Kept, n, 0},
		{"copies missing", remove("state.db.copy-1", "state.db.copy-2"), state.Kept, n, 0},
		{"database and copies missing", remove("state.db", "state.db.copy-1", "state.db.copy-2"), state.Empty, 0, 4},
		{"one copy damaged", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "state.db"), func([]byte) []byte { return nil })
			edit(t, newestCopyPath(t, dir), func([]byte) []byte { return nil })
		}, state.Copy, 0, 3},
		{"all damaged", func(t *testing.T, dir string) {
			for _, name := range []string{"state.db", "state.db.copy-1", "state.db.copy-2"} {
				edit(t, filepath.Join(dir, name), func([]byte) []byte { return nil })
			}
		}, state.Empty, 0, 4},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			snapshot(t, base+".killed", dir)
			tc.damage(t, dir)
			h, records := reopen(t, dir)
			if h.Origin != tc.origin || records != tc.records || h.Lost != tc.lost {
				t.Errorf("opened %d records, health %+v; want %d, %s, %d lost", records, h, tc.records, tc.origin, tc.lost)
			}
			if whole := tc.lost == 0; h.Whole() != whole {
				t.Errorf("health %+v, want whole %v", h, whole)
			}
			if h, _ := reopen(t, dir); !h.Whole() {
				t.Errorf("second open: %+v", h)
			}
		})
	}
}

// newestCopyPath is the copy that has the records.
func newestCopyPath(t *testing.T, dir string) string {
	t.Helper()
	best, size := "", 0
	for _, n := range []string{"1", "2"} {
		path := filepath.Join(dir, "state.db.copy-"+n)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > size {
			best, size = path, len(b)
		}
	}
	return best
}

// Every page zeroed, and one byte flipped at many places: never a panic, never a
// wrong record, and an older state never without a word.
func TestEveryPageDamaged(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	n := filled(t, base)
	good, err := os.ReadFile(filepath.Join(base+".killed", "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	tried, repaired := 0, 0
	try := func(what string, damaged []byte) {
		tried++
		snapshot(t, base+".killed", dir)
		if err := os.WriteFile(filepath.Join(dir, "state.db"), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		h, records := reopen(t, dir)
		if !h.Whole() {
			repaired++
		}
		if records != n && h.Whole() {
			t.Errorf("%s: %d records of %d without a word", what, records, n)
		}
		if records < n-1 {
			t.Errorf("%s: only %d records, although a copy is good", what, records)
		}
	}
	for at := 0; at < len(good); at += pageSize {
		try(fmt.Sprintf("page %d zeroed", at/pageSize), zero([]byte(string(good)), at, at+pageSize))
	}
	const stride = 1021 // prime: every kind of field is met
	for at := 0; at < len(good); at += stride {
		damaged := []byte(string(good))
		damaged[at] ^= 0x41
		try(fmt.Sprintf("byte %d flipped", at), damaged)
	}
	t.Logf("%d damaged files of %d pages: %d repaired, the rest harmless", tried, len(good)/pageSize, repaired)
}
