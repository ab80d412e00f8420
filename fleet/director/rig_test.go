package director_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	channel = "dev"
	runtime = "dev/runtime-litert-arm64/2.3.0"
)

// rig is a director and a catalog over a real database, with releases of two
// models and a runtime, and a clock that the test turns.
type rig struct {
	*director.Service
	t        testing.TB
	db       *sqlite.DB
	catalog  *catalog.Service
	ceremony *catalog.Ceremony
	now      time.Time
	epoch    int64
	told     []string
	rollouts map[string]*fleet.Rollout // by model
	bundles  map[string]*catalogtest.Bundle
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	online := catalogtest.NewOnline()
	pub := catalogtest.New(t, 2, 3, online, start)
	r := &rig{t: t, db: db, now: start, rollouts: map[string]*fleet.Rollout{}, ceremony: pub.Ceremony(), bundles: map[string]*catalogtest.Bundle{}}
	clock := func() time.Time { return r.now }
	r.catalog = &catalog.Service{Store: db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Now: clock, Log: slog.New(slog.DiscardHandler)}
	r.Service = &director.Service{Store: db, Key: online.Director, Now: clock, Changed: func(d string) { r.told = append(r.told, d) }}
	must(t, r.catalog.Install(t.Context(), r.ceremony, "anna"))
	add := map[*catalogtest.Bundle]int64{}
	for _, b := range []*catalogtest.Bundle{
		catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")), catalogtest.Model(t, "digits", "1.0.0", []byte("digits 1")), catalogtest.Model(t, "gauge", "1.0.0", []byte("gauge 1")),
	} {
		b.Put(t, blobs)
		add[b], r.bundles[b.Path(channel)] = 1, b
	}
	_, err = r.catalog.Ingest(t.Context(), channel, pub.SignRole(pub.Next(channel, add)), "anna")
	must(t, err)
	next := catalogtest.Model(t, "digits", "1.1.0", []byte("digits 2"))
	next.Put(t, blobs)
	add[next], r.bundles[next.Path(channel)] = 2, next
	md := pub.Next(channel, add)
	md.Signed.Version = 3
	_, err = r.catalog.Ingest(t.Context(), channel, pub.SignRole(md), "anna")
	must(t, err)
	var ok bool
	r.epoch, ok, err = db.Lease(t.Context(), "rollouts", "rig", 1000*time.Hour, start)
	must(t, err)
	if !ok {
		t.Fatal("no lease")
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enrol makes devices.
func (r *rig) enrol(ids ...string) {
	r.t.Helper()
	for _, id := range ids {
		tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: channel, Max: 1, Expires: r.now.Add(time.Hour), Created: r.now}
		must(r.t, r.db.CreateEnrolToken(r.t.Context(), tok, fleet.Audit{}))
		d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: channel, PublicKey: []byte(id), Serial: id, Enrolled: r.now}
		_, _, err := r.db.Enrol(r.t.Context(), tok.ID, [32]byte{}, d, []byte("cert"), r.now)
		must(r.t, err)
	}
}

// commit changes a device's wish through the rollout of a model.
func (r *rig) commit(device, model string, change func(*fleet.Wish) error) error {
	if r.rollouts[model] == nil {
		ro, _ := rollout.New(fleet.Spec{Model: model, Version: "1.0.0", Channel: channel}, []*fleet.Device{{ID: device}}, "anna", r.now)
		if err := r.db.CreateRollout(context.Background(), ro, nil, fleet.Audit{}); err != nil {
			return err
		}
		r.rollouts[model] = ro
	}
	return r.Commit(context.Background(), fleet.Commit{Epoch: r.epoch, Rollout: *r.rollouts[model], Device: device, Change: change})
}

func item(model, version string, attempt int64) fleet.Item {
	return fleet.Item{Model: model, Path: bundle.TargetPath(channel, model, version), Runtime: runtime, Attempt: attempt, Rollout: "rol_" + model, Arm: "treated"}
}

// wish puts items into a device's wish, one act each.
func (r *rig) wish(device string, items ...fleet.Item) {
	r.t.Helper()
	for _, it := range items {
		must(r.t, r.commit(device, it.Model, func(w *fleet.Wish) error { w.Put(it); return nil }))
	}
}

// device is a real trust client that asks this server, as the device of that
// name.
type device struct {
	*trust.Client
	r    *rig
	name string
	asks string // as whom it asks: itself, but for attacks
	last []trust.File
}

func (r *rig) device(name string) *device {
	r.t.Helper()
	dir := r.t.TempDir()
	must(r.t, trust.Install(durable.OS{}, filepath.Join(dir, "trust"), [][]byte{r.ceremony.CatalogRoot}, [][]byte{r.ceremony.DirectorRoot}))
	c, err := trust.Open(trust.Config{FS: durable.OS{}, Dir: filepath.Join(dir, "trust"), Blobs: filepath.Join(dir, "blobs"), Device: name, Channel: channel, Now: func() time.Time { return r.now }})
	must(r.t, err)
	return &device{Client: c, r: r, name: name, asks: name}
}

func (d *device) refresh() (trust.Wish, error) { return d.Client.Refresh(context.Background(), d) }

// refreshed wants the server's files to be believed.
func (d *device) refreshed() trust.Wish {
	d.r.t.Helper()
	w, err := d.refresh()
	must(d.r.t, err)
	return w
}

// Refresh implements trust.Source over director and catalog, as the server does.
func (s *device) Refresh(ctx context.Context, h trust.Held) ([]trust.File, error) {
	rows, err := s.r.Newer(ctx, s.asks, director.Held(h.Director))
	if err != nil {
		return nil, err
	}
	more, err := s.r.catalog.Newer(ctx, channel, catalog.Held{Root: h.Catalog.Root, Timestamp: h.Catalog.Timestamp, Snapshot: h.Catalog.Snapshot, Targets: h.Catalog.Targets, Roles: h.Roles})
	s.last = nil
	for _, m := range append(rows, more...) {
		s.last = append(s.last, trust.File{Repo: m.Repo, Role: m.Role, Version: m.Version, Bytes: m.Bytes})
	}
	return s.last, err
}

// Fetch implements trust.Source.
func (*device) Fetch(context.Context, trust.Blob, []trust.Range, io.WriterAt) error {
	return errors.New("no blobs here")
}

// assigns reads what a wish says of a path.
func assigns(t *testing.T, w trust.Wish, path string) bundle.Custom {
	t.Helper()
	for _, x := range w.Targets {
		if x.Path == path {
			var c bundle.Custom
			must(t, json.Unmarshal(x.Custom, &c))
			return c
		}
	}
	t.Fatalf("%s is not in the wish", path)
	return bundle.Custom{}
}

// Refresh implements trust.Source.
func (s replay) Refresh(context.Context, trust.Held) ([]trust.File, error) { return s.files, nil }

// Fetch implements trust.Source.
func (replay) Fetch(context.Context, trust.Blob, []trust.Range, io.WriterAt) error {
	return errors.New("no blobs here")
}
