package upkeep

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// fullDisk is a store that may be unable to write.
type fullDisk struct {
	*sqlite.DB
	is bool
}

var errFull = errors.New("database or disk is full")

func (f *fullDisk) PutMetadata(ctx context.Context, rows, expect []fleet.MetaRow, rs []fleet.Release, a fleet.Audit) error {
	if f.is {
		return errFull
	}
	return f.DB.PutMetadata(ctx, rows, expect, rs, a)
}

func (f *fullDisk) Resign(ctx context.Context, device string, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error {
	if f.is {
		return errFull
	}
	return f.DB.Resign(ctx, device, sign)
}

func (f *fullDisk) RaiseAlarm(ctx context.Context, x fleet.Alarm, a fleet.Audit) (bool, error) {
	if f.is {
		return false, errFull
	}
	return f.DB.RaiseAlarm(ctx, x, a)
}

// upkept is the part of a server that goes with time alone, over a real database,
// with the roots of a 2-of-3 ceremony and two devices, one of them revoked.
type upkept struct {
	*Service
	t    *testing.T
	db   *fullDisk
	keys error
}

func newUpkept(t *testing.T, now func() time.Time) *upkept {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	online, log := catalogtest.NewOnline(), slog.New(slog.DiscardHandler)
	u := &upkept{t: t, db: &fullDisk{DB: db}}
	u.Service = &Service{
		Catalog:  &catalog.Service{Store: u.db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Now: now, Log: log},
		Director: &director.Service{Store: u.db, Key: online.Director, Now: now},
		Alarms:   &alarm.Board{Store: u.db, Now: now, Log: log},
		Keys:     func() error { return u.keys }, Dir: dir, Now: now, Log: log,
	}
	u.once(t.Context()) // before there are roots nothing is due
	u.alarms()
	if err := u.Catalog.Install(t.Context(), catalogtest.New(t, 2, 3, online, now()).Ceremony(), "anna"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"meter-1", "gone"} {
		tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "dev", Max: 1, Expires: now().Add(time.Hour), Created: now()}
		d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: "dev", PublicKey: []byte(id), Serial: id, Enrolled: now()}
		if err := db.CreateEnrolToken(t.Context(), tok, fleet.Audit{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := db.Enrol(t.Context(), tok.ID, tok.Hash, d, []byte("cert"), now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Revoke(t.Context(), "gone", fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	return u
}

// alarms wants exactly these kinds and subjects, in this order; "!" marks urgent
// ones.
func (u *upkept) alarms(want ...string) {
	u.t.Helper()
	var got []string
	for _, x := range u.Alarms.List(u.t.Context()) {
		mark := ""
		if x.Urgent {
			mark = "!"
		}
		got = append(got, mark+x.Kind+" "+strings.Replace(x.Subject, u.Dir, "DIR", 1))
	}
	if d := cmp.Diff(want, got); d != "" {
		u.t.Error(d)
	}
}

// ends returns when what the server signs for an owner ends, by role; and the
// version of its timestamp.
func (u *upkept) ends(repo, owner string) (map[string]time.Time, int64) {
	u.t.Helper()
	rows, err := u.db.AllMetadata(u.t.Context(), repo, owner)
	if err != nil {
		u.t.Fatal(err)
	}
	out, version := map[string]time.Time{}, int64(0)
	for _, r := range rows {
		switch r.Role {
		case metadata.SNAPSHOT:
			md, err := metadata.Snapshot().FromBytes(r.Bytes)
			if err != nil {
				u.t.Fatal(err)
			}
			out[r.Role] = md.Signed.Expires
		case metadata.TIMESTAMP:
			md, err := metadata.Timestamp().FromBytes(r.Bytes)
			if err != nil {
				u.t.Fatal(err)
			}
			out[r.Role], version = md.Signed.Expires, r.Version
		}
	}
	return out, version
}

// TestUpkeep lets a server stand for 18 days: nothing that it signs is ever past
// half of its life, also for a device that does not ask, and nothing is signed
// more often than that.
func TestUpkeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpkept(t, time.Now)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		const days = 18
		for range days * 24 {
			time.Sleep(time.Hour)
			synctest.Wait()
			now := time.Now()
			ends, _ := u.ends(catalog.Repo, "")
			device, _ := u.ends(director.Repo, "meter-1")
			for name, x := range map[string]struct {
				ends time.Time
				life time.Duration
			}{
				"snapshot": {ends["snapshot"], catalog.SnapshotLife}, "timestamp": {ends["timestamp"], catalog.TimestampLife},
				"device's snapshot": {device["snapshot"], director.Life}, "device's timestamp": {device["timestamp"], director.Life},
			} {
				if left := x.ends.Sub(now); left < x.life/2-every {
					t.Fatalf("%v: the %s has %v left of %v", now, name, left, x.life)
				}
			}
		}
		_, catalogVersion := u.ends(catalog.Repo, "")
		_, version := u.ends(director.Repo, "meter-1")
		if most := int64(days*24/84 + 2); catalogVersion > most || version > most {
			t.Errorf("signed %d and %d times in %d days", catalogVersion, version, days)
		}
		if _, version := u.ends(director.Repo, "gone"); version > 1 {
			t.Errorf("signed %d times for a revoked device", version)
		}
		u.alarms()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestUpkeepAlarms wants an alarm for everything that time alone breaks, as long
// as it is broken.
func TestUpkeepAlarms(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	u := newUpkept(t, func() time.Time { return now })
	u.once(t.Context())
	u.alarms()

	now = now.Add(catalog.TimestampLife/2 + time.Hour)
	u.db.is = true
	u.once(t.Context())
	u.alarms("!catalog.resign catalog", "!director.resign director")
	u.db.is = false
	u.once(t.Context())
	u.alarms()

	u.keys = fleet.ErrServerKeys
	u.once(t.Context())
	u.alarms("!server.keys DIR")
	u.keys = nil
	u.once(t.Context())
	u.alarms()

	stopped, stop := context.WithCancel(t.Context())
	stop()
	u.once(stopped) // a server that stops alarms nobody
	u.alarms()
}

// TestExpires wants a warning 60 days before what people sign ends, a last call 14
// days before, and both to say what is to be done.
func TestExpires(t *testing.T) {
	end := time.Date(2027, 5, 22, 10, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		left        time.Duration
		due, urgent bool
		text        string
	}{
		{365 * day, false, false, ""},
		{60*day + time.Second, false, false, ""},
		{60 * day, true, false, "expires in 60 days, on 2027-05-22"},
		{14*day + time.Second, true, false, "expires in 14 days"},
		{14 * day, true, true, "expires in 14 days"},
		{time.Hour, true, true, "expires within a day"},
		{0, true, true, "expired on 2027-05-22: devices take nothing new"},
		{-400 * day, true, true, "expired on 2027-05-22"},
	} {
		x, due := expires(catalog.Deadline{Repo: "catalog", Role: "production", Expires: end}, end.Add(-c.left))
		if due != c.due || x.Urgent != c.urgent || !strings.Contains(x.Text, c.text) || x.Kind != fleet.AlarmExpires || x.Subject != "catalog production" || !strings.Contains(x.Next, "renew") {
			t.Errorf("%v before: due %v, %+v", c.left, due, x)
		}
	}
}

// TestDeadlines wants every offline role watched: those of a practice ceremony as
// those of people.
func TestDeadlines(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	u := newUpkept(t, func() time.Time { return now })
	list, err := u.Catalog.Deadlines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	last := now
	for _, d := range list {
		names = append(names, d.Repo+" "+d.Role)
		if d.Expires.After(last) {
			last = d.Expires
		}
	}
	if d := cmp.Diff([]string{"catalog root", "director root", "catalog targets", "catalog dev", "catalog staging", "catalog production"}, names); d != "" {
		t.Error(d)
	}
	now = last // all are due
	u.once(t.Context())
	xs := u.Alarms.List(t.Context())
	if len(xs) != len(names) {
		t.Errorf("%d alarms for %d files: %+v", len(xs), len(names), xs)
	}
}
