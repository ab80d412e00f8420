package crashfs

import (
	"fmt"
	"math/rand/v2"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Explorer runs work and crashes it after every step in every way that the model
// allows, up to a bound.
type Explorer struct {
	// Limit of states per step; 64 when 0.
	Limit int
	// Check is called with what a crash left behind, once per different state and
	// step. It may change the file system, to recover. done is the number of
	// times that the work has called done before: what it has promised.
	Check func(after *FS, done int) error
	// Before, when set, stands before every step: a mutation.
	Before func(*FS, Step) error
	// After, when set, is called after every step and its crashes.
	After func(*FS, Step)
}

// Result counts what was explored.
type Result struct {
	Labels  []string // of the steps, in order
	States  int      // crash states that were checked
	Sampled int      // steps with more states than the limit
}

// Violation is a crash after which Check failed.
type Violation struct {
	Step  Step
	Names []string // what was on the disk
	Err   error
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("crash after %s of %s: %v; on disk: %q", v.Step.Label, v.Step.Path, v.Err, v.Names)
}

// Unwrap returns what Check said.
func (v *Violation) Unwrap() error { return v.Err }

// Run explores work on fsys, which is used up, from before its first step on. It
// returns the first *Violation, or the error of the work itself.
func (x *Explorer) Run(fsys *FS, work func(fsys durable.FS, done func()) error) (r Result, err error) {
	limit := x.Limit
	if limit == 0 {
		limit = 64
	}
	random := rand.New(rand.NewPCG(1, 2))
	promised := 0
	var violation *Violation
	crash := func(s Step) {
		if violation != nil {
			return
		}
		exhaustive := fsys.Crashes(limit, random, func(after *FS) bool {
			r.States++
			names := after.Names()
			if err := x.Check(after, promised); err != nil {
				violation = &Violation{s, names, err}
			}
			return violation == nil
		})
		if !exhaustive && violation == nil {
			r.Sampled++
		}
	}
	crash(Step{Label: "start"})
	fsys.Before = func(s Step) error {
		r.Labels = append(r.Labels, s.Label)
		if x.Before != nil {
			return x.Before(fsys, s)
		}
		return nil
	}
	fsys.After = func(s Step) {
		crash(s)
		if x.After != nil {
			x.After(fsys, s)
		}
	}
	err = work(fsys, func() {
		promised++
		crash(Step{Label: "done"})
	})
	fsys.Before, fsys.After = nil, nil
	if violation != nil {
		return r, violation
	}
	return r, err
}
