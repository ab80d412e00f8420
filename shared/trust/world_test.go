package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newKey() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k }

// world makes both repositories and hands their files out as a Source does.
type world struct {
	t                                        *testing.T
	rootA, rootB, targets, role, snap, stamp ed25519.PrivateKey
	director                                 ed25519.PrivateKey
	catalogRoot, directorRoot                []byte

	o     offer
	alter func(*File) // the last word on every file
	extra []File
	blobs map[[32]byte][]byte
	// What Fetch does besides: fail after so many bytes, or change one.
	cutAfter int
	flip     bool
	fetched  int
	held     []Held
}

// offer is what the repositories say.
type offer struct {
	device             string
	generation         int64
	version            int64 // of the director's files
	directorExpires    time.Time
	directorKey        ed25519.PrivateKey
	catalogVersion     int64
	catalogExpires     time.Time
	roleKey, stampKey  ed25519.PrivateKey
	channel            string // that the role names
	floors             map[string]int64
	path               string
	counter            int64
	directorSays       string // hash of the target; empty: as the catalog
	directorRelease    map[string]any
	leaveOutOfCatalog  bool
	snapshotDevice     string
	noHashes           bool
	directorTargetHash int            // number of hash algorithms
	targetsExpires     time.Time      // of the catalog's targets and role; zero: as its other files
	note               map[string]any // custom.lockbox of the director
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, rootA: newKey(), rootB: newKey(), targets: newKey(), role: newKey(), snap: newKey(), stamp: newKey(), director: newKey(), blobs: map[[32]byte][]byte{}}
	w.catalogRoot = w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.targets, metadata.SNAPSHOT: w.snap, metadata.TIMESTAMP: w.stamp}, 1, w.rootA, w.rootB)
	w.directorRoot = w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.director, metadata.SNAPSHOT: w.director, metadata.TIMESTAMP: w.director}, 1, w.rootA, w.rootB)
	w.o = offer{device: "meter-1", generation: 1, version: 1, directorExpires: now.Add(7 * 24 * time.Hour), directorKey: w.director,
		catalogVersion: 1, catalogExpires: now.Add(7 * 24 * time.Hour), roleKey: w.role, stampKey: w.stamp, channel: "production", path: "production/meter-digits/1.0.0", counter: 1}
	return w
}

