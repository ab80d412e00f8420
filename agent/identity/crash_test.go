package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

const (
	crashDir  = "/var/identity"
	trustDir  = "/var/trust"
	crashName = "meter-1"
)

// enrolment is the way of a device from nothing to an identity, as the agent goes
// it: ask, store the roots, store the identity. The token is good for one key.
type enrolment struct {
	s *serverSim
	// offline looks whether the second try would show the same key, instead of
	// asking the server: many times as fast.
	offline bool
}

// run calls done when the server has issued the identity, and when all is stored.
func (e *enrolment) run(f durable.FS, done func()) error {
	reply, err := Enrol(context.Background(), f, crashDir, e.s.token, crashName, nil)
	if err != nil {
		return err
	}
	done()
	if err := trust.Install(f, trustDir, reply.CatalogRoots, reply.DirectorRoots); err != nil {
		return err
	}
	if err := Store(f, crashDir, e.s.token, reply); err != nil {
		return err
	}
	done()
	return nil
}

// inspect wants an identity, whole, or none. enrolled is false for none.
func (e *enrolment) inspect(f durable.FS, done int) (enrolled bool, err error) {
	id, err := Load(f, crashDir)
	if errors.Is(err, ErrNotEnrolled) {
		if done >= 2 {
			return false, errors.New("the identity is gone")
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("neither enrolled nor not: %w", err)
	}
	if id.Device != crashName || !bytes.Equal(inPEM(id.current.cert.Raw), e.s.first.Certificate) {
		return true, fmt.Errorf("device %q has another certificate than the server gave", id.Device)
	}
	for path, want := range map[string][]byte{"catalog/1.root.json": e.s.first.CatalogRoots[0], "director/1.root.json": e.s.first.DirectorRoots[0]} {
		if got, err := durable.ReadFile(f, filepath.Join(trustDir, path), maxFile); err != nil || !bytes.Equal(got, want) {
			return true, fmt.Errorf("enrolled without %s: %w", path, err)
		}
	}
	return true, nil
}

// recover enrols again with the same token, which works only with the same key.
// What the server has learnt meanwhile is forgotten: the next crash is another world.
func (e *enrolment) recover(f *crashfs.FS, run func() error) error {
	if e.offline {
		return e.sameKey(f)
	}
	keys, first := e.s.keys, e.s.first
	defer func() { e.s.keys, e.s.first = keys, first }()
	if err := run(); err != nil {
		return fmt.Errorf("enrol again: %w", err)
	}
	for _, name := range f.Names() {
		if strings.Contains(name, "identity/.") {
			return fmt.Errorf("%s is left over", name)
		}
	}
	_, err := e.inspect(f, 2)
	return err
}

func (e *enrolment) sameKey(f durable.FS) error {
	if len(e.s.keys) == 0 {
		return nil
	}
	key, err := loadKey(f, crashDir)
	if err != nil {
		return fmt.Errorf("the key that the server was shown: %w", err)
	}
	if spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil || string(spki) != e.s.keys[0] {
		return fmt.Errorf("the server was shown another key: %w", err)
	}
	return nil
}

// explore crashes an enrolment. nested crashes the second one, too, in so many
// ways per step.
func (e *enrolment) explore(x crashfs.Explorer, nested int) (r crashfs.Result, again int, err error) {
	e.s.keys, e.s.first = nil, nil
	x.Check = func(after *crashfs.FS, done int) error {
		if enrolled, err := e.inspect(after, done); err != nil || enrolled {
			return err
		}
		if nested == 0 {
			return e.recover(after, func() error { return e.run(after, func() {}) })
		}
		second := crashfs.Explorer{Limit: nested, Check: func(after *crashfs.FS, done int) error {
			_, err := e.inspect(after, done)
			return err
		}}
		return e.recover(after, func() error {
			r, err := second.Run(after, e.run)
			again += r.States
			return err
		})
	}
	r, err = x.Run(crashfs.New(), e.run)
	return r, again, err
}

func TestCrashesInEnrolment(t *testing.T) {
	e := &enrolment{newServer(t), false}
	r, _, err := e.explore(crashfs.Explorer{Limit: 128}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := e.explore(crashfs.Explorer{Limit: 4}, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1 operation, %d crash points, %d states (%d points sampled), %d more in the second try", len(r.Labels)+1, r.States, r.Sampled, again)
}

// raise is what happens to the floor of the time.
func raise(x crashfs.Explorer) (crashfs.Result, error) {
	at := func(n int) time.Time { return built.Add(time.Duration(n) * time.Hour) }
	f := crashfs.New()
	if err := f.Mkdir("setup", "/identity", 0); err != nil {
		return crashfs.Result{}, err
	}
	f.Settle()
	opened := func(f durable.FS) *Clock {
		c := OpenClock(f, "/identity", built)
		c.sys = func() (time.Time, bool) { return time.Time{}, false }
		c.boot = func() time.Duration { return 0 }
		c.since, c.opened = 0, 0
		return c
	}
	x.Check = func(after *crashfs.FS, done int) error {
		if now, _ := opened(after).Now(); now.Before(at(done)) || now.After(at(done+1)) {
			return fmt.Errorf("the floor is %v after it was raised %d times", now, done)
		}
		if names := after.Names(); len(names) > 2 {
			return fmt.Errorf("left: %q", names)
		}
		return nil
	}
	return x.Run(f, func(f durable.FS, done func()) error {
		c := opened(f)
		for n := range 4 {
			if err := c.Raise(signedAt(at(n + 1))); err != nil {
				return err
			}
			done()
		}
		return nil
	})
}

func TestCrashesInRaise(t *testing.T) {
	r, err := raise(crashfs.Explorer{Limit: 128})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1 operation, %d crash points, %d states", len(r.Labels)+1, r.States)
}

// A floor that could not be written is written with the next evidence.
func TestFailedRaiseIsTriedAgain(t *testing.T) {
	f := crashfs.New()
	h := &hand{}
	c := openClock(t, "/", h)
	c.fsys, c.path = f, "/"+fileFloor
	f.Before = func(crashfs.Step) error { return errors.New("no space left on device") }
	if err := c.Raise(signedAt(built.Add(time.Hour))); err == nil {
		t.Error("the failure is kept quiet")
	}
	f.Before = nil
	if err := c.Raise(signedAt(built.Add(time.Hour + time.Second))); err != nil {
		t.Fatal(err)
	}
	if now, _ := OpenClock(f, "/", built).Now(); now.Before(built.Add(time.Hour)) {
		t.Errorf("the floor is %v after a restart", now)
	}
}

// harmless are syncs that no crash can miss, with the reason.
var harmless = map[string]string{
	"identity.cert.syncdir": "that of ca.pem, in the same directory, comes before the record, too",
}

// Leaving out any sync or rename is found.
func TestEveryMissingSyncIsFound(t *testing.T) {
	e := &enrolment{newServer(t), true}
	tried := 0
	for name, explore := range map[string]func(crashfs.Explorer) (crashfs.Result, error){
		"enrol": func(x crashfs.Explorer) (crashfs.Result, error) { r, _, err := e.explore(x, 0); return r, err },
		"raise": raise,
	} {
		clean, err := explore(crashfs.Explorer{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, label := range clean.Labels {
			verb := label[strings.LastIndex(label, "."):]
			if seen[label] || verb != ".sync" && verb != ".syncdir" && verb != ".rename" {
				continue
			}
			seen[label] = true
			tried++
			_, err := explore(crashfs.Explorer{Limit: 32, Before: func(_ *crashfs.FS, s crashfs.Step) error {
				if s.Label == label {
					return crashfs.ErrSkip
				}
				return nil
			}})
			var v *crashfs.Violation
			if _, allowed := harmless[label]; errors.As(err, &v) == allowed {
				t.Errorf("%s without %s: %v; listed as harmless: %v", name, label, err, allowed)
			}
		}
	}
	t.Logf("%d mutants, %d harmless, the others found", tried, len(harmless))
}

// The key is there before the server sees it, everything else before the record.
func TestEveryWrongOrderIsFound(t *testing.T) {
	e := &enrolment{newServer(t), true}
	for _, tc := range []struct{ late, until string }{
		{"identity.key.sync", "identity.record.syncdir"},
		{"identity.key.rename", "identity.record.syncdir"},
		{"identity.cert.sync", "identity.record.rename"},
		{"identity.cert.rename", "identity.record.rename"},
		{"identity.ca.sync", "identity.record.rename"},
		{"identity.ca.rename", "identity.record.rename"},
		{"identity.record.sync", "identity.record.rename"},
		{"trust.root.rename", "identity.record.rename"},
	} {
		passed := false
		_, _, err := e.explore(crashfs.Explorer{
			Limit: 64,
			Before: func(_ *crashfs.FS, s crashfs.Step) error {
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
		}, 0)
		var v *crashfs.Violation
		if !errors.As(err, &v) {
			t.Errorf("%s after %s is not found (%v)", tc.late, tc.until, err)
		}
	}
}

// Any step may fail: the enrolment says so, the device is enrolled or not, and
// enrolling again works.
func TestEveryStepMayFail(t *testing.T) {
	e, steps := &enrolment{newServer(t), false}, 0
	for i := 0; ; i++ {
		e.s.keys, e.s.first = nil, nil
		f, n, label := crashfs.New(), -1, ""
		f.Before = func(s crashfs.Step) error {
			if n++; n == i {
				label = s.Label
				return errors.New("no space left on device")
			}
			return nil
		}
		err := e.run(f, func() {})
		f.Before = nil
		if label == "" {
			break // there are no more steps
		}
		steps++
		if err == nil {
			t.Errorf("step %d %s fails, Enrol does not say so", i, label)
		}
		if _, err := e.inspect(f, 0); err != nil {
			t.Errorf("step %d %s fails: %v", i, label, err)
		}
		if err := e.recover(f, func() error { return e.run(f, func() {}) }); err != nil {
			t.Errorf("step %d %s fails: %v", i, label, err)
		}
	}
	t.Logf("%d failing steps", steps)
}
