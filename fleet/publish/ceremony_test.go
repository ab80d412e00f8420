package publish

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

var day0 = time.Date(2026, 11, 22, 10, 0, 0, 123, time.UTC)

func pass(p string) offline.Passphrase { return func(bool) ([]byte, error) { return []byte(p), nil } }

// onlineOf are the public halves of a test server's keys.
func onlineOf(s *server) *Online {
	return &Online{
		Snapshot:  s.keys.Snapshot.Public().(ed25519.PublicKey),
		Timestamp: s.keys.Timestamp.Public().(ed25519.PublicKey),
		Director:  s.director.Public().(ed25519.PublicKey),
	}
}

func freshKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ceremony lets holders join, each with the passphrase of their own name.
func ceremony(t testing.TB, online *Online, holders ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, h := range holders {
		c := JoinConfig{Dir: dir, Holder: h, Holders: len(holders), Practice: len(holders) == 1, Online: func() (*Online, error) { return online, nil }, Passphrase: pass(h)}
		if _, err := Join(c, day0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func signAll(t testing.TB, dir string, holders ...string) {
	t.Helper()
	for _, h := range holders {
		if _, err := Sign(dir, h, pass(h)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if code(err) != want {
		t.Errorf("code %q (%v), want %q", code(err), err, want)
	}
}

func TestCeremony(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	dir := ceremony(t, onlineOf(s), "alice", "bob", "carol")
	signAll(t, dir, "alice")
	wantCode(t, s.client(t).Install(ctx, dir, day0), "ceremony.threshold")
	if _, err := s.catalog.Metadata(ctx); err == nil {
		t.Fatal("roots were installed below the threshold")
	}
	again, err := Sign(dir, "alice", pass("alice"))
	if err != nil || len(again) != 0 {
		t.Errorf("the second signing changed %v, %v", again, err)
	}
	_, status, err := Status(dir)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]int{}
	for _, f := range status {
		missing[f.File] = f.Missing
		if d := cmp.Diff([]string{"alice"}, f.By); d != "" {
			t.Error(f.File, d)
		}
	}
	if d := cmp.Diff(map[string]int{"catalog-root.json": 1, "director-root.json": 1, "targets.json": 1, "dev.json": 0, "staging.json": 0, "production.json": 1}, missing); d != "" {
		t.Error(d)
	}
	if status[0].Days(day0) != 364 || status[3].Days(day0) != 179 {
		t.Errorf("the root lasts %d days, dev %d", status[0].Days(day0), status[3].Days(day0))
	}
	signAll(t, dir, "carol")
	if err := s.client(t).Install(ctx, dir, day0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 of 3 holders", "alice, carol", "catalog-root.json", "server  catalog snapshot"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the transcript lacks %q:\n%s", want, text)
		}
	}
	wantCode(t, s.client(t).Install(ctx, dir, day0), "catalog.stale")
}

func TestPractice(t *testing.T) {
	s := newServer(t)
	dir := ceremony(t, onlineOf(s), "eve")
	signAll(t, dir, "eve")
	if err := s.client(t).Install(context.Background(), dir, day0); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{PracticeFile, TranscriptFile} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil || !strings.HasPrefix(string(b), practiceWarning) {
			t.Errorf("%s does not warn: %q, %v", f, b, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, TargetsFile))
	if err != nil || !bytes.Contains(b, []byte(`"practice": true`)) {
		t.Errorf("targets do not say that this was practice: %v", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	online := onlineOf(newServer(t))
	good := func() (*Online, error) { return online, nil }
	dir := ceremony(t, online, "alice", "bob")
	half := t.TempDir()
	if _, err := Join(JoinConfig{Dir: half, Holder: "alice", Online: good, Passphrase: pass("x")}, day0); err != nil {
		t.Fatal(err)
	}
	_, err := Sign(half, "alice", pass("x"))
	wantCode(t, err, "ceremony.incomplete")
	for name, c := range map[string]struct {
		conf JoinConfig
		want string
	}{
		"bad name":           {JoinConfig{Dir: t.TempDir(), Holder: "../x"}, "holder.malformed"},
		"one of three":       {JoinConfig{Dir: t.TempDir(), Holder: "a", Threshold: 1}, "ceremony.threshold"},
		"three of two":       {JoinConfig{Dir: t.TempDir(), Holder: "a", Holders: 2, Threshold: 3}, "ceremony.threshold"},
		"practice for two":   {JoinConfig{Dir: t.TempDir(), Holder: "a", Holders: 2, Practice: true}, "ceremony.threshold"},
		"no online key":      {JoinConfig{Dir: t.TempDir(), Holder: "a", Online: func() (*Online, error) { return &Online{}, nil }}, "keys.online"},
		"late holder":        {JoinConfig{Dir: dir, Holder: "dave"}, "ceremony.complete"},
		"same holder":        {JoinConfig{Dir: half, Holder: "alice"}, "holder.exists"},
		"other threshold":    {JoinConfig{Dir: half, Holder: "bob", Threshold: 3}, "ceremony.differs"},
		"practice afterward": {JoinConfig{Dir: half, Holder: "bob", Practice: true}, "ceremony.differs"},
	} {
		if c.conf.Online == nil {
			c.conf.Online = good
		}
		c.conf.Passphrase = pass("x")
		_, err := Join(c.conf, day0)
		if code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// A holder signs what follows from ceremony.json and nothing else.
func TestSignRefuses(t *testing.T) {
	online := onlineOf(newServer(t))
	dir := ceremony(t, online, "alice", "bob")
	_, err := Sign(dir, "mallory", pass("alice"))
	wantCode(t, err, "holder.unknown")
	_, err = Sign(dir, "alice", pass("wrong"))
	wantCode(t, err, "key.locked")

	edit := func(file, old, new string) (undo func()) {
		path := filepath.Join(dir, file)
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(old)) {
			t.Fatalf("%s lacks %q: %v", file, old, err)
		}
		if err := os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(new), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range [][3]string{
		{"catalog-root.json", `"threshold": 2`, `"threshold": 1`},
		{"targets.json", `"production/*/*"`, `"*/*/*"`},
		{"dev.json", `"version": 1`, `"version": 2`},
		{"ceremony.json", `"threshold": 2`, `"threshold": 2, "drafted": "2030-01-01T00:00:00Z", "x": 1`},
	} {
		undo := edit(e[0], e[1], e[2])
		if changed, err := Sign(dir, "alice", pass("alice")); err == nil || len(changed) > 0 {
			t.Errorf("signed although %s was changed", e[0])
		}
		undo()
	}
	if err := os.Rename(keyPath(dir, "bob", KindRoot), keyPath(dir, "alice", KindRoot)); err != nil {
		t.Fatal(err)
	}
	_, err = Sign(dir, "alice", func(bool) ([]byte, error) { return []byte("bob"), nil })
	wantCode(t, err, "key.mismatch")
}

// What Install sends is what the catalog takes, key for key.
func TestInstallBody(t *testing.T) {
	var mine installBody
	if d := cmp.Diff(catalog.Ceremony(mine), catalog.Ceremony{}); d != "" {
		t.Error(d)
	}
}
