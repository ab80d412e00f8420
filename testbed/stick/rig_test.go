package stick

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	channel = "dev"
	runtime = "dev/runtime-litert-arm64/2.3.0"
	day     = 24 * time.Hour
)

// server is what makes lockboxes and takes receipts in, over a real database, with
// two releases of a model and a clock that the test turns.
type server struct {
	t         testing.TB
	db        *sqlite.DB
	blobs     *blob.Dir
	ceremony  *catalog.Ceremony
	catalog   *catalog.Service
	director  *director.Service
	lockboxes *lockbox.Service
	in        *telemetry.Ingest
	now       time.Time
	epoch     int64
	rollout   *fleet.Rollout
	releases  map[string]*catalogtest.Bundle // by version
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, now: start, releases: map[string]*catalogtest.Bundle{}}
	clock := func() time.Time { return s.now }
	log := slog.New(slog.DiscardHandler)
	var err error
	s.db, err = sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { s.db.Close() })
	s.blobs, err = blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	online := catalogtest.NewOnline()
	pub := catalogtest.New(t, 1, 1, online, start)
	s.ceremony = pub.Ceremony()
	s.catalog = &catalog.Service{Store: s.db, Blobs: s.blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Now: clock, Log: log}
	s.director = &director.Service{Store: s.db, Key: online.Director, Now: clock}
	s.in = &telemetry.Ingest{Store: s.db, Wake: func() {}, Heartbeat: time.Minute, Now: clock, Log: log, Newer: func(context.Context, string, wire.Held) (bool, error) { return true, nil }}
	s.lockboxes = &lockbox.Service{Store: s.db, Director: s.director, Blobs: s.blobs, Now: clock, Catalog: func(ctx context.Context, c string) ([]fleet.MetaRow, error) {
		return s.catalog.Newer(ctx, c, catalog.Held{})
	}}
	must(t, s.catalog.Install(t.Context(), s.ceremony, "anna"))
	add := map[*catalogtest.Bundle]int64{}
	for n, b := range []*catalogtest.Bundle{catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")), catalogtest.Model(t, "digits", "1.0.0", []byte("digits 1")), catalogtest.Model(t, "digits", "1.1.0", make([]byte, 300_000))} {
		b.Put(t, s.blobs)
		add[b] = int64(max(1, n))
		s.releases[b.Contract.Version] = b
	}
	_, err = s.catalog.Ingest(t.Context(), channel, pub.SignRole(pub.Next(channel, add)), "anna")
	must(t, err)
	var ok bool
	s.epoch, ok, err = s.db.Lease(t.Context(), "rollouts", "rig", 10_000*time.Hour, start)
	must(t, err)
	if !ok {
		t.Fatal("no lease")
	}
	return s
}

// wish has a device run a version.
func (s *server) wish(id, version string) {
	s.t.Helper()
	var members []fleet.Member
	if s.rollout == nil {
		s.rollout, members = rollout.New(fleet.Spec{Model: "digits", Version: version, Channel: channel, Attempt: 1}, []*fleet.Device{{ID: id}}, "anna", s.now)
		must(s.t, s.db.CreateRollout(s.t.Context(), s.rollout, members, fleet.Audit{}))
		members[0].Assigned = s.now
	}
	it := fleet.Item{Model: "digits", Path: bundle.TargetPath(channel, "digits", version), Runtime: runtime, Attempt: 1, Rollout: s.rollout.ID, Arm: "treated"}
	must(s.t, s.director.Commit(s.t.Context(), fleet.Commit{Epoch: s.epoch, Rollout: *s.rollout, Members: members, Device: id, Change: func(w *fleet.Wish) error { w.Put(it); return nil }}))
}

// export writes a stick.
func (s *server) export(r fleet.LockboxRequest) (dir string, x *fleet.LockboxExport, w lockbox.Written) {
	s.t.Helper()
	r.By = "anna"
	x, err := s.lockboxes.Export(s.t.Context(), r)
	must(s.t, err)
	dir = s.t.TempDir()
	return dir, x, s.write(dir, x)
}

func (s *server) write(dir string, x *fleet.LockboxExport) lockbox.Written {
	s.t.Helper()
	w, err := lockbox.Write(s.t.Context(), dir, x, func(_ context.Context, digest string) (io.ReadCloser, error) { return s.blobs.Open(digest) })
	must(s.t, err)
	return w
}

// device is one that is enrolled and has no network.
type device struct {
	s   *server
	id  string
	key *ecdsa.PrivateKey
	dir string
	*trust.Client
	now               time.Time
	epoch             uint64
	counter, sequence uint64
}

