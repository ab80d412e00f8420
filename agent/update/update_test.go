package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInstallThenReplace(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		s := d.until("1.0.0", good("1.0.0"))
		if !s.Active.Proven || s.Generation != 0 || s.Rollout != "rol_1.0.0" {
			t.Errorf("status %+v", s)
		}
		d.wish("1.1.0", 1)
		s = d.until("1.1.0", good("1.1.0"))
		d.serves("1.1.0")
		if s.Previous == nil || !strings.HasSuffix(s.Previous.Path, "/1.0.0") {
			t.Errorf("way back %+v", s.Previous)
		}
	})
	got, err := os.ReadFile(filepath.Join(d.dir, "slots", "m", "current", "README.md"))
	if err != nil || string(got) != "release 1.1.0" {
		t.Fatalf("behind the pointer: %q, %v", got, err)
	}
}

func TestRefusedBeforeItServes(t *testing.T) {
	d := newDevice(t)
	d.refuse["1.1.0"] = &Refusal{"prove.golden", "wrong answers"}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.wish("1.1.0", 1)
		s := d.until("the refusal", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "prove.golden" || s.Answered != 0 {
			t.Errorf("candidate %+v, answered %d", s.Candidate, s.Answered)
		}
		proofs := len(d.proven)
		d.wish("1.1.0", 1) // the same attempt: not tried again
		d.until("the answer to the second wish", func(s Status) bool { return refused("1.1.0")(s) && s.Rollout == "rol_1.1.0" })
		if len(d.proven) != proofs {
			t.Error("a bad pair was tried again although attempt did not rise")
		}
		d.mu.Lock()
		delete(d.refuse, "1.1.0")
		d.mu.Unlock()
		d.wish("1.1.0", 2)
		d.until("the second attempt", good("1.1.0"))
	})
}

func TestProbationTakesItBack(t *testing.T) {
	d := newDevice(t)
	d.judge["1.1.0"] = Judgement{Verdict: Fail, Code: "probation.score", Reason: "scores collapsed", Answered: 31}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.wish("1.1.0", 1)
		s := d.until("the rollback", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "probation.score" || s.Answered != 31 || !strings.HasSuffix(s.Active.Path, "/1.0.0") {
			t.Errorf("status %s", describe([]Status{s}))
		}
	})
}

func TestFirstModelThatFailsServesNothing(t *testing.T) {
	d := newDevice(t)
	d.judge["1.0.0"] = Judgement{Verdict: Fail, Code: "probation.crash", Reason: "died"}
	d.run(func() {
		d.wish("1.0.0", 1)
		s := d.until("the rollback", refused("1.0.0"))
		d.serves("")
		if s.Active != nil {
			t.Errorf("active %+v", s.Active)
		}
	})
}

func TestRollbackByHand(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		if err := d.e.Rollback(context.Background(), "m"); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("without a model: %v", err)
		}
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		if err := d.e.Rollback(context.Background(), "m"); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("without a way back: %v", err)
		}
		d.wish("1.1.0", 1)
		d.until("1.1.0", good("1.1.0"))
		if err := d.e.Rollback(context.Background(), "m"); err != nil {
			t.Fatal(err)
		}
		s := d.until("the rollback", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "rollback.by_hand" {
			t.Errorf("candidate %+v", s.Candidate)
		}
		d.e.Refresh()
		d.until("rest", refused("1.1.0"))
		d.serves("1.0.0")
	})
}

// TestCondemned goes back because of what the pair that serves has done, long after
// it was committed, and because of nothing that another pair has done.
func TestCondemned(t *testing.T) {
	d := newDevice(t)
	why := Refusal{"rollback.crash_loop", "it died five times"}
	d.run(func() {
		d.wish("1.0.0", 1)
		first := d.until("1.0.0", good("1.0.0")).Active.Bundle
		if err := d.e.Condemn(context.Background(), "m", first, why); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("without a way back: %v", err)
		}
		d.wish("1.1.0", 1)
		second := d.until("1.1.0", good("1.1.0")).Active.Bundle
		if err := d.e.Condemn(context.Background(), "m", first, why); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("a pair that does not serve: %v", err)
		}
		d.serves("1.1.0")
		if err := d.e.Condemn(context.Background(), "m", second, why); err != nil {
			t.Fatal(err)
		}
		s := d.until("the way back", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != why.Code {
			t.Errorf("candidate %+v", s.Candidate)
		}
		// A newer release on its way is not to blame for the one that serves.
		d.wish("1.2.0", 1)
		d.until("1.2.0", good("1.2.0"))
	})
}

func TestNetworkLossIsNoFault(t *testing.T) {
	d := newDevice(t)
	d.repo.fail = fmt.Errorf("no network")
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0 after a failed download", good("1.0.0"))
	})
	for _, e := range d.events {
		if e.Type == "update.refused" {
			t.Errorf("event %+v", e)
		}
	}
}
