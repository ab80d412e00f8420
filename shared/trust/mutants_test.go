package trust

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// harmless are syncs that no crash can miss, with the reason.
var harmless = map[string]string{}

// without leaves out every step of a label.
func without(label string) crashfs.Explorer {
	return crashfs.Explorer{Limit: 8, Before: func(_ *crashfs.FS, s crashfs.Step) error {
		if s.Label == label {
			return crashfs.ErrSkip
		}
		return nil
	}}
}

// explorations are all the work of this package on a crashing disk.
func explorations(t *testing.T) []func(crashfs.Explorer) (crashfs.Result, error) {
	out := []func(crashfs.Explorer) (crashfs.Result, error){newTransfer().explore}
	for _, h := range histories(t) {
		h.skip = func(quiet bool) bool { return !quiet } // what is lost is missed at rest
		out = append(out, h.explore)
	}
	slices.Reverse(out) // what finds most comes first
	return out
}

// Leaving out any sync or rename is found by one of the explorations.
func TestEveryMissingSyncIsFound(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, explore := range explorations(t) {
		clean, err := explore(crashfs.Explorer{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range clean.Labels {
			verb := label[strings.LastIndex(label, "."):]
			if found[label] || verb != ".sync" && verb != ".syncdir" && verb != ".rename" {
				continue
			}
			_, err := explore(without(label))
			var v *crashfs.Violation
			found[label] = errors.As(err, &v)
		}
	}
	for label, ok := range found {
		if _, allowed := harmless[label]; ok == allowed {
			t.Errorf("loss of %s: found %v, listed as harmless %v", label, ok, allowed)
		}
	}
	t.Logf("%d mutants, %d harmless, the others found", len(found), len(harmless))
}

// What was seen under old keys is forgotten before the new ones are there, and
// the bytes of a blob are there before the note of them and before its name.
func TestEveryWrongOrderIsFound(t *testing.T) {
	t.Parallel()
	replaced, transfer := histories(t)[2], newTransfer()
	last := "" // step
	for _, tc := range []struct {
		explore     func(crashfs.Explorer) (crashfs.Result, error)
		late, until string
	}{
		{replaced.explore, "trust.seen.rename", "trust.director.syncdir"},
		{replaced.explore, "trust.seen.sync", "trust.director.syncdir"},
		{transfer.explore, "trust.part.sync", "trust.have.syncdir"},
		{transfer.explore, "trust.part.sync", "trust.blob.syncdir"},
	} {
		passed := false
		replaced.skip = func(bool) bool { return passed || strings.HasPrefix(last, "trust.seen") }
		_, err := tc.explore(crashfs.Explorer{
			Limit: 8,
			Before: func(_ *crashfs.FS, s crashfs.Step) error {
				last = s.Label
				if !passed && s.Label == tc.late {
					return crashfs.ErrDelay
				}
				return nil
			},
			After: func(f *crashfs.FS, s crashfs.Step) {
				if s.Label == tc.until && !passed {
					passed = true
					f.Late()
				}
			},
		})
		var v *crashfs.Violation
		if !errors.As(err, &v) {
			t.Errorf("%s after %s is not found (%v)", tc.late, tc.until, err)
		}
	}
}
