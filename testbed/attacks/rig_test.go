package attacks

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	channel = "production"
	first   = "production/digits/1.0.0"
	second  = "production/digits/1.1.0"
	untried = "dev/digits/2.0.0"
	library = "production/runtime-litert-arm64/2.3.0"
)

// world is what publishers and the server have signed, at three times: devices begin
// at early; at later there is a second release, and a floor above the first; last is
// what is honest after an attack.
type world struct {
	pub                *catalogtest.Publishers // two of three must sign
	catalog            *catalog.Service
	director           *director.Service
	ceremony           *catalog.Ceremony
	releases           map[string]*catalogtest.Bundle
	early, later, last []trusttest.Genuine
	other              []trusttest.Genuine // director's files of another device, at a higher version
	dev                []trusttest.Genuine // the dev role
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newWorld has the server's own code make everything, over a real database.
func newWorld(t *testing.T, teams ...catalogtest.Team) *world {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	online, now := catalogtest.NewOnline(), func() time.Time { return start }
	w := &world{pub: catalogtest.New(t, 2, 3, online, start), releases: map[string]*catalogtest.Bundle{
		library: catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")), first: catalogtest.Model(t, "digits", "1.0.0", []byte("one")),
		second: catalogtest.Model(t, "digits", "1.1.0", []byte("two")), untried: catalogtest.Model(t, "digits", "2.0.0", []byte("untried")),
	}}
	w.pub.Teams = teams
	w.ceremony = w.pub.Ceremony()
	w.catalog = &catalog.Service{Store: db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Now: now, Log: slog.New(slog.DiscardHandler)}
	w.director = &director.Service{Store: db, Key: online.Director, Now: now}
	must(t, w.catalog.Install(t.Context(), w.ceremony, "anna"))
	for _, b := range w.releases {
		b.Put(t, blobs)
	}
	w.publish(t, "dev", nil, map[string]int64{untried: 7})
	w.publish(t, channel, nil, map[string]int64{library: 1, first: 1})
	w.dev = w.of(t, "dev")
	w.early = w.at(t, 1, first)
	w.publish(t, channel, map[string]any{"digits": 2}, map[string]int64{second: 2})
	w.later = w.at(t, 2, second)
	for _, x := range w.signed(t, "meter-2", 90, 90, second) {
		w.other = append(w.other, w.genuine(x))
	}
	w.publish(t, channel, map[string]any{"digits": 2}, nil)
	w.last = w.at(t, 99, second)
	return w
}

// publish takes in releases, and floors of digits, in the roles that speak of them.
func (w *world) publish(t *testing.T, ch string, floors map[string]any, add map[string]int64) {
	t.Helper()
	roles := map[string]map[*catalogtest.Bundle]int64{}
	if floors != nil {
		roles[w.role(ch, "digits")] = map[*catalogtest.Bundle]int64{}
	}
	for path, counter := range add {
		role := w.role(ch, strings.Split(path, "/")[1])
		if roles[role] == nil {
			roles[role] = map[*catalogtest.Bundle]int64{}
		}
		roles[role][w.releases[path]] = counter
	}
	for role, bundles := range roles {
		md := w.pub.Next(role, bundles)
		if floors != nil {
			md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": ch, "floors": floors}}
		}
		_, err := w.catalog.Ingest(t.Context(), role, w.pub.SignAs(role, md), "anna")
		must(t, err)
		w.pub.Published(role, md)
	}
}

// role is the one that speaks of a model.
func (w *world) role(ch, model string) string {
	for i := range w.pub.Teams {
		if m := &w.pub.Teams[i]; m.Channel == ch && slices.Contains(m.Models, model) {
			return m.Role()
		}
	}
	return ch
}

// signed is the director's work for a device.
func (w *world) signed(t *testing.T, device string, version, generation int64, path string) []fleet.MetaRow {
	t.Helper()
	rows, err := w.director.Sign(t.Context(), &fleet.Wish{Device: device, Version: version, Generation: generation, Items: []fleet.Item{{Model: "digits", Path: path, Runtime: library, Attempt: 1}}})
	must(t, err)
	return rows
}

// at is everything for meter-1 as it is now.
func (w *world) at(t *testing.T, version int64, path string) []trusttest.Genuine {
	t.Helper()
	out := w.of(t, channel)
	for _, x := range w.signed(t, "meter-1", version, version, path) {
		out = append(out, w.genuine(x))
	}
	return out
}

// of is the catalog for a channel as it is now, without roots.
func (w *world) of(t *testing.T, ch string) (out []trusttest.Genuine) {
	t.Helper()
	rows, err := w.catalog.Newer(t.Context(), ch, catalog.Held{Root: 1})
	must(t, err)
	for _, x := range rows {
		out = append(out, w.genuine(x))
	}
	return out
}

// genuine adds the keys that signed a file.
func (w *world) genuine(x fleet.MetaRow) trusttest.Genuine {
	keys := w.pub.Quorum(w.pub.Release)
	switch {
	case x.Repo == trust.Director:
		keys = []ed25519.PrivateKey{w.pub.Online.Director}
	case x.Role == "timestamp":
		keys = []ed25519.PrivateKey{w.pub.Online.Timestamp}
	case x.Role == "snapshot":
		keys = []ed25519.PrivateKey{w.pub.Online.Snapshot}
	}
	for i := range w.pub.Teams {
		if m := &w.pub.Teams[i]; m.Role() == x.Role {
			keys = m.Keys[:m.Threshold]
		}
	}
	return trusttest.Genuine{Repo: x.Repo, Role: x.Role, Bytes: x.Bytes, Keys: keys}
}

// forgery is what a device is sent in place of what is genuine.
type forgery struct {
	*trusttest.Forgery
	w *world
}

func (w *world) forge(t *testing.T, from []trusttest.Genuine) *forgery {
	return &forgery{trusttest.New(t, from, map[string][]byte{trust.Catalog: w.ceremony.CatalogRoot, trust.Director: w.ceremony.DirectorRoot}, w.pub.Quorum(w.pub.Root)...), w}
}

// target is a release in a file.
func (f *forgery) target(file, path string) doc {
	return f.Files[file].Signed["targets"].(doc)[path].(doc)
}

// custom is a file's own custom object.
func (f *forgery) custom(file string) doc { return f.Files[file].Signed["custom"].(doc) }

// swap puts the bytes of a file from another set in the place of one.
func (f *forgery) swap(file string, from []trusttest.Genuine) {
	f.Files[file].Late = func([]byte) []byte { return bytesOf(from, file) }
}

func bytesOf(from []trusttest.Genuine, file string) []byte {
	i := slices.IndexFunc(from, func(g trusttest.Genuine) bool { return g.Repo+"/"+g.Role == file })
	return from[i].Bytes
}

// sends is a Source that sends files, whatever is held, and no blobs.
type sends []trusttest.Sent

func (s sends) Refresh(context.Context, trust.Held) (out []trust.File, err error) {
	for _, x := range s {
		out = append(out, trust.File(x))
	}
	return out, nil
}

func (sends) Fetch(context.Context, trust.Blob, []trust.Range, io.WriterAt) error {
	return io.ErrUnexpectedEOF
}

func honest(from []trusttest.Genuine) sends {
	var out sends
	for _, g := range from {
		out = append(out, trusttest.Sent{Repo: g.Repo, Role: g.Role, Version: 2, Bytes: g.Bytes})
	}
	return out
}

// device is meter-1 with its disk.
type device struct {
	*trust.Client
	t   *testing.T
	dir string
	now time.Time
}

func (w *world) device(t *testing.T) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), now: start}
	must(t, trust.Install(durable.OS{}, filepath.Join(d.dir, "trust"), [][]byte{w.ceremony.CatalogRoot}, [][]byte{w.ceremony.DirectorRoot}))
	d.open()
	return d
}

