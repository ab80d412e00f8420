package fleetd

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var testPassphrase = []byte("a long passphrase")

// backedUp makes a server with one blob, one device and a running rollout, and a
// backup of it.
func backedUp(t *testing.T) (dir, file, token, rollout string) {
	t.Helper()
	dir, token = newDir(t)
	rollout = waitingRollout(t, dir)
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	now, blob := time.Now(), []byte("weights")
	rel := fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, now), Channel: "dev", Digest: bundle.DigestOf(blob), Length: 7, Published: now, Blobs: []string{bundle.DigestOf(blob)},
		Release: bundle.Release{Kind: bundle.KindModel, Model: "reader", Version: "2.0.0", Counter: 2}}
	err = errors.Join(
		db.PutMetadata(t.Context(), nil, nil, []fleet.Release{rel}, fleet.Audit{}),
		db.SetRolloutStatus(t.Context(), rollout, []string{fleet.RolloutPaused}, fleet.RolloutRunning, "", fleet.Audit{}),
		db.Close(),
		os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700),
		os.WriteFile(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(bundle.DigestOf(blob), "sha256:")), blob, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "fleet.backup")
	m, err := Backup(t.Context(), dir, file, testPassphrase, now)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]backup.Blob{{Digest: bundle.DigestOf(blob), Size: 7}}, m.Blobs); d != "" {
		t.Error(d)
	}
	return dir, file, token, rollout
}

// TestRestoreRefuses wants each refusal to have its code and to change nothing.
func TestRestoreRefuses(t *testing.T) {
	dir, file, _, _ := backedUp(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	with := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "x.backup")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrong := t.TempDir() // has a file of the blob's name that is not it
	if err := os.MkdirAll(filepath.Join(wrong, "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wrong, "sha256", strings.TrimPrefix(bundle.DigestOf([]byte("weights")), "sha256:")), []byte("weighty"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := func() []byte {
		var b bytes.Buffer
		if err := backup.Write(&b, backup.Manifest{Server: "x"}, []backup.Source{{Name: "fleet.yaml", ReadSeeker: strings.NewReader("name: x\n")}}, nil, testPassphrase); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}()
	blobs := filepath.Join(dir, "blobs")
	for _, c := range []struct {
		about string
		conf  RestoreConfig
		want  error
	}{
		{"no file", RestoreConfig{From: file + ".absent", Blobs: blobs}, fleet.ErrBackupForeign},
		{"another file", RestoreConfig{From: filepath.Join(dir, databaseFile), Blobs: blobs}, fleet.ErrBackupForeign},
		{"cut short", RestoreConfig{From: with(whole[:len(whole)-1]), Blobs: blobs}, fleet.ErrBackupDamaged},
		{"flipped", RestoreConfig{From: with(append(bytes.Clone(whole[:len(whole)-9]), "whatever!"...)), Blobs: blobs}, fleet.ErrBackupDamaged},
		{"files missing", RestoreConfig{From: with(foreign), Blobs: blobs}, fleet.ErrBackupDamaged},
		{"another passphrase", RestoreConfig{From: file, Blobs: blobs, Passphrase: []byte("another passphrase")}, fleet.ErrBackupPassphrase},
		{"a server is there", RestoreConfig{From: file, Blobs: blobs, Dir: dir}, fleet.ErrRestoreDir},
		{"no blobs", RestoreConfig{From: file}, fleet.ErrRestoreBlobs},
		{"damaged blobs", RestoreConfig{From: file, Blobs: wrong}, fleet.ErrRestoreBlobs},
	} {
		parent := t.TempDir()
		if c.conf.Passphrase == nil {
			c.conf.Passphrase = testPassphrase
		}
		if c.conf.Dir == "" {
			c.conf.Dir = filepath.Join(parent, "new")
		}
		res, err := Restore(t.Context(), c.conf, time.Now())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.about, err, c.want)
		}
		if errors.Is(c.want, fleet.ErrRestoreBlobs) && (res == nil || len(res.Missing) != 1) {
			t.Errorf("%s: does not name what is missing: %+v", c.about, res)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", c.about, left, err)
		}
	}
	if _, err := Backup(t.Context(), dir, file, testPassphrase, time.Now()); !errors.Is(err, fleet.ErrBackupExists) {
		t.Errorf("over another backup: %v", err)
	}
	if _, err := Backup(t.Context(), t.TempDir(), file+"2", testPassphrase, time.Now()); !errors.Is(err, fleet.ErrServerAbsent) {
		t.Errorf("of no server: %v", err)
	}
}

