package director_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// restore does to the database what a restore from a backup does.
func (r *rig) restore() {
	r.t.Helper()
	_, err := r.db.Restore(r.t.Context(), sqlite.Restore{
		Jump: fleet.RestoreJump, Roles: 1000, At: r.now,
		Sign:   func(w *fleet.Wish) ([]fleet.MetaRow, error) { return r.Sign(r.t.Context(), w) },
		Online: func(rows []fleet.MetaRow) ([]fleet.MetaRow, error) { return r.catalog.Jumped(rows, fleet.RestoreJump) },
		Audit:  fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, r.now), At: r.now, Actor: "server", Act: "server.restore", Object: "rig"},
	})
	must(r.t, err)
}

// runs is a model's state on a device that a release serves on.
func (r *rig) runs(model, version string, change func(*wire.SlotState)) wire.ModelState {
	path := bundle.TargetPath(channel, model, version)
	s := &wire.SlotState{Path: path, Bundle: bundle.DigestOf([]byte(path)), Runtime: r.bundles[runtime].Digest, Verdict: "good", Proven: true}
	if b := r.bundles[path]; b != nil {
		s.Bundle = b.Digest
	}
	if change != nil {
		change(s)
	}
	return wire.ModelState{Model: model, Active: s, Attempt: 3}
}

// TestReconcile restores a wish of two models at generation 2 and has the device
// come back: what it runs decides what is wished, and a client that holds what
// was lost refuses nothing.
func TestReconcile(t *testing.T) {
	digits, gauge := item("digits", "1.0.0", 1), item("gauge", "1.0.0", 1)
	moved := fleet.Item{Model: "digits", Path: "dev/digits/1.1.0", Runtime: runtime, Attempt: 3}
	for _, c := range []struct {
		about      string
		generation int64
		digits     func(r *rig) []wire.ModelState
		want       []fleet.Item // besides the gauge
		says       string
	}{
		{"did nothing meanwhile", 2, func(r *rig) []wire.ModelState { return []wire.ModelState{r.runs("digits", "1.0.0", nil)} }, []fleet.Item{digits}, "as in the backup"},
		{"had not acted yet", 1, func(*rig) []wire.ModelState { return nil }, []fleet.Item{digits}, "as in the backup"},
		{"had refused the wish", 2, func(r *rig) []wire.ModelState { return []wire.ModelState{r.runs("digits", "1.1.0", nil)} }, []fleet.Item{digits}, "as in the backup"},
		{"acted on a lost wish", 5, func(r *rig) []wire.ModelState { return []wire.ModelState{r.runs("digits", "1.1.0", nil)} }, []fleet.Item{moved}, "what the device runs"},
		{"acted on a lost wish of another model", 5, func(r *rig) []wire.ModelState { return []wire.ModelState{r.runs("digits", "1.0.0", nil)} }, []fleet.Item{digits}, "as in the backup"},
		{"runs what is not proven", 5, func(r *rig) []wire.ModelState {
			return []wire.ModelState{r.runs("digits", "1.1.0", func(s *wire.SlotState) { s.Proven = false })}
		}, nil, "not proven"},
		{"runs what is not known", 5, func(r *rig) []wire.ModelState { return []wire.ModelState{r.runs("digits", "1.2.0", nil)} }, nil, "publish it again"},
		{"runs other bytes of that name", 5, func(r *rig) []wire.ModelState {
			return []wire.ModelState{r.runs("digits", "1.1.0", func(s *wire.SlotState) { s.Bundle = bundle.DigestOf(nil) })}
		}, nil, "publish it again"},
		{"runs an unknown runtime", 5, func(r *rig) []wire.ModelState {
			return []wire.ModelState{r.runs("digits", "1.0.0", func(s *wire.SlotState) { s.Runtime = bundle.DigestOf(nil) })}
		}, nil, "publish it again"},
		{"is on its way", 5, func(*rig) []wire.ModelState {
			return []wire.ModelState{{Model: "digits", Candidate: &wire.SlotState{Path: digits.Path, Verdict: "unknown"}}}
		}, []fleet.Item{digits}, "under way"},
		{"has failed", 5, func(*rig) []wire.ModelState {
			return []wire.ModelState{{Model: "digits", Candidate: &wire.SlotState{Path: digits.Path, Verdict: "bad"}}}
		}, nil, "nothing serves"},
		{"does not have it", 5, func(*rig) []wire.ModelState { return nil }, nil, "does not have it"},
	} {
		t.Run(c.about, func(t *testing.T) {
			r := newRig(t)
			r.enrol("meter-1")
			r.wish("meter-1", digits, gauge)
			d := r.device("meter-1")
			if c.generation >= 2 {
				d.refreshed()
			}
			r.restore()
			if w := d.refreshed(); len(w.Targets) != 0 || w.Generation != 2+fleet.RestoreJump {
				t.Errorf("before its hello the device is directed to %d targets at generation %d", len(w.Targets), w.Generation)
			}
			told := fleet.Told{Generation: c.generation, Version: c.generation + 2, Models: append(c.digits(r), r.runs("gauge", "1.0.0", nil))}
			must(t, r.Reconcile(t.Context(), "meter-1", told))
			w, err := r.db.Wish(t.Context(), "meter-1")
			must(t, err)
			if diff := cmp.Diff(append(c.want, gauge), w.Items); diff != "" || w.Withheld {
				t.Errorf("withheld %v, %s", w.Withheld, diff)
			}
			if got := d.refreshed(); got.Generation != w.Generation || len(got.Targets) != len(w.Items)+1 {
				t.Errorf("the device got %d targets at generation %d", len(got.Targets), got.Generation)
			}
			left, err := r.db.RestoredDevices(t.Context())
			must(t, err)
			if len(left) != 1 || left[0].Generation != 2 || left[0].Reconciled.IsZero() || !strings.Contains(left[0].Detail, c.says) {
				t.Errorf("left %+v, want %q", left, c.says)
			}
			must(t, r.Reconcile(t.Context(), "meter-1", told))
			if again, err := r.db.Wish(t.Context(), "meter-1"); err != nil || again.Version != w.Version {
				t.Errorf("a second hello changed the wish to version %d, %v", again.Version, err)
			}
		})
	}
}

