package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
)

// What consumers want is what this package has.
var (
	_ enroll.Store      = (*DB)(nil)
	_ telemetry.Store   = (*DB)(nil)
	_ rollout.Store     = (*DB)(nil)
	_ catalog.Store     = (*DB)(nil)
	_ director.Store    = (*DB)(nil)
	_ rollout.LoopStore = (*DB)(nil)
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func openTest(t *testing.T) *DB {
	t.Helper()
	db, err := Open(context.Background(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func addDevice(t *testing.T, db *DB, id string, labels map[string]string) {
	t.Helper()
	ctx := context.Background()
	tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "production", Labels: labels, Max: 1, Expires: start.Add(time.Hour), Created: start}
	if err := db.CreateEnrolToken(ctx, tok, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: "production", Labels: labels, PublicKey: []byte(id), Serial: "1", Enrolled: start}
	if _, _, err := db.Enrol(ctx, tok.ID, [32]byte{}, d, []byte("cert"), start); err != nil {
		t.Fatal(err)
	}
}

func TestDeviceComesBackAsItWas(t *testing.T) {
	db, ctx := openTest(t), context.Background()
	addDevice(t, db, "meter-1", map[string]string{"site": "harbour"})
	err := db.UpdateDevice(ctx, "meter-1", func(d *fleet.Device) error {
		d.Facts = map[string]string{"arch": "arm64"}
		d.Epoch, d.Counter, d.Nonce = 1<<63+5, 7, []byte("0123456789abcdef")
		d.LastSeen, d.Online = start, true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := db.Device(ctx, "meter-1")
	if err != nil {
		t.Fatal(err)
	}
	want := &fleet.Device{ID: "meter-1", Status: "active", Channel: "production", Labels: map[string]string{"site": "harbour"}, Facts: map[string]string{"arch": "arm64"},
		PublicKey: []byte("meter-1"), Serial: "1", Epoch: 1<<63 + 5, Counter: 7, Nonce: []byte("0123456789abcdef"), Enrolled: start, LastSeen: start, Online: true}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
	for sel, n := range map[string]int{"": 1, "site=harbour,arch=arm64": 1, "site=depot": 0, "!site": 0} {
		ds, err := db.Devices(ctx, fleet.DeviceFilter{Selector: sel})
		if err != nil || len(ds) != n {
			t.Errorf("selector %q: %d devices, %v", sel, len(ds), err)
		}
	}
	if _, err := db.Device(ctx, "nobody"); !errors.Is(err, fleet.ErrDeviceUnknown) {
		t.Fatalf("unknown device: %v", err)
	}
}

func TestEnrolTokenRules(t *testing.T) {
	db, ctx := openTest(t), context.Background()
	tok := &fleet.EnrolToken{ID: "tok_1", Hash: [32]byte{1}, Channel: "dev", Max: 1, Expires: start.Add(time.Hour), Created: start}
	if err := db.CreateEnrolToken(ctx, tok, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	enrol := func(key string, hash byte, at time.Time) error {
		d := &fleet.Device{ID: key, Status: fleet.DeviceActive, PublicKey: []byte(key), Enrolled: at}
		_, cert, err := db.Enrol(ctx, "tok_1", [32]byte{hash}, d, []byte("cert of "+key+at.String()), at)
		if err == nil && string(cert) != "cert of "+key+start.String() {
			t.Fatalf("replay got another certificate: %s", cert)
		}
		return err
	}
	for _, c := range []struct {
		name, key string
		hash      byte
		at        time.Time
		want      error
	}{
		{"wrong secret", "a", 2, start, fleet.ErrTokenUnknown},
		{"first use", "a", 1, start, nil},
		{"replay with the same key", "a", 1, start.Add(time.Minute), nil},
		{"second device", "b", 1, start, fleet.ErrTokenSpent},
		{"expired", "a", 1, start.Add(2 * time.Hour), fleet.ErrTokenExpired},
	} {
		if err := enrol(c.key, c.hash, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestCommitIsAllOrNothing(t *testing.T) {
	db, ctx := openTest(t), context.Background()
	for _, id := range []string{"a", "b", "c"} {
		addDevice(t, db, id, nil)
	}
	devices, err := db.Targets(ctx, "production", "")
	if err != nil {
		t.Fatal(err)
	}
	r, ms := rollout.New(fleet.Spec{Model: "m", Version: "1.0.0", Channel: "production"}, devices, "me", start)
	if err := db.CreateRollout(ctx, r, ms, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	if err := db.CreateRollout(ctx, r, ms, fleet.Audit{}); !errors.Is(err, fleet.ErrRolloutConflict) {
		t.Fatalf("a second rollout over the same devices: %v", err)
	}
	epoch, ok, err := db.Lease(ctx, "rollouts", "one", time.Minute, start)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	m := ms[0]
	m.Assigned = start
	c := fleet.Commit{Epoch: epoch, Rollout: *r, Members: []fleet.Member{m}, Device: m.Device,
		Change: func(w *fleet.Wish) error { w.Put(fleet.Item{Model: "m", Path: "production/m/1.0.0"}); return nil }}
	boom := errors.New("boom")
	if err := db.CommitRollout(ctx, c, start, func(*fleet.Wish) ([]fleet.MetaRow, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if got, _ := db.Members(ctx, r.ID); !got[0].Assigned.IsZero() {
		t.Fatal("a member was changed although the wish could not be signed")
	}
	sign := func(w *fleet.Wish) ([]fleet.MetaRow, error) {
		return []fleet.MetaRow{{Repo: "director", Owner: w.Device, Role: "targets", Version: w.Version, Bytes: []byte("x")}}, nil
	}
	if err := db.CommitRollout(ctx, c, start, sign); err != nil {
		t.Fatal(err)
	}
	if w, _ := db.Wish(ctx, m.Device); w.Generation != 1 || w.Version != 1 || len(w.Items) != 1 {
		t.Fatalf("wish: %+v", w)
	}
	if out, _ := db.TakeOutbox(ctx); len(out) != 1 || out[0] != m.Device {
		t.Fatalf("outbox: %v", out)
	}
	if _, ok, _ := db.Lease(ctx, "rollouts", "two", time.Minute, start); ok {
		t.Fatal("two holders of one lease")
	}
	if _, ok, _ := db.Lease(ctx, "rollouts", "two", time.Minute, start.Add(time.Hour)); !ok {
		t.Fatal("a lease that ran out is not given on")
	}
	if err := db.CommitRollout(ctx, c, start, sign); !errors.Is(err, fleet.ErrLeaseLost) {
		t.Fatalf("a commit of the former holder: %v", err)
	}
}
