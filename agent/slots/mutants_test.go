package slots_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// harmless are syncs that no crash can miss, with the reason.
var harmless = map[string]string{}

// Taking away any sync is found by one of the scenarios.
func TestEveryMissingSyncIsFound(t *testing.T) {
	labels := map[string]bool{} // found in at least one scenario
	for _, sc := range scenarios {
		for _, before := range []func(*crashfs.FS, crashfs.Step) error{nil, noLinks} {
			clean, _, err := sc.explore(crashfs.Explorer{Limit: 1, Before: before}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, label := range clean.Labels {
				if !strings.HasSuffix(label, ".sync") && !strings.HasSuffix(label, ".syncdir") || labels[label] {
					continue
				}
				_, _, err := sc.explore(crashfs.Explorer{Limit: 64, Before: func(f *crashfs.FS, s crashfs.Step) error {
					if s.Label == label {
						return crashfs.ErrSkip
					}
					if before != nil {
						return before(f, s)
					}
					return nil
				}}, 0)
				var v *crashfs.Violation
				labels[label] = errors.As(err, &v)
			}
		}
	}
	found := 0
	for label, ok := range labels {
		reason, allowed := harmless[label]
		switch {
		case ok:
			found++
			if allowed {
				t.Errorf("%s is listed as harmless (%s), but its loss is found", label, reason)
			}
		case !allowed:
			t.Errorf("nothing finds the loss of %s", label)
		}
	}
	t.Logf("%d of %d kinds of sync: their loss is found; %d harmless", found, len(labels), len(harmless))
}

// The way back is written before the pointer moves, the record before the place
// appears, and a place is emptied only after the way back to it is gone.
func TestEveryWrongOrderIsFound(t *testing.T) {
	tests := []struct{ scenario, late, until string }{
		{"update over the way back", "slots.previous.", "slots.current.syncdir"},
		{"update over the way back", "slots.publish.sync", "slots.publish.syncdir"},
		{"update over the way back", "slots.record.", "slots.publish.rename"},
		{"update over the way back", "slots.publish.rename", "slots.current.syncdir"},
		{"rollback", "slots.current.rename", "slots.previous.syncdir"},
	}
	for _, tc := range tests {
		t.Run(tc.scenario+": "+tc.late+" after "+tc.until, func(t *testing.T) {
			i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == tc.scenario })
			passed := false
			_, _, err := scenarios[i].explore(crashfs.Explorer{
				Before: func(f *crashfs.FS, s crashfs.Step) error {
					if !passed && strings.HasPrefix(s.Label, tc.late) {
						return crashfs.ErrDelay
					}
					if err := noLinks(f, s); err != nil {
						return err
					}
					return nil
				},
				After: func(f *crashfs.FS, s crashfs.Step) {
					if s.Label == tc.until && !passed {
						passed = true
						f.Late()
					}
				},
			}, 0)
			if err == nil {
				t.Error("not found")
			}
			t.Log(err)
		})
	}
}

// Any step may fail, as on a full or dying disk: the work says so, what is active
// stays whole, and the work can be done again.
func TestEveryStepMayFail(t *testing.T) {
	broken := errors.New("no space left on device")
	steps := 0
	for _, sc := range scenarios {
		all, err := sc.promises()
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			f, m, err := sc.begin()
			if err != nil {
				t.Fatal(err)
			}
			n, label := -1, ""
			f.Before = func(s crashfs.Step) error {
				if n++; n == i {
					label = s.Label
					return broken
				}
				return nil
			}
			done := 0
			err = sc.work(m, f, func() { done++ })
			f.Before = nil
			if label == "" {
				break // the work has no more steps
			}
			steps++
			// A link that fails is copied, and a removal of rubbish may be left to Sweep.
			if err == nil && label != "slots.file.link" {
				t.Errorf("%s: step %d %s fails, the work does not say so", sc.name, i, label)
			}
			if err := inspect(f, &sc, done); err != nil {
				t.Errorf("%s: step %d %s fails: %v", sc.name, i, label, err)
			}
			if err := sc.finish(f); err != nil {
				t.Errorf("%s: step %d %s fails, again: %v", sc.name, i, label, err)
			}
			if err := inspect(f, &sc, all); err != nil {
				t.Errorf("%s: step %d %s fails, at the end: %v", sc.name, i, label, err)
			}
		}
	}
	t.Logf("%d failing steps", steps)
}