func (s *server) enrol(id string) *device {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(s.t, err)
	tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: channel, Max: 1, Expires: s.now.Add(time.Hour), Created: s.now}
	must(s.t, s.db.CreateEnrolToken(s.t.Context(), tok, fleet.Audit{}))
	x := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: channel, PublicKey: spki, Serial: id, Enrolled: s.now}
	_, _, err = s.db.Enrol(s.t.Context(), tok.ID, [32]byte{}, x, []byte("cert"), s.now)
	must(s.t, err)
	d := &device{s: s, id: id, key: key, dir: s.t.TempDir(), now: s.now, epoch: 7}
	d.open(durable.OS{}, d.dir)
	return d
}

// open starts the device's trust on a disk that may be new.
func (d *device) open(fsys durable.FS, dir string) {
	d.s.t.Helper()
	must(d.s.t, trust.Install(fsys, filepath.Join(dir, "trust"), [][]byte{d.s.ceremony.CatalogRoot}, [][]byte{d.s.ceremony.DirectorRoot}))
	c, err := d.reopen(fsys, dir)
	must(d.s.t, err)
	d.Client = c
}

func (d *device) reopen(fsys durable.FS, dir string) (*trust.Client, error) {
	return trust.Open(trust.Config{FS: fsys, Dir: filepath.Join(dir, "trust"), Blobs: filepath.Join(dir, "blobs"), Device: d.id, Channel: channel, Now: func() time.Time { return d.now }})
}

func (d *device) who() usb.Who {
	return usb.Who{Fleet: sha256.Sum256(d.s.ceremony.DirectorRoot), Device: d.id, Channel: channel}
}

// plug opens a stick and takes its metadata in.
func (d *device) plug(dir string) (*usb.Stick, error) {
	s, err := usb.Open(dir, d.who())
	if err != nil {
		return nil, err
	}
	_, err = d.RefreshLockbox(context.Background(), s)
	return s, err
}

// online is the device in its network: the server as a source of metadata.
type online struct{ d *device }

func (o online) Refresh(ctx context.Context, h trust.Held) ([]trust.File, error) {
	rows, err := o.d.s.director.Newer(ctx, o.d.id, director.Held(h.Director))
	if err != nil {
		return nil, err
	}
	more, err := o.d.s.catalog.Newer(ctx, channel, catalog.Held{Root: h.Catalog.Root, Timestamp: h.Catalog.Timestamp, Snapshot: h.Catalog.Snapshot, Targets: h.Catalog.Targets, Roles: h.Roles})
	var out []trust.File
	for _, r := range append(rows, more...) {
		out = append(out, trust.File{Repo: r.Repo, Role: r.Role, Version: r.Version, Bytes: r.Bytes})
	}
	return out, err
}

func (online) Fetch(context.Context, trust.Blob, []trust.Range, io.WriterAt) error {
	return io.ErrUnexpectedEOF
}

func (d *device) note() *wire.LockboxNote {
	d.s.t.Helper()
	n := &wire.LockboxNote{}
	must(d.s.t, json.Unmarshal(d.Note(), n))
	return n
}

// hello is what the device says of itself.
func (d *device) hello() wire.Hello {
	return wire.Hello{Protocols: []int{wire.Protocol}, Agent: "1.0", Epoch: d.epoch, Channel: channel, Facts: map[string]string{"arch": "arm64", "class": "pi"}}
}

// record numbers a payload.
func (d *device) record(payload any) wire.Record {
	d.s.t.Helper()
	b, err := wire.Encode(payload)
	must(d.s.t, err)
	d.sequence++
	return wire.Record{Epoch: d.epoch, Sequence: d.sequence, Payload: b}
}

// runs is a signed report that a version is active and good.
func (d *device) runs(version string, nonce []byte) wire.Record {
	d.s.t.Helper()
	d.counter++
	slot := &wire.SlotState{Path: bundle.TargetPath(channel, "digits", version), Bundle: bundle.DigestOf(d.s.releases[version].Raw), Runtime: bundle.DigestOf(d.s.releases["2.3.0"].Raw), Verdict: "good", Proven: true}
	rep := &wire.Report{Device: d.id, Epoch: d.epoch, Counter: d.counter, Generation: d.Wish().Generation, Nonce: nonce, Models: []wire.ModelState{{Model: "digits", Active: slot, Generation: d.Wish().Generation, Attempt: 1}}}
	env, err := wire.Sign(d.key, wire.ReportType, rep)
	must(d.s.t, err)
	return d.record(env)
}

// receipt signs one.
func (d *device) receipt(lockbox string, report *wire.Record, queued ...wire.ReceiptBatch) []byte {
	d.s.t.Helper()
	env, err := wire.Sign(d.key, wire.ReceiptType, &wire.Receipt{Device: d.id, Lockbox: lockbox, Hello: d.hello(), Report: report, Queued: queued})
	must(d.s.t, err)
	b, err := wire.Encode(env)
	must(d.s.t, err)
	return b
}