func (w *world) root(roles map[string]ed25519.PrivateKey, version int64, signers ...ed25519.PrivateKey) []byte {
	r := metadata.Root(now.Add(365 * 24 * time.Hour))
	r.Signed.Version = version
	for _, k := range []ed25519.PrivateKey{w.rootA, w.rootB} {
		w.must(r.Signed.AddKey(tufKey(w.t, k), metadata.ROOT))
	}
	r.Signed.Roles[metadata.ROOT].Threshold = 2
	for role, k := range roles {
		w.must(r.Signed.AddKey(tufKey(w.t, k), role))
	}
	return sign(w.t, r, signers...)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func tufKey(t *testing.T, k ed25519.PrivateKey) *metadata.Key {
	t.Helper()
	key, err := metadata.KeyFromPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign[T metadata.Roles](t *testing.T, md *metadata.Metadata[T], keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	for _, k := range keys {
		s, err := signature.LoadED25519Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := md.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	b, err := md.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) meta(version int64, b []byte) *metadata.MetaFiles {
	m := metadata.MetaFile(version)
	if !w.o.noHashes {
		sum := sha256.Sum256(b)
		m.Length, m.Hashes = int64(len(b)), metadata.Hashes{"sha256": sum[:]}
	}
	return m
}

const manifest = "the manifest of a bundle"

func target(hash string, custom map[string]any) *metadata.TargetFiles {
	sum, _ := hex.DecodeString(hash)
	b, _ := json.Marshal(custom)
	raw := json.RawMessage(b)
	return &metadata.TargetFiles{Length: int64(len(manifest)), Hashes: metadata.Hashes{"sha256": sum}, Custom: &raw}
}

func hashOf(b string) string { sum := sha256.Sum256([]byte(b)); return hex.EncodeToString(sum[:]) }

// files are the newest of everything.
func (w *world) files() []File {
	o := &w.o
	release := map[string]any{"kind": "model", "model": "meter-digits", "version": "1.0.0", "counter": o.counter}
	catalog := w.catalogFiles(release)
	says := release
	if o.directorRelease != nil {
		says = o.directorRelease
	}
	hash := hashOf(manifest)
	if o.directorSays != "" {
		hash = o.directorSays
	}
	tg := metadata.Targets(o.directorExpires)
	tg.Signed.Version = o.version
	tg.Signed.UnrecognizedFields = w.names(o.device)
	tg.Signed.Targets[o.path] = target(hash, map[string]any{"release": says, "assign": map[string]any{"generation": o.generation, "attempt": 1}})
	if o.directorTargetHash > 1 {
		tg.Signed.Targets[o.path].Hashes["sha512"] = make([]byte, 64)
	}
	tb := sign(w.t, tg, o.directorKey)
	sn := metadata.Snapshot(o.directorExpires)
	sn.Signed.Version = o.version
	sn.Signed.UnrecognizedFields = w.names(o.device)
	if o.snapshotDevice != "" {
		sn.Signed.UnrecognizedFields = w.names(o.snapshotDevice)
	}
	sn.Signed.Meta["targets.json"] = w.meta(o.version, tb)
	sb := sign(w.t, sn, o.directorKey)
	ts := metadata.Timestamp(o.directorExpires)
	ts.Signed.Version = o.version
	ts.Signed.UnrecognizedFields = w.names(o.device)
	ts.Signed.Meta["snapshot.json"] = w.meta(o.version, sb)
	return append([]File{
		{Director, metadata.TIMESTAMP, o.version, sign(w.t, ts, o.directorKey)},
		{Director, metadata.SNAPSHOT, o.version, sb},
		{Director, metadata.TARGETS, o.version, tb},
	}, catalog...)
}

func (w *world) names(device string) map[string]any {
	custom := map[string]any{"device": device, "generation": w.o.generation, "issued": now.Unix()}
	if w.o.note != nil {
		custom["lockbox"] = w.o.note
	}
	return map[string]any{"custom": custom}
}

func (w *world) catalogFiles(release map[string]any) []File {
	o := &w.o
	long := o.catalogExpires
	if !o.targetsExpires.IsZero() {
		long = o.targetsExpires
	}
	top := metadata.Targets(long)
	top.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	key := tufKey(w.t, w.role)
	id, err := key.ID()
	w.must(err)
	top.Signed.Delegations.Keys[id] = key
	top.Signed.Delegations.Roles = []metadata.DelegatedRole{{Name: "production", KeyIDs: []string{id}, Threshold: 1, Terminating: true, Paths: []string{"production/*/*"}}}
	topB := sign(w.t, top, w.targets)
	role := metadata.Targets(long)
	role.Signed.Version = o.catalogVersion
	role.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": o.channel, "floors": o.floors}}
	if o.floors == nil {
		role.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": o.channel}}
	}
	if !o.leaveOutOfCatalog {
		role.Signed.Targets[o.path] = target(hashOf(manifest), map[string]any{"release": release})
	}
	roleB := sign(w.t, role, o.roleKey)
	sn := metadata.Snapshot(o.catalogExpires)
	sn.Signed.Version = o.catalogVersion
	sn.Signed.Meta = map[string]*metadata.MetaFiles{"targets.json": w.meta(1, topB), "production.json": w.meta(o.catalogVersion, roleB)}
	sb := sign(w.t, sn, w.snap)
	ts := metadata.Timestamp(o.catalogExpires)
	ts.Signed.Version = o.catalogVersion
	ts.Signed.Meta["snapshot.json"] = w.meta(o.catalogVersion, sb)
	return []File{
		{Catalog, metadata.TIMESTAMP, o.catalogVersion, sign(w.t, ts, o.stampKey)},
		{Catalog, metadata.SNAPSHOT, o.catalogVersion, sb},
		{Catalog, metadata.TARGETS, 1, topB},
		{Catalog, "production", o.catalogVersion, roleB},
	}
}

// Refresh implements Source: everything newer than held, as the server does.
func (w *world) Refresh(_ context.Context, held Held) ([]File, error) {
	w.held = append(w.held, held)
	var out []File
	for _, f := range append(w.files(), w.extra...) {
		if !newer(f, held) {
			continue
		}
		if w.alter != nil {
			w.alter(&f)
		}
		if f.Bytes != nil {
			out = append(out, f)
		}
	}
	return out, nil
}

func newer(f File, held Held) bool {
	v := held.Catalog
	if f.Repo == Director {
		v = held.Director
	}
	have := map[string]int64{metadata.ROOT: v.Root, metadata.TIMESTAMP: v.Timestamp, metadata.SNAPSHOT: v.Snapshot, metadata.TARGETS: v.Targets}[f.Role]
	if f.Role == "production" {
		have = held.Roles["production"]
	}
	return f.Version > have
}

var errCut = errors.New("the line was cut")

// Fetch implements Source in pieces of 1,000 bytes.
func (w *world) Fetch(_ context.Context, b Blob, missing []Range, to io.WriterAt) error {
	data, sent := w.blobs[b.Digest], 0
	for _, r := range missing {
		for at := r.Offset; at < r.Offset+r.Length; at += 1000 {
			piece := bytes.Clone(data[at:min(at+1000, r.Offset+r.Length)])
			if w.flip && at == 0 {
				piece[0] ^= 1
			}
			if w.cutAfter > 0 && sent >= w.cutAfter {
				return errCut
			}
			if _, err := to.WriteAt(piece, at); err != nil {
				return err
			}
			sent += len(piece)
			w.fetched += len(piece)
		}
	}
	return nil
}

// device is a client with its folder.
type device struct {
	w   *world
	dir string
	c   *Client
	now time.Time
}

func (w *world) device(id string) *device {
	w.t.Helper()
	d := &device{w: w, dir: w.t.TempDir(), now: now}
	w.must(Install(durable.OS{}, filepath.Join(d.dir, "trust"), [][]byte{w.catalogRoot}, [][]byte{w.directorRoot}))
	d.open(id)
	return d
}

func (d *device) open(id string) {
	d.w.t.Helper()
	var err error
	d.c, err = Open(Config{FS: durable.OS{}, Dir: filepath.Join(d.dir, "trust"), Blobs: filepath.Join(d.dir, "blobs"), Device: id, Channel: "production", Now: func() time.Time { return d.now }})
	d.w.must(err)
}

func (d *device) refresh() (Wish, error) { return d.c.Refresh(context.Background(), d.w) }
