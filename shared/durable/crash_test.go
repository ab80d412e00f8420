package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// operation is one promise of the package: what was there before, the call, and
// what may be there after a crash, before and after the call returned.
type operation struct {
	name    string
	prepare func(*crashfs.FS) error
	call    func(durable.FS) error
	check   func(f durable.FS, returned bool) error
}

func is(f durable.FS, path string, allowed ...string) error {
	got := "(none)"
	switch b, err := durable.ReadFile(f, path, 1<<20); {
	case err == nil:
		got = string(b)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if !slices.Contains(allowed, got) {
		return fmt.Errorf("%s is %q, want one of %q", path, got, allowed)
	}
	return nil
}

// oldOrNew is what a file may be: both before the call returned, new after.
func oldOrNew(path, old, now string) func(durable.FS, bool) error {
	return func(f durable.FS, returned bool) error {
		if returned {
			return is(f, path, now)
		}
		return is(f, path, old, now)
	}
}

func put(f *crashfs.FS, path, content string) error {
	h, err := f.OpenFile("prepare", path, durable.CreateNew, 0)
	if err != nil {
		return err
	}
	if _, err := h.Write([]byte(content)); err != nil {
		return err
	}
	return h.Close()
}

// fill puts a file, a link, a directory and a file in that into root.
func fill(f *crashfs.FS, root, content string) error {
	return errors.Join(put(f, root+"/f", content), f.Symlink("prepare", "f", root+"/l"),
		f.Mkdir("prepare", root+"/d", 0), put(f, root+"/d/g", content))
}

// wholeTree refuses half a tree.
func wholeTree(f durable.FS, root, content string) error {
	return errors.Join(is(f, root+"/f", content), is(f, root+"/d/g", content), is(f, root+"/l", content))
}

var operations = []operation{
	{"write a new file", nil,
		func(f durable.FS) error { return durable.WriteFile(f, "op", "/f", []byte("new"), 0) },
		oldOrNew("/f", "(none)", "new")},
	{"write over a file",
		func(f *crashfs.FS) error { return put(f, "/f", "old") },
		func(f durable.FS) error { return durable.WriteFile(f, "op", "/f", []byte("new"), 0) },
		oldOrNew("/f", "old", "new")},
	{"move a pointer",
		func(f *crashfs.FS) error {
			return errors.Join(put(f, "/a", "old"), put(f, "/b", "new"), f.Symlink("prepare", "a", "/current"))
		},
		func(f durable.FS) error { return durable.Point(f, "op", "/current", "b") },
		oldOrNew("/current", "old", "new")},
	{"publish a file",
		func(f *crashfs.FS) error { return put(f, "/f", "old") },
		func(f durable.FS) error {
			h, err := f.OpenFile("fill", "/f.new", durable.CreateNew, 0)
			if err != nil {
				return err
			}
			if _, err := h.Write([]byte("new")); err != nil {
				return err
			}
			return errors.Join(h.Close(), durable.PublishFile(f, "op", "/f.new", "/f"))
		},
		oldOrNew("/f", "old", "new")},
	{"publish a tree", nil,
		func(f durable.FS) error {
			temp, err := durable.TempDir(f, "op", "/t", 0)
			if err != nil {
				return err
			}
			return errors.Join(fill(f.(*crashfs.FS), temp, "new"), durable.PublishDir(f, "op", temp, "/t"))
		},
		func(f durable.FS, returned bool) error {
			if _, err := f.Stat("/t"); errors.Is(err, fs.ErrNotExist) && !returned {
				return nil
			}
			return wholeTree(f, "/t", "new")
		}},
	{"make directories", nil,
		func(f durable.FS) error { return durable.MkdirAll(f, "op", "/x/y/z", 0) },
		func(f durable.FS, returned bool) error {
			if _, err := f.Stat("/x/y/z"); returned {
				return err
			}
			return nil
		}},
	{"remove a file",
		func(f *crashfs.FS) error { return put(f, "/f", "old") },
		func(f durable.FS) error { return durable.Remove(f, "op", "/f") },
		oldOrNew("/f", "old", "(none)")},
	{"remove a tree",
		func(f *crashfs.FS) error { return errors.Join(f.Mkdir("prepare", "/t", 0), fill(f, "/t", "old")) },
		func(f durable.FS) error { return durable.RemoveAll(f, "op", "/t") },
		func(f durable.FS, returned bool) error {
			_, err := f.Stat("/t")
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if returned {
				return errors.New("/t came back")
			}
			return wholeTree(f, "/t", "old")
		}},
}

// explore crashes one operation everywhere. After each crash Sweep must leave no
// temporary name behind.
func explore(op operation, x crashfs.Explorer) (crashfs.Result, error) {
	f := crashfs.New()
	if op.prepare != nil {
		if err := op.prepare(f); err != nil {
			return crashfs.Result{}, err
		}
		f.Settle()
	}
	x.Limit = 512
	x.Check = func(after *crashfs.FS, done int) error {
		if err := op.check(after, done > 0); err != nil {
			return err
		}
		if err := durable.Sweep(after, "sweep", "/"); err != nil {
			return err
		}
		for _, name := range after.Names() {
			if strings.Contains(name, ".tmp-") || strings.Contains(name, ".trash-") {
				return fmt.Errorf("%s is left over", name)
			}
		}
		return op.check(after, done > 0)
	}
	return x.Run(f, func(f durable.FS, done func()) error {
		if err := op.call(f); err != nil {
			return err
		}
		done()
		return nil
	})
}

func TestEveryCrashLeavesOldOrNew(t *testing.T) {
	states, steps := 0, 0
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			r, err := explore(op, crashfs.Explorer{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Sampled > 0 {
				t.Errorf("%d steps were only sampled", r.Sampled)
			}
			states, steps = states+r.States, steps+len(r.Labels)
		})
	}
	t.Logf("%d operations, %d steps, %d crash states", len(operations), steps, states)
}

