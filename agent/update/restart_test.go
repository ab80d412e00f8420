package update

import (
	"context"
	"testing"
	"time"
)

// TestRestartAtEveryStep stops the device at each step and starts it again.
func TestRestartAtEveryStep(t *testing.T) {
	for _, st := range append(steps, step{name: stepRollback}) {
		t.Run(st.name, func(t *testing.T) {
			d := newDevice(t)
			fails := st.name == stepRollback
			if fails {
				d.judge["1.1.0"] = Judgement{Verdict: Fail, Code: "probation.score", Reason: "bad"}
			}
			d.run(func() {
				d.wish("1.0.0", 1)
				d.until("1.0.0", good("1.0.0"))
			})
			d.wish("1.1.0", 1)
			d.die(t, st.name)
			d.open()
			d.run(func() {
				d.until("something serves", func(s Status) bool { return s.Active != nil })
				if fails {
					d.until("the rollback", refused("1.1.0"))
					d.serves("1.0.0")
					return
				}
				d.until("1.1.0", good("1.1.0"))
				d.serves("1.1.0")
			})
		})
	}
}

// die walks the journey by hand up to the step, writes the step down as the
// engine does, and stops there.
func (d *device) die(t *testing.T, name string) {
	t.Helper()
	ts, err := targets(d.repo.Wish())
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(d.e, "m")
	j := m.journey(journal{Target: ts[0], Step: steps[0].name, Began: time.Now()})
	for _, s := range steps {
		if err := j.enter(s.name); err != nil {
			t.Fatal(err)
		}
		if s.name == name {
			return
		}
		if name == stepRollback && s.name == "probation" {
			j.Code, j.Reason, j.Blame = "probation.score", "bad", true
			if err := j.enter(stepRollback); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := s.do(j, context.Background()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
}

// TestTooManyRestartsGiveUp wants the journey to end wherever a device is caught in
// a circle.
func TestTooManyRestartsGiveUp(t *testing.T) {
	for _, st := range steps[:stepIndex("commit")+1] {
		t.Run(st.name, func(t *testing.T) {
			d := newDevice(t)
			d.run(func() {
				d.wish("1.0.0", 1)
				d.until("1.0.0", good("1.0.0"))
			})
			d.wish("1.1.0", 1)
			d.die(t, st.name)
			d.change(func(jr *journal) { jr.Starts = maxStarts })
			d.open()
			d.run(func() {
				s := d.until("giving up", refused("1.1.0"))
				d.serves("1.0.0")
				if s.Candidate.Code != "update.restarts" {
					t.Errorf("candidate %+v", s.Candidate)
				}
			})
		})
	}
}

// change rewrites the journal of a device that is off.
func (d *device) change(f func(*journal)) {
	d.t.Helper()
	jr, ok, err := d.e.journals.Get("m")
	if err != nil || !ok {
		d.t.Fatal(ok, err)
	}
	f(&jr)
	if err := d.e.journals.Put("m", jr); err != nil {
		d.t.Fatal(err)
	}
}

// TestStoppingIsNoFault stops the agent as an operator does, oftener than a device
// may fall over: a long probation outlives it.
func TestStoppingIsNoFault(t *testing.T) {
	d := newDevice(t)
	d.judge["1.0.0"] = Judgement{Verdict: NotYet}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("probation", func(s Status) bool { return s.Step == "probation" })
	})
	for range maxStarts + 1 {
		d.open()
		d.run(func() {
			d.until("serving", func(Status) bool { d.mu.Lock(); defer d.mu.Unlock(); return d.serving == "1.0.0" })
		})
	}
	d.mu.Lock()
	delete(d.judge, "1.0.0")
	d.mu.Unlock()
	d.open()
	d.run(func() { d.until("1.0.0", good("1.0.0")) })
}
