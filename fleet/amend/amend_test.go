package amend

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// begun is the folder of a ceremony of two of three that was installed, and what the
// server has of it.
func begun(t *testing.T) *play {
	t.Helper()
	shape := &publish.Ceremony{Format: 1, Holders: 3, Threshold: 2, Joined: []publish.Holder{{Name: "ada"}, {Name: "ben"}, {Name: "cleo"}}}
	p, err := copyOf(shape, t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func code(err error) string {
	var e *fleet.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Code
}

// TestSuspect changes one thing of an amendment on its way: nobody signs it.
func TestSuspect(t *testing.T) {
	b := begun(t)
	if _, err := b.Rotate("ada", publish.KindRelease, ""); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.Dir, File)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	reroot := func(a *Amendment, change func(*metadata.RootType)) {
		md, err := offline.Parse[metadata.RootType]("root", a.Next.CatalogRoot)
		if err != nil {
			t.Fatal(err)
		}
		change(&md.Signed)
		if a.Next.CatalogRoot, err = md.ToBytes(true); err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		want   string
		change func(a *Amendment)
	}{
		"as it was made":             {"", func(*Amendment) {}},
		"another key for ben":        {"amendment.suspect", func(a *Amendment) { a.New.Joined[1].Release = other }},
		"a key in the root alone":    {"amendment.suspect", func(a *Amendment) { reroot(a, func(r *metadata.RootType) { r.Roles[metadata.ROOT].Threshold = 1 }) }},
		"a longer life":              {"amendment.suspect", func(a *Amendment) { reroot(a, func(r *metadata.RootType) { r.Expires = r.Expires.AddDate(9, 0, 0) }) }},
		"another server's keys":      {"amendment.suspect", func(a *Amendment) { a.New.Online.Director = other }},
		"a lower threshold":          {"amendment.malformed", func(a *Amendment) { a.New.Threshold = 1 }},
		"a fourth holder":            {"amendment.malformed", func(a *Amendment) { a.New.Joined = append(a.New.Joined, a.New.Joined[0]) }},
		"a file that is not changed": {"amendment.suspect", func(a *Amendment) { a.Next.DirectorRoot = a.Base.DirectorRoot }},
		"a file left out":            {"amendment.suspect", func(a *Amendment) { a.Next.Targets = nil }},
		"a channel that stays":       {"amendment.suspect", func(a *Amendment) { a.Next.put("production.json", a.Base.Roles["production"]) }},
		"a channel that is none":     {"amendment.suspect", func(a *Amendment) { a.Next.put("root.json", a.Next.Targets) }},
		"a version skipped":          {"amendment.suspect", func(a *Amendment) { a.New.Editions[publish.TargetsFile] = publish.Edition{Version: 9, Drafted: now} }},
		"floors nobody asked for":    {"amendment.suspect", func(a *Amendment) { a.Channel, a.Floors = "production", map[string]int64{"meter-digits": 1} }},
		"another base root":          {"amendment.suspect", func(a *Amendment) { a.Base.CatalogRoot = a.Base.DirectorRoot }},
		"a base role that is not signed": {"amendment.suspect", func(a *Amendment) {
			a.Base.Roles["production"] = bytes.Replace(a.Base.Roles["production"], []byte("production"), []byte("productioN"), 1)
		}},
		"another ceremony before it": {"amendment.other", func(a *Amendment) { a.Old.Joined[2].Name = "eve" }},
		"another format":             {"amendment.malformed", func(a *Amendment) { a.Format = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := parse(text)
			if err != nil {
				t.Fatal(err)
			}
			x.change(a)
			changed, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path, b.Dir); code(err) != x.want || x.want == "" && err != nil {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}

// TestActs refuses what cannot be done, and leaves nothing behind.
func TestActs(t *testing.T) {
	b := begun(t)
	for want, act := range map[string]func() (*Amendment, error){
		"holder.unknown":    func() (*Amendment, error) { return b.Rotate("eve", publish.KindRoot, "") },
		"keys.kind":         func() (*Amendment, error) { return b.Rotate("ada", "timestamp", "") },
		"holder.exists":     func() (*Amendment, error) { return b.Replace("ada", "ben") },
		"holder.malformed":  func() (*Amendment, error) { return b.Replace("ada", "Dora!") },
		"amendment.nothing": func() (*Amendment, error) { return b.Renew(false) },
		"channel.unknown":   func() (*Amendment, error) { return b.Floor("root", map[string]int64{"m": 1}) },
		"floor.above":       func() (*Amendment, error) { return b.Floor("dev", map[string]int64{"m": 1}) },
		"keys.hard":         func() (*Amendment, error) { return b.Harden(b.Dir) },
	} {
		if _, err := act(); code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := os.Stat(filepath.Join(b.Dir, File)); err == nil {
			t.Errorf("%s: an amendment is left", want)
		}
	}
	if _, err := b.Renew(true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Renew(true); code(err) != "amendment.under_way" {
		t.Error(err)
	}
}

// TestDue renews what expires within 60 days and nothing else: roots live a year,
// the rest half of one.
func TestDue(t *testing.T) {
	b := begun(t)
	b.Now = now.Add(publish.RoleLife - Warning + time.Hour)
	a, err := b.Renew(false)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, p := range a.papers {
		have = append(have, p.file)
	}
	if got := strings.Join(have, " "); got != "targets.json dev.json staging.json production.json" {
		t.Error(got)
	}
}

// TestDrill plays loss and theft of both kinds of keys.
func TestDrill(t *testing.T) {
	b := begun(t)
	before, err := os.ReadFile(filepath.Join(b.Dir, publish.CeremonyFile))
	if err != nil {
		t.Fatal(err)
	}
	for role, alone := range map[string]string{
		publish.KindRoot: "nothing", publish.KindRelease: "publish for dev, staging; nothing for production",
		"snapshot": "nothing", "timestamp": "keep devices", "director": "direct devices",
	} {
		d, err := Drill(b.Dir, role, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []Rehearse{d.Loss, d.Theft} {
			if !r.Follows || !r.Before || len(r.Signers) != 2 || len(r.Files) == 0 || !strings.HasPrefix(r.Thief, alone) {
				t.Errorf("%s: %+v", role, r)
			}
		}
	}
	if _, err := Drill(b.Dir, "targets", now); code(err) != "drill.role" {
		t.Error(err)
	}
	if after, err := os.ReadFile(filepath.Join(b.Dir, publish.CeremonyFile)); err != nil || !bytes.Equal(before, after) {
		t.Error("the drill changed the ceremony")
	}
}

// FuzzRead reads whatever came.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"format":1,"act":"","made":"2026-11-23T12:00:00Z","old":{},"new":{},"base":{},"next":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(b)
		if err != nil {
			return
		}
		a.verify()
	})
}
