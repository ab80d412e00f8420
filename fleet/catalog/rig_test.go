package catalog_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rig is a catalog over a real database and real blobs, with its publishers and a
// clock that the test turns.
type rig struct {
	*catalog.Service
	t       testing.TB
	pub     *catalogtest.Publishers
	db      *sqlite.DB
	blobs   *blob.Dir
	now     time.Time
	changes int
}

// newRig makes a server without roots, and holders of whom so many must sign.
func newRig(t testing.TB, threshold, holders int) *rig {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	online := catalogtest.NewOnline()
	r := &rig{t: t, pub: catalogtest.New(t, threshold, holders, online, start), db: db, blobs: blobs, now: start}
	r.Service = &catalog.Service{
		Store: db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey),
		Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler), Changed: func() { r.changes++ },
	}
	return r
}

// installed has the roots of a 2-of-3 ceremony.
func installed(t testing.TB) *rig {
	t.Helper()
	r := newRig(t, 2, 3)
	must(t, r.Install(t.Context(), r.pub.Ceremony(), "anna"))
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stored is everything that an act on the catalog can change.
type stored struct {
	Catalog, Director []fleet.MetaRow
	Releases          []*fleet.Release
	Audit             []fleet.Audit
	Changes           int
}

func (r *rig) stored() stored {
	r.t.Helper()
	ctx, s := context.Background(), stored{Changes: r.changes}
	var err error
	s.Catalog, err = r.db.AllMetadata(ctx, catalog.Repo, "")
	must(r.t, err)
	s.Director, err = r.db.AllMetadata(ctx, catalog.RepoDirector, "")
	must(r.t, err)
	s.Releases, err = r.db.Releases(ctx, fleet.ReleaseFilter{})
	must(r.t, err)
	s.Audit, err = r.db.Audit(ctx, "", "", 100)
	must(r.t, err)
	return s
}

// refuses wants an act to be refused with a code and to change nothing.
func (r *rig) refuses(want *fleet.Error, act func() error) {
	r.t.Helper()
	before := r.stored()
	err := act()
	var code string
	if e, ok := err.(*fleet.Error); ok {
		code = e.Code
	}
	if code != want.Code {
		r.t.Errorf("%v, want %s", err, want.Code)
	} else {
		r.t.Logf("refused: %v", err)
	}
	if d := cmp.Diff(before, r.stored()); d != "" {
		r.t.Errorf("the refused act changed: %s", d)
	}
}

// publish takes a role in and remembers it.
func (r *rig) publish(channel string, md *catalogtest.Targets) []fleet.Release {
	r.t.Helper()
	rs, err := r.Ingest(r.t.Context(), channel, r.pub.SignAs(channel, md), "anna")
	must(r.t, err)
	r.pub.Published(channel, md)
	return rs
}

// runtime is a bundle whose blobs are here.
func (r *rig) runtime(version string) *catalogtest.Bundle {
	r.t.Helper()
	b := catalogtest.Runtime(r.t, "arm64", version, []byte("library "+version))
	b.Put(r.t, r.blobs)
	return b
}

func rawOf(t testing.TB, v any) *json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return (*json.RawMessage)(&b)
}