// TestRestoreServes restores into an empty directory and serves it: the same CA,
// keys and people, the rollout paused, the device's wish withheld, and the act in
// the audit.
func TestRestoreServes(t *testing.T) {
	dir, file, token, rollout := backedUp(t)
	to := t.TempDir()
	res, err := Restore(t.Context(), RestoreConfig{From: file, Dir: to, Blobs: filepath.Join(dir, "blobs"), Passphrase: testPassphrase}, time.Now())
	if err != nil || res.Devices != 1 || res.Rollouts != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, name := range append(append([]string{}, plainFiles...), secretFiles...) {
		a, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs, %v", name, err)
		}
		if st, err := os.Stat(filepath.Join(to, name)); err != nil || strings.Contains(name, "key") && st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	r := start(t, to, token)
	defer r.end()
	if got := r.status("/v1/access", token); got != 200 {
		t.Errorf("the admin of before: %d", got)
	}
	db, err := sqlite.OpenReader(t.Context(), filepath.Join(to, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ro, err := db.Rollout(t.Context(), rollout)
	if err != nil || ro.Status != fleet.RolloutPaused || ro.Code != fleet.RestoreCode {
		t.Errorf("%+v, %v", ro, err)
	}
	w, err := db.Wish(t.Context(), "meter-1")
	if err != nil || !w.Withheld || w.Generation != fleet.RestoreJump || w.Version != fleet.RestoreJump {
		t.Errorf("%+v, %v", w, err)
	}
	as, err := db.Audit(t.Context(), "", "", 100)
	if err != nil || !hasAct(as, "server.restore") {
		t.Errorf("%+v, %v", as, err)
	}
	left, err := RestoreStatus(t.Context(), to)
	if err != nil || len(left) != 1 || left[0].Device != "meter-1" || !left[0].Reconciled.IsZero() {
		t.Errorf("%+v, %v", left, err)
	}
}

func hasAct(as []fleet.Audit, act string) bool {
	for _, a := range as {
		if a.Act == act {
			return true
		}
	}
	return false
}

// TestAlarmOnce wants one alarm for each version that devices are ahead by.
func TestAlarmOnce(t *testing.T) {
	dir, _ := newDir(t)
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := slog.New(slog.DiscardHandler)
	s := &server{db: db, log: log, alarms: &alarm.Board{Store: db, Now: time.Now, Log: log}}
	for _, v := range []int64{5, 5, 4, 6} {
		if err := s.alarmAhead(t.Context(), "meter-1", []finding{{"catalog", "dev", 3, v}}); err != nil {
			t.Fatal(err)
		}
	}
	as, err := db.Audit(t.Context(), "dev", "", 100)
	if err != nil || len(as) != 2 || as[0].Act != "catalog.ahead" || !strings.Contains(as[0].Detail, "publish again") {
		t.Errorf("%+v, %v", as, err)
	}
	if xs := s.alarms.List(t.Context()); len(xs) != 1 || xs[0].Kind != fleet.AlarmAhead || xs[0].Subject != "catalog dev" || !strings.Contains(xs[0].Text, "version 6") {
		t.Errorf("alarms %+v", xs)
	}
	// A device that lies hides nothing that another one says, and when both have
	// what the server has, the alarm is over.
	say := func(device string, f ...finding) []fleet.Alarm {
		t.Helper()
		if err := s.alarmAhead(t.Context(), device, f); err != nil {
			t.Fatal(err)
		}
		return s.alarms.List(t.Context())
	}
	say("liar", finding{"catalog", "dev", 3, 1 << 60})
	if xs := say("meter-2", finding{"catalog", "dev", 3, 4}); len(xs) != 1 || !strings.Contains(xs[0].Text, "meter-2 holds version 4") || !strings.Contains(xs[0].Text, "(3 so far)") {
		t.Errorf("alarms %+v", xs)
	}
	say("meter-1")
	if xs := say("liar"); len(xs) != 1 {
		t.Errorf("alarms %+v", xs)
	}
	if xs := say("meter-2"); len(xs) != 0 {
		t.Errorf("alarms %+v", xs)
	}
}

// TestHelloFromFarAhead answers a device that a thief of the director's key has taken
// beyond all numbers: only so it hears of the root that brings the next key.
func TestHelloFromFarAhead(t *testing.T) {
	dir, _ := newDir(t)
	waitingRollout(t, dir)
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := slog.New(slog.DiscardHandler)
	s := &server{db: db, log: log, alarms: &alarm.Board{Store: db, Now: time.Now, Log: log},
		director: &director.Service{Store: db, Now: time.Now}, catalog: &catalog.Service{Store: db, Now: time.Now, Log: log}}
	for _, h := range []wire.Hello{{Generation: 1 << 60}, {Held: wire.Held{Director: wire.Versions{Timestamp: 1 << 60}}}} {
		if err := s.hello(t.Context(), "meter-1", &h); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
		if xs := s.alarms.List(t.Context()); len(xs) != 1 || xs[0].Subject != "director generation or version" || !strings.Contains(xs[0].Next, "keys rotate") {
			t.Errorf("alarms %+v", xs)
		}
	}
	if err := s.hello(t.Context(), "meter-1", &wire.Hello{}); err != nil || len(s.alarms.List(t.Context())) != 0 {
		t.Errorf("%v, alarms %+v", err, s.alarms.List(t.Context()))
	}
}