// Taking away any sync, or letting it happen after the rename that it must
// precede, or making a rename two steps, is found.
func TestEveryMissingSyncIsFound(t *testing.T) {
	tried := 0
	for _, op := range operations {
		clean, err := explore(op, crashfs.Explorer{})
		if err != nil {
			t.Fatal(err)
		}
		for i, label := range clean.Labels {
			if !strings.HasPrefix(label, "op.") {
				continue
			}
			for _, m := range mutants(i, label) {
				_, err := explore(op, m.explorer)
				if !m.applied {
					continue
				}
				tried++
				var v *crashfs.Violation
				if found := errors.As(err, &v); !found {
					t.Errorf("%s: step %d %s %s is not found (%v)", op.name, i, label, m.name, err)
				}
			}
		}
	}
	t.Logf("%d mutants, all found", tried)
}

// mutant is a run in which one step goes wrong.
type mutant struct {
	name     string
	applied  bool
	explorer crashfs.Explorer
}

// newMutant calls spoil instead of doing nothing before step i.
func newMutant(name string, i int, spoil func(*mutant, *crashfs.FS, crashfs.Step) error) *mutant {
	m := &mutant{name: name}
	n := -1
	m.explorer.Before = func(f *crashfs.FS, s crashfs.Step) error {
		if n++; n != i {
			return nil
		}
		m.applied = true
		return spoil(m, f, s)
	}
	return m
}

// mutants of step i.
func mutants(i int, label string) []*mutant {
	switch {
	case strings.HasSuffix(label, ".syncdir"):
		return []*mutant{newMutant("skipped", i, skip)}
	case strings.HasSuffix(label, ".sync"):
		late := newMutant("after the rename", i, func(*mutant, *crashfs.FS, crashfs.Step) error { return crashfs.ErrDelay })
		late.explorer.After = func(f *crashfs.FS, s crashfs.Step) {
			if s.Label == "op.rename" {
				f.Late()
			}
		}
		return []*mutant{newMutant("skipped", i, skip), late}
	case strings.HasSuffix(label, ".rename"):
		return []*mutant{newMutant("in two steps", i, func(m *mutant, f *crashfs.FS, s crashfs.Step) error {
			before := f.Before
			f.Before = nil // the removal itself is crashed, not spoilt
			defer func() { f.Before = before }()
			m.applied = f.Remove("mutant", s.Path) == nil
			return nil
		})}
	}
	return nil
}

func skip(*mutant, *crashfs.FS, crashfs.Step) error { return crashfs.ErrSkip }

// Any step may fail: the call says so, and old or new is there whatever crash
// comes afterwards. A file whose sync failed never gets its name.
func TestEveryStepMayFail(t *testing.T) {
	broken := errors.New("input/output error")
	tried := 0
	for _, op := range operations {
		clean, err := explore(op, crashfs.Explorer{})
		if err != nil {
			t.Fatal(err)
		}
		for i, label := range clean.Labels {
			if !strings.HasPrefix(label, "op.") {
				continue
			}
			tried++
			m := newMutant("fails", i, func(*mutant, *crashfs.FS, crashfs.Step) error { return broken })
			_, err := explore(op, m.explorer)
			var v *crashfs.Violation
			if errors.As(err, &v) {
				t.Errorf("%s: step %d %s fails: %v", op.name, i, label, err)
			} else if !errors.Is(err, broken) {
				t.Errorf("%s: step %d %s fails, the call says %v", op.name, i, label, err)
			}
		}
	}
	t.Logf("%d failing steps", tried)
}
