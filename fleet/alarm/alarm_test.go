package alarm

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

var day0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// full is a store whose disk may be full: it reads and does not write.
type full struct {
	*sqlite.DB
	is bool
}

var errFull = errors.New("no space left on device")

func (f *full) RaiseAlarm(ctx context.Context, x fleet.Alarm, a fleet.Audit) (bool, error) {
	if f.is {
		return false, errFull
	}
	return f.DB.RaiseAlarm(ctx, x, a)
}

func (f *full) ClearAlarm(ctx context.Context, kind, subject string, a fleet.Audit) (bool, error) {
	if f.is {
		return false, errFull
	}
	return f.DB.ClearAlarm(ctx, kind, subject, a)
}

type rig struct {
	*testing.T
	store *full
	now   time.Time
}

func newRig(t *testing.T) *rig {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &rig{t, &full{DB: db}, day0}
}

// board is that of a server which has just started.
func (r *rig) board() *Board {
	return &Board{Store: r.store, Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler)}
}

func (r *rig) shows(b *Board, want ...fleet.Alarm) {
	r.Helper()
	if want == nil {
		want = []fleet.Alarm{}
	}
	if d := cmp.Diff(want, b.List(r.Context())); d != "" {
		r.Error(d)
	}
}

func (r *rig) acts() []string {
	as, err := r.store.Audit(r.Context(), "", "", 100)
	if err != nil {
		r.Fatal(err)
	}
	var out []string
	for _, a := range as {
		out = append(out, a.Actor+" "+a.Act+" "+a.Object)
	}
	return out
}

var (
	warning = fleet.Alarm{Kind: "a.b", Subject: "x", Text: "wrong", Next: "mend it"}
	urgent  = fleet.Alarm{Kind: "c.d", Subject: "y", Text: "burns", Next: "run", Urgent: true}
)

func since(x fleet.Alarm, t time.Time) fleet.Alarm { x.Since = t; return x }

// TestBoard wants one alarm for each kind and subject, however often it is seen,
// as old as it is, over restarts of the server, until it is cleared.
func TestBoard(t *testing.T) {
	r := newRig(t)
	b := r.board()
	for range 3 {
		b.Raise(t.Context(), warning)
		r.now = r.now.Add(time.Minute)
	}
	raised := r.now
	b.Raise(t.Context(), urgent)
	r.shows(b, since(urgent, raised), since(warning, day0))
	r.now = r.now.Add(time.Hour)
	b = r.board()
	worse := warning
	worse.Text, worse.Urgent = "worse", true
	b.Raise(t.Context(), worse)
	r.shows(b, since(worse, day0), since(urgent, raised))
	r.shows(r.board(), since(worse, day0), since(urgent, raised))
	if !b.Clear(t.Context(), "a.b", "x") || b.Clear(t.Context(), "a.b", "x") || b.Clear(t.Context(), "a.b", "z") {
		t.Error("clear tells what was not so")
	}
	if err := b.Dismiss(t.Context(), "a.b", "x", "acc_1"); !errors.Is(err, fleet.ErrAlarmUnknown) {
		t.Errorf("dismissed twice: %v", err)
	}
	if err := b.Dismiss(t.Context(), "c.d", "y", "acc_1"); err != nil {
		t.Error(err)
	}
	r.shows(b)
	r.shows(r.board())
	want := []string{"acc_1 alarm.clear y", "server alarm.clear x", "server alarm.raise y", "server alarm.raise x"}
	if d := cmp.Diff(want, r.acts()); d != "" {
		t.Error(d)
	}
}

// TestFullDisk wants an alarm shown that cannot be stored, and stored once it can.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	b := r.board()
	r.store.is = true
	b.Raise(t.Context(), urgent)
	r.shows(b, since(urgent, day0))
	r.shows(r.board())
	r.store.is = false
	r.shows(b, since(urgent, day0)) // stores it
	r.shows(r.board(), since(urgent, day0))
	r.store.is = true
	if b.Clear(t.Context(), urgent.Kind, urgent.Subject) {
		t.Error("cleared on a full disk")
	}
	r.shows(b, since(urgent, day0))
	r.store.is = false
	if !b.Clear(t.Context(), urgent.Kind, urgent.Subject) {
		t.Error("not cleared")
	}
	// What came and went while nothing could be stored leaves nothing.
	r.store.is = true
	b.Raise(t.Context(), warning)
	if !b.Clear(t.Context(), warning.Kind, warning.Subject) {
		t.Error("not cleared")
	}
	r.store.is = false
	r.shows(b)
	r.shows(r.board())
}