// TestAhead has a device of a server that was never restored hold more than was
// given out: its director jumps above it, with an audit, and no further than
// numbers go.
func TestAhead(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1))
	for _, told := range []fleet.Told{
		{Generation: 9, Version: 3, Models: []wire.ModelState{r.runs("digits", "1.0.0", nil)}},
		{Generation: 9, Version: 70, Models: []wire.ModelState{r.runs("digits", "1.0.0", nil)}},
	} {
		must(t, r.Reconcile(t.Context(), "meter-1", told))
		w, err := r.db.Wish(t.Context(), "meter-1")
		must(t, err)
		if w.Generation <= told.Generation || w.Version <= told.Version || len(w.Items) != 1 {
			t.Errorf("told %+v: %+v", told, w)
		}
	}
	as, err := r.db.Audit(t.Context(), "meter-1", "", 10)
	must(t, err)
	if n := len(slices.DeleteFunc(as, func(a fleet.Audit) bool { return a.Act != "director.ahead" })); n != 2 {
		t.Errorf("%d alarms, want 2", n)
	}
	before, err := r.db.Wish(t.Context(), "meter-1")
	must(t, err)
	for _, told := range []fleet.Told{{Generation: 1 << 60}, {Version: 1 << 60}} {
		if err := r.Reconcile(t.Context(), "meter-1", told); !errors.Is(err, fleet.ErrDeviceAhead) {
			t.Errorf("%+v: %v", told, err)
		}
	}
	if after, err := r.db.Wish(t.Context(), "meter-1"); err != nil || cmp.Diff(before, after) != "" {
		t.Errorf("%s, %v", cmp.Diff(before, after), err)
	}
}

// TestWithheldWishChanges gives a device another wish between the restore and its
// first hello: it is not directed before that.
func TestWithheldWishChanges(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1))
	d := r.device("meter-1")
	d.refreshed()
	r.restore()
	var ok bool
	var err error
	r.epoch, ok, err = r.db.Lease(t.Context(), "rollouts", "rig", 1, r.now)
	must(t, err)
	r.rollouts = map[string]*fleet.Rollout{}
	if !ok {
		t.Fatal("no lease")
	}
	r.wish("meter-1", item("gauge", "1.0.0", 1))
	if w := d.refreshed(); len(w.Targets) != 0 {
		t.Errorf("directed before its hello to %d targets", len(w.Targets))
	}
	must(t, r.Reconcile(t.Context(), "meter-1", fleet.Told{Generation: 1, Version: 1, Models: []wire.ModelState{r.runs("digits", "1.0.0", nil)}}))
	if w := d.refreshed(); len(w.Targets) != 3 {
		t.Errorf("after its hello: %d targets", len(w.Targets))
	}
}
