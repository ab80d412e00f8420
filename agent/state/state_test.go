package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

type step struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func open(t *testing.T, dir string, o state.Options) (*state.DB, *state.Bucket[step], state.Health) {
	t.Helper()
	db, h, err := state.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b, err := state.NewBucket[step](db, "steps")
	if err != nil {
		t.Fatal(err)
	}
	return db, b, h
}

func TestRecordsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	db, b, h := open(t, dir, state.Options{})
	if h.Origin != state.New || !h.Whole() {
		t.Errorf("health of a new state: %+v", h)
	}
	want := map[string]step{}
	for i := range 300 {
		key := fmt.Sprintf("model-%03d", i)
		want[key] = step{strings.Repeat("x", i), i}
		if err := b.Put(key, want[key]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		key := fmt.Sprintf("model-%03d", 3*i)
		delete(want, key)
		if err := b.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete("none"); err != nil {
		t.Errorf("delete of a missing record: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, b, h = open(t, dir, state.Options{})
	if h.Origin != state.Kept || !h.Whole() {
		t.Errorf("health after a restart: %+v", h)
	}
	got, err := b.All()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r, ok, err := b.Get("model-001"); !ok || err != nil || r != want["model-001"] {
		t.Errorf("get: %+v, %v, %v", r, ok, err)
	}
	if _, ok, err := b.Get("model-000"); ok || err != nil {
		t.Errorf("get of a deleted record: %v, %v", ok, err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	db, b, _ := open(t, t.TempDir(), state.Options{})
	other, err := state.NewBucket[int](db, "numbers")
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err = db.Update(func(tx *state.Tx) error {
		if err := errors.Join(b.PutIn(tx, "k", step{}), other.PutIn(tx, "n", 1)); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if _, ok, _ := b.Get("k"); ok {
		t.Error("half an update was kept")
	}
	if err := db.Update(func(*state.Tx) error { panic("boom") }); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("panic within an update: %v", err)
	}
	if err := other.Put("n", 2); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if err := b.Put("big", step{Name: strings.Repeat("x", 2<<20)}); err == nil {
		t.Error("a record over the limit was stored")
	}
	if _, err := state.NewBucket[int](db, "dunlin.meta"); err == nil {
		t.Error("the marker's bucket was handed out")
	}
}

func TestOnlyOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, state.Options{})
	if _, _, err := state.Open(dir, state.Options{}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	_, b, _ := open(t, t.TempDir(), state.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 10 {
				if err := b.Put(fmt.Sprint(i), step{Count: n}); err != nil {
					t.Error(err)
				}
				if r, ok, err := b.Get(fmt.Sprint(i)); !ok || err != nil || r.Count != n {
					t.Errorf("%d: %+v, %v, %v", i, r, ok, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCopiesRotate(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	_, b, _ := open(t, dir, state.Options{Now: func() time.Time { return now }})
	taken := map[string]bool{}
	look := func() {
		for _, n := range []string{"1", "2"} {
			if content, err := os.ReadFile(filepath.Join(dir, "state.db.copy-"+n)); err == nil {
				taken[string(content)] = true
			}
		}
	}
	look()
	for i := range 130 {
		if err := b.Put("k", step{Count: i}); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if len(taken) != 3 {
		t.Errorf("%d different copies after 130 commits, want the first and two more", len(taken))
	}
	now = now.Add(10 * time.Minute)
	if err := b.Put("k", step{Count: -1}); err != nil {
		t.Fatal(err)
	}
	look()
	if len(taken) != 4 {
		t.Errorf("%d different copies after ten minutes, want one more", len(taken))
	}
}
