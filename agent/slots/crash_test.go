package slots_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// scenario is one thing that happens to a model's slots, crashed after every step.
type scenario struct {
	name  string
	setup func(*slots.Slots, durable.FS) error
	work  func(m *slots.Slots, f durable.FS, done func()) error
	// check is told how many promises were given before the crash.
	check func(s *slots.State, done int) error
	// recover brings the model to its end state after any crash; nil: work does.
	recover func(*slots.Slots, durable.FS) error
}

const (
	storeDir = "/slots"
	blobsDir = "/blobs"
)

var releaseFiles = []string{"model.tflite", "meta/labels.txt"}

func content(release, name string) string { return name + " of " + release }

// fresh is a device's disk with the blobs of three releases.
func fresh() (*crashfs.FS, error) {
	f := crashfs.New()
	if err := f.Mkdir("setup", blobsDir, 0); err != nil {
		return nil, err
	}
	for _, release := range []string{"zero", "one", "two"} {
		for i, name := range releaseFiles {
			if err := durable.WriteFile(f, "setup", fmt.Sprintf("%s/%s-%d", blobsDir, release, i), []byte(content(release, name)), 0); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func openModel(f durable.FS) (*slots.Slots, error) {
	store, err := slots.Open(f, storeDir)
	if err != nil {
		return nil, err
	}
	return store.Model("meter")
}

func place(m *slots.Slots, release string) (slots.Place, error) {
	s, err := m.Stage()
	if err != nil {
		return slots.None, err
	}
	for i, name := range releaseFiles {
		if err := s.Add(file(name, content(release, name)), fmt.Sprintf("%s/%s-%d", blobsDir, release, i)); err != nil {
			return slots.None, err
		}
	}
	return s.Publish(pair(release), nil)
}

// serve brings a release all the way to good, from wherever it is.
func serve(m *slots.Slots, release string, done func()) error {
	state, err := m.Look()
	if err != nil {
		return err
	}
	p := state.Find(pair(release))
	if p == slots.None {
		if p, err = place(m, release); err != nil {
			return err
		}
	}
	done()
	if state.Active != p {
		if err := m.Judge(p, slots.Judged{Verdict: slots.Trying}); err != nil {
			return err
		}
	}
	done()
	if err := m.Switch(p); err != nil {
		return err
	}
	done()
	if err := m.Judge(p, slots.Judged{Verdict: slots.Good}); err != nil {
		return err
	}
	done()
	return nil
}

func nop() {}

// holds names the release in a place, "" when it is empty.
func holds(s *slots.State, p slots.Place) string {
	for _, release := range []string{"zero", "one", "two"} {
		if s.Slot(p).Content == slots.Complete && s.Slot(p).Pair == pair(release) {
			return release
		}
	}
	return ""
}

func oneOf(what, got string, allowed ...string) error {
	if !slices.Contains(allowed, got) {
		return fmt.Errorf("%s is %q, want one of %q", what, got, allowed)
	}
	return nil
}

func checkUpdate(s *slots.State, done int) error {
	active, previous := holds(s, s.Active), holds(s, s.Previous)
	if done >= 3 {
		if err := oneOf("active", active, "two"); err != nil {
			return err
		}
	}
	var errs []error
	switch active {
	case "one":
		// What is new is never a way back.
		errs = append(errs, oneOf("way back", previous, "", "zero"))
	case "two":
		errs = append(errs, oneOf("way back", previous, "one"),
			oneOf("verdict on the way back", string(s.Slot(s.Previous).Verdict), "good"))
		if done <= 2 {
			errs = append(errs, oneOf("verdict", string(s.Slot(s.Active).Verdict), "trying", "good"))
		}
	default:
		errs = append(errs, fmt.Errorf("active place %q holds %q", s.Active, active))
	}
	if done >= 1 {
		errs = append(errs, oneOf("place b", holds(s, slots.B), "two"))
	}
	if done >= 2 {
		errs = append(errs, oneOf("verdict on b", string(s.Slot(slots.B).Verdict), "trying", "good"))
	}
	if done >= 4 {
		errs = append(errs, oneOf("verdict on b", string(s.Slot(slots.B).Verdict), "good"))
	}
	return errors.Join(errs...)
}

var scenarios = []scenario{
	{
		name: "first install",
		work: func(m *slots.Slots, _ durable.FS, done func()) error { return serve(m, "two", done) },
		check: func(s *slots.State, done int) error {
			if done < 3 && s.Active == slots.None {
				return nil
			}
			return oneOf("active", holds(s, s.Active), "two")
		},
	},
	{
		name: "update over the way back",
		setup: func(m *slots.Slots, _ durable.FS) error {
			// zero in b, then one in a: zero is the way back.
			return errors.Join(serve(m, "one", nop), serve(m, "zero", nop), m.Switch(slots.A))
		},
		work:  func(m *slots.Slots, _ durable.FS, done func()) error { return serve(m, "two", done) },
		check: checkUpdate,
	},
	{
		name: "rollback",
		setup: func(m *slots.Slots, _ durable.FS) error {
			return errors.Join(serve(m, "one", nop), serve(m, "two", nop))
		},
		work: func(m *slots.Slots, _ durable.FS, done func()) error {
			if err := m.Back(); err != nil {
				return err
			}
			done()
			if err := m.Judge(slots.B, slots.Judged{Verdict: slots.Bad}); err != nil {
				return err
			}
			done()
			return nil
		},
		check: func(s *slots.State, done int) error {
			errs := []error{oneOf("active", holds(s, s.Active), "one", "two")}
			if done >= 1 {
				errs = append(errs, oneOf("active", holds(s, s.Active), "one"), oneOf("way back", holds(s, s.Previous), ""))
			}
			if done >= 2 {
				errs = append(errs, oneOf("verdict on b", string(s.Slot(slots.B).Verdict), "bad"))
			}
			return errors.Join(errs...)
		},
		recover: func(m *slots.Slots, _ durable.FS) error {
			if err := m.Back(); err != nil && !errors.Is(err, slots.ErrNoWayBack) {
				return err
			}
			return m.Judge(slots.B, slots.Judged{Verdict: slots.Bad})
		},
	},
	{
		name: "erase the way back",
		setup: func(m *slots.Slots, _ durable.FS) error {
			return errors.Join(serve(m, "one", nop), serve(m, "two", nop))
		},
		work: func(m *slots.Slots, _ durable.FS, done func()) error {
			if err := m.Erase(slots.A); err != nil {
				return err
			}
			done()
			return nil
		},
		check: func(s *slots.State, done int) error {
			err := oneOf("active", holds(s, s.Active), "two")
			if done >= 1 {
				return errors.Join(err, oneOf("place a", holds(s, slots.A), ""), oneOf("way back", holds(s, s.Previous), ""))
			}
			return errors.Join(err, oneOf("place a", holds(s, slots.A), "", "one"))
		},
	},
	{
		name: "erase what was never judged",
		setup: func(m *slots.Slots, _ durable.FS) error {
			_, err := place(m, "one")
			return err
		},
		work: func(m *slots.Slots, _ durable.FS, done func()) error {
			if err := m.Erase(slots.A); err != nil {
				return err
			}
			done()
			return nil
		},
		check: func(s *slots.State, done int) error {
			if done >= 1 {
				return oneOf("place a", holds(s, slots.A), "")
			}
			return nil
		},
	},
	{
		name:  "retire",
		setup: func(m *slots.Slots, _ durable.FS) error { return serve(m, "one", nop) },
		work: func(m *slots.Slots, _ durable.FS, done func()) error {
			if err := m.Retire(); err != nil {
				return err
			}
			done()
			return nil
		},
		check: func(s *slots.State, done int) error {
			if done >= 1 {
				return oneOf("active", string(s.Active), "")
			}
			return oneOf("active", string(s.Active), "", "a")
		},
	},
	{
		name:  "remove the model",
		setup: func(m *slots.Slots, _ durable.FS) error { return serve(m, "one", nop) },
		work: func(m *slots.Slots, _ durable.FS, done func()) error {
			if err := m.Remove(); err != nil {
				return err
			}
			done()
			return nil
		},
		check: func(s *slots.State, done int) error {
			if done >= 1 {
				return oneOf("active", string(s.Active), "")
			}
			return oneOf("active", string(s.Active), "", "a")
		},
	},
}

// inspect opens what a crash left and holds it against the scenario and against
// what is always true.
func inspect(f *crashfs.FS, sc *scenario, done int) error {
	m, err := openModel(f)
	if err != nil {
		return err
	}
	s, err := m.Look()
	if err != nil {
		return err
	}
	for _, p := range []slots.Place{slots.A, slots.B} {
		if s.Slot(p).Content == slots.Complete {
			if err := m.Verify(p); err != nil {
				return err
			}
		} else if s.Active == p || s.Previous == p {
			return fmt.Errorf("a pointer leads to empty place %s", p)
		}
	}
	for _, name := range f.Names() {
		if strings.Contains(name, ".tmp-") || strings.Contains(name, ".trash-") {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return sc.check(&s, done)
}

func (sc *scenario) finish(f durable.FS) error {
	m, err := openModel(f)
	if err != nil {
		return err
	}
	if sc.recover != nil {
		return sc.recover(m, f)
	}
	return sc.work(m, f, nop)
}

// promises counts how often work calls done when nothing goes wrong.
func (sc *scenario) promises() (n int, err error) {
	f, m, err := sc.begin()
	if err != nil {
		return 0, err
	}
	return n, sc.work(m, f, func() { n++ })
}

func (sc *scenario) begin() (*crashfs.FS, *slots.Slots, error) {
	f, err := fresh()
	if err != nil {
		return nil, nil, err
	}
	m, err := openModel(f)
	if err != nil {
		return nil, nil, err
	}
	if sc.setup != nil {
		if err := sc.setup(m, f); err != nil {
			return nil, nil, err
		}
	}
	f.Settle()
	m, err = openModel(f)
	return f, m, err
}

// explore crashes a scenario; nested crashes the recovery from every crash, too.
func (sc *scenario) explore(x crashfs.Explorer, nested int) (r crashfs.Result, again int, err error) {
	f, m, err := sc.begin()
	if err != nil {
		return r, 0, err
	}
	all, err := sc.promises()
	if err != nil {
		return r, 0, err
	}
	x.Check = func(after *crashfs.FS, done int) error {
		if err := inspect(after, sc, done); err != nil {
			return err
		}
		if nested == 0 {
			return nil
		}
		second := crashfs.Explorer{Limit: nested, Check: func(after *crashfs.FS, finished int) error {
			if finished > 0 {
				return inspect(after, sc, all)
			}
			if err := inspect(after, sc, done); err != nil {
				return err
			}
			if err := sc.finish(after); err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			return inspect(after, sc, all)
		}}
		r2, err := second.Run(after, func(f durable.FS, finished func()) error {
			if err := sc.finish(f); err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			finished()
			return nil
		})
		again += r2.States
		return err
	}
	r, err = x.Run(f, func(f durable.FS, done func()) error { return sc.work(m, f, done) })
	return r, again, err
}

// noLinks is a file system like vfat or another device: files are copied.
func noLinks(_ *crashfs.FS, s crashfs.Step) error {
	if s.Label == "slots.file.link" {
		return errors.New("no hard links here")
	}
	return nil
}

func TestEveryCrashLeavesOldOrNew(t *testing.T) {
	states := 128
	if testing.Short() {
		states = 16
	}
	for _, sc := range scenarios {
		for name, before := range map[string]func(*crashfs.FS, crashfs.Step) error{"": nil, ", copying": noLinks} {
			t.Run(sc.name+name, func(t *testing.T) {
				t.Parallel()
				r, _, err := sc.explore(crashfs.Explorer{Limit: states, Before: before}, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, again, err := sc.explore(crashfs.Explorer{Limit: 4, Before: before}, 2)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d steps, %d crash states (%d steps sampled), %d crashed again in recovery", len(r.Labels), r.States, r.Sampled, again)
			})
		}
	}
}
