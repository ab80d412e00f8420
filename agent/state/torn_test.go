package state_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/state"
)

// bbolt writes the data pages of a commit, syncs them, writes one meta page and
// syncs that. The power may go anywhere in between, with any sectors of what was
// not synced on the disk: the commit is there or it is not. If the disk lies and
// the meta page comes before its data, that is found, and a copy takes over.
func TestTornCommit(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	n := filled(t, base) // ends with Close: a copy has it all
	old := filepath.Join(t.TempDir(), "old")
	snapshot(t, base, old)
	db, b, _ := open(t, base, state.Options{})
	if err := b.Put("torn", step{Count: 1}); err != nil {
		t.Fatal(err)
	}
	now := filepath.Join(t.TempDir(), "now")
	snapshot(t, base, now)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(dir, name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	before, after := read(old, "state.db"), read(now, "state.db")
	before = append(before, make([]byte, len(after)-len(before))...)
	promised := map[bool][]byte{false: read(old, "state.generation"), true: read(now, "state.generation")}

	const sector = 512
	var data []int // offsets of sectors that the commit changed
	for at := 2 * pageSize; at < len(after); at += sector {
		if !bytes.Equal(before[at:at+sector], after[at:at+sector]) {
			data = append(data, at)
		}
	}
	if len(data) < 2 {
		t.Fatalf("the commit changed %d sectors", len(data))
	}
	random, dir := rand.New(rand.NewPCG(1, 2)), filepath.Join(t.TempDir(), "state")
	// crash opens what is left when so many sectors, chosen at random, came.
	crash := func(sectors int, meta, done bool) (state.Health, int) {
		file := bytes.Clone(before)
		for _, i := range random.Perm(len(data))[:sectors] {
			copy(file[data[i]:], after[data[i]:data[i]+sector])
		}
		if meta {
			copy(file[:2*pageSize], after)
		}
		snapshot(t, old, dir)
		edit(t, filepath.Join(dir, "state.db"), func([]byte) []byte { return file })
		edit(t, filepath.Join(dir, "state.generation"), func([]byte) []byte { return promised[done] })
		return reopen(t, dir)
	}
	legal, lies, found := 0, 0, 0
	for range 3 {
		for sectors := range len(data) + 1 {
			legal++
			if h, got := crash(sectors, false, false); got != n || !h.Whole() {
				t.Errorf("%d of %d sectors without meta page: %d records of %d, %+v", sectors, len(data), got, n, h)
			}
		}
		for sectors := range len(data) {
			lies++
			h, got := crash(sectors, true, true)
			if got < n || got == n && h.Whole() {
				t.Errorf("meta page with %d of %d sectors: %d records of %d, %+v", sectors, len(data), got, n+1, h)
			}
			if !h.Whole() {
				found++
			}
		}
	}
	for _, done := range []bool{false, true} {
		legal++
		if h, got := crash(len(data), true, done); got != n+1 || !h.Whole() {
			t.Errorf("all of it, promised %v: %d records of %d, %+v", done, got, n+1, h)
		}
	}
	t.Logf("1 operation, %d sectors, %d states; without the sync before the meta page %d states, %d of them repaired from a copy, the rest whole", len(data), legal, lies, found)
}