// open reads the device's disk, as after a restart.
func (d *device) open() {
	d.t.Helper()
	var err error
	d.Client, err = trust.Open(trust.Config{FS: durable.OS{}, Dir: filepath.Join(d.dir, "trust"), Blobs: filepath.Join(d.dir, "blobs"), Device: "meter-1", Channel: channel, Now: func() time.Time { return d.now }})
	must(d.t, err)
}

// believes has the device take in what must be believed.
func (d *device) believes(s trust.Source) trust.Wish {
	d.t.Helper()
	got, err := d.Refresh(d.t.Context(), s)
	must(d.t, err)
	return got
}

// disk is everything that the device has stored.
func (d *device) disk() map[string]string {
	d.t.Helper()
	out := map[string]string{}
	must(d.t, filepath.WalkDir(d.dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	}))
	return out
}

// refuses has the device refuse with a code, and nothing else: what it believes and
// what is on its disk are as before.
func (d *device) refuses(s trust.Source, code string) {
	d.t.Helper()
	wish, disk := d.Wish(), d.disk()
	_, err := d.Refresh(d.t.Context(), s)
	var r *trust.Refusal
	if !errors.As(err, &r) || r.Code != code {
		d.t.Fatalf("%v, want %s", err, code)
	}
	if diff := cmp.Diff(wish, d.Wish()); diff != "" {
		d.t.Errorf("the wish changed: %s", diff)
	}
	if diff := cmp.Diff(disk, d.disk()); diff != "" {
		d.t.Errorf("the disk changed: %v", slices.Sorted(maps.Keys(disk)))
	}
}
