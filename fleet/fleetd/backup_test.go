package fleetd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// rooted installs roots into a directory's database that name these online keys.
func rooted(t *testing.T, dir string, o catalogtest.Online) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	s := &catalog.Service{Store: db, Blobs: blobs, Keys: o.Keys, Director: publicOf(o.Director), Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if err := s.Install(t.Context(), catalogtest.New(t, 2, 3, o, time.Now()).Ceremony(), "anna"); err != nil {
		t.Fatal(err)
	}
}

// keyFile is how online keys are stored.
func keyFile(t *testing.T, o catalogtest.Online) []byte {
	t.Helper()
	b, err := json.Marshal(onlineKeys{o.Snapshot.Seed(), o.Timestamp.Seed(), o.Director.Seed()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeKeys(t *testing.T, dir, name string, o catalogtest.Online) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), keyFile(t, o), 0o600); err != nil {
		t.Fatal(err)
	}
}

// archive reads a backup.
func archive(t *testing.T, file string) *backup.Archive {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := backup.Open(bytes.NewReader(b), int64(len(b)), testPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOnlineKeysAreThoseOfTheRoots wants no server to be backed up, restored or
// started with online keys other than those that its roots name.
func TestOnlineKeysAreThoseOfTheRoots(t *testing.T) {
	dir, _ := newDir(t)
	named, other := catalogtest.NewOnline(), catalogtest.NewOnline()
	rooted(t, dir, named)
	writeKeys(t, dir, onlineFile, named)
	out := t.TempDir()
	good, mixed := filepath.Join(out, "good"), filepath.Join(out, "mixed")
	if _, err := Backup(t.Context(), dir, good, testPassphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	a := archive(t, good)
	var sources []backup.Source
	for _, f := range a.Files {
		b, err := io.ReadAll(a.File(f.Name))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, backup.Source{Name: f.Name, ReadSeeker: bytes.NewReader(b)})
	}
	a.Secrets[onlineFile] = keyFile(t, other)
	w, err := os.Create(mixed)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(backup.Write(w, a.Manifest, sources, a.Secrets, testPassphrase), w.Close()); err != nil {
		t.Fatal(err)
	}
	conf := RestoreConfig{From: mixed, Dir: filepath.Join(out, "new"), Passphrase: testPassphrase}
	var coded *fleet.Error
	if _, err := Restore(t.Context(), conf, time.Now()); !errors.As(err, &coded) || coded.Code != fleet.ErrServerOnline.Code || coded.Next != "take another backup of this server" {
		t.Errorf("restore: %v", err)
	}
	conf.From = good
	if _, err := Restore(t.Context(), conf, time.Now()); err != nil {
		t.Errorf("restore of a good one: %v", err)
	}
	writeKeys(t, dir, onlineFile, other)
	if _, err := Backup(t.Context(), dir, filepath.Join(out, "third"), testPassphrase, time.Now()); !errors.Is(err, fleet.ErrServerOnline) {
		t.Errorf("backup: %v", err)
	}
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.API, c.MQTT = "127.0.0.1:0", "127.0.0.1:0"
	if err := Run(t.Context(), c, slog.New(slog.DiscardHandler), func(Addresses) error { return errors.New("it serves") }); !errors.Is(err, fleet.ErrServerOnline) {
		t.Errorf("start: %v", err)
	}
}

// TestBackupWhileKeysChange: the holders' new roots may reach the server at any point
// of a backup; what comes out are roots with their keys.
func TestBackupWhileKeysChange(t *testing.T) {
	dir, _ := newDir(t)
	was, next := catalogtest.NewOnline(), catalogtest.NewOnline()
	rooted(t, dir, next) // as the copy holds it: taken after the change
	writeKeys(t, dir, onlineFile, was)
	writeKeys(t, dir, nextFile, next)
	b := &contents{dir: dir, database: filepath.Join(dir, databaseFile)}
	if err := b.read(); err != nil {
		t.Fatal(err)
	}
	writeKeys(t, dir, onlineFile, next)
	if err := errors.Join(os.Remove(filepath.Join(dir, nextFile)), b.pickOnline(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.secrets[onlineFile], keyFile(t, next)) {
		t.Error("the keys are not those of the roots")
	}
	// The copy was taken before the change.
	dir, _ = newDir(t)
	rooted(t, dir, was)
	writeKeys(t, dir, onlineFile, was)
	writeKeys(t, dir, nextFile, next)
	b = &contents{dir: dir, database: filepath.Join(dir, databaseFile)}
	if err := errors.Join(b.read(), b.pickOnline(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.secrets[onlineFile], keyFile(t, was)) {
		t.Error("the keys are not those of the roots")
	}
}

// TestBackupKeepsOthersOut: no key, CA or name changes while a backup is made, and
// none is made while they change.
func TestBackupKeepsOthersOut(t *testing.T) {
	dir, _ := newDir(t)
	lock, err := durable.Lock(filepath.Join(dir, "desk.lock"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "x")
	if _, err := Backup(t.Context(), dir, out, testPassphrase, time.Now()); !errors.Is(err, fleet.ErrServerDesk) {
		t.Error(err)
	}
	if _, err := RotateCA(t.Context(), dir, time.Now()); !errors.Is(err, fleet.ErrServerDesk) {
		t.Error(err)
	}
	lock.Close()
	if _, err := Backup(t.Context(), dir, out, testPassphrase, time.Now()); err != nil {
		t.Error(err)
	}
}

// TestBackupOfAPolicy: what 'signatures' names comes back with the server, or the
// restore says what does not.
func TestBackupOfAPolicy(t *testing.T) {
	dir, token := newDir(t)
	elsewhere := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	signKey(t, filepath.Join(dir, "keys"), "publisher.pub")
	signKey(t, elsewhere, "builds.pub")
	absolute := filepath.Join(elsewhere, "builds.pub")
	conf, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	conf = append(conf, "signatures:\n  production: {key: keys/publisher.pub}\n  staging: {cert: ca.pem}\n  dev: {key: "+absolute+"}\n"...)
	if err := os.WriteFile(filepath.Join(dir, configFile), conf, 0o644); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	file := filepath.Join(out, "x.backup")
	if _, err := Backup(t.Context(), dir, file, testPassphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	restore := func(name string) (string, []string) {
		t.Helper()
		to := filepath.Join(out, name)
		r, err := Restore(t.Context(), RestoreConfig{From: file, Dir: to, Passphrase: testPassphrase}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return to, r.Absent
	}
	to, absent := restore("here")
	if len(absent) != 0 {
		t.Errorf("missing: %v", absent)
	}
	start(t, to, token).end()
	if err := os.Remove(absolute); err != nil {
		t.Fatal(err)
	}
	if _, absent = restore("there"); !slices.Equal(absent, []string{absolute}) {
		t.Errorf("missing: %v, want %s", absent, absolute)
	}
}
