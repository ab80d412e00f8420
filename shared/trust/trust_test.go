package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

func TestWishIsBelievedAndKept(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	got, err := d.refresh()
	if err != nil {
		t.Fatal(err)
	}
	if got.Generation != 1 || len(got.Targets) != 1 || got.Targets[0].Path != "production/meter-digits/1.0.0" || got.Targets[0].Digest != "sha256:"+hashOf(manifest) {
		t.Fatalf("wish %+v", got)
	}
	d.open("meter-1")
	if diff := cmp.Diff(got, d.c.Wish()); diff != "" {
		t.Fatalf("after a restart: %s", diff)
	}
	if again, err := d.refresh(); err != nil || !cmp.Equal(again, got) {
		t.Fatalf("a refresh with nothing new: %v", err)
	}
	if h := w.held[len(w.held)-1]; h.Director.Targets != 1 || h.Roles["production"] != 1 {
		t.Fatalf("held %+v", h)
	}
	d.now = now.Add(365 * 24 * time.Hour)
	d.open("meter-1")
	if len(d.c.Wish().Targets) != 1 {
		t.Fatal("an expired wish is forgotten: what is installed must go on serving")
	}
}

// step takes the device to what it knows before the attack, then makes the attack.
func TestAttacks(t *testing.T) {
	t.Parallel()
	far := map[string]any{"kind": "model", "model": "meter-digits", "version": "9.9.9", "counter": 1}
	rewrite := func(repo, role string, f func([]byte) []byte) func(*world) {
		return func(w *world) {
			w.o.version, w.o.catalogVersion, w.o.generation = 2, 2, 2
			w.alter = func(x *File) {
				if x.Repo == repo && x.Role == role {
					x.Bytes = f(x.Bytes)
				}
			}
		}
	}
	drop := func([]byte) []byte { return nil }
	for _, c := range []struct {
		name   string
		attack func(*world)
		code   string
	}{
		{"stolen server: director signs with another key", func(w *world) { w.o.version, w.o.directorKey = 2, newKey() }, CodeSignature},
		{"stolen server: a model that no publisher signed", func(w *world) { w.o.version, w.o.catalogVersion, w.o.leaveOutOfCatalog = 2, 2, true }, CodeDisagree},
		{"stolen server: other bytes under a published name", func(w *world) { w.o.version, w.o.directorSays = 2, hashOf("evil") }, CodeDisagree},
		{"stolen server: another release's custom", func(w *world) { w.o.version, w.o.directorRelease = 2, far }, CodeDisagree},
		{"stolen server: signs the channel's role", func(w *world) { w.o.catalogVersion, w.o.roleKey = 2, w.snap }, CodeSignature},
		{"catalog timestamp by another key", func(w *world) { w.o.catalogVersion, w.o.stampKey = 2, newKey() }, CodeSignature},
		{"another device's files", func(w *world) { w.o.version, w.o.device = 2, "meter-2" }, CodeWrongDevice},
		{"another device's snapshot", func(w *world) { w.o.version, w.o.snapshotDevice = 2, "meter-2" }, CodeWrongDevice},
		{"another channel's target", func(w *world) { w.o.version, w.o.catalogVersion, w.o.path = 2, 2, "dev/meter-digits/1.0.0" }, CodeWrongChannel},
		{"a role that names another channel", func(w *world) { w.o.catalogVersion, w.o.channel = 2, "dev" }, CodeWrongChannel},
		{"generation goes back", func(w *world) { w.o.version, w.o.generation = 2, 0 }, CodeRollback},
		{"freeze: director expired", func(w *world) { w.o.version, w.o.directorExpires = 2, now.Add(-time.Hour) }, CodeFreeze},
		{"freeze: catalog expired", func(w *world) { w.o.catalogVersion, w.o.catalogExpires = 2, now.Add(-time.Hour) }, CodeFreeze},
		{"mix and match: new timestamp, no snapshot", rewrite(Director, metadata.SNAPSHOT, drop), CodeMixAndMatch},
		{"mix and match: new snapshot, no targets", rewrite(Director, metadata.TARGETS, drop), CodeMixAndMatch},
		{"mix and match: the role is missing", rewrite(Catalog, "production", drop), CodeMixAndMatch},
		{"altered targets", rewrite(Director, metadata.TARGETS, func(b []byte) []byte { return bytes.Replace(b, []byte("meter-1"), []byte("meter-3"), 1) }), CodeMixAndMatch},
		{"truncated timestamp", rewrite(Director, metadata.TIMESTAMP, func(b []byte) []byte { return b[:len(b)/2] }), CodeMalformed},
		{"null map", rewrite(Director, metadata.TIMESTAMP, func([]byte) []byte { return []byte(`{"signed":{"_type":"timestamp","meta":null},"signatures":[]}`) }), CodeMalformed},
		{"duplicate key", rewrite(Director, metadata.TIMESTAMP, func(b []byte) []byte { return bytes.Replace(b, []byte(`{`), []byte(`{"signatures":[],`), 1) }), CodeMalformed},
		{"key of another case", rewrite(Director, metadata.TIMESTAMP, func(b []byte) []byte { return bytes.Replace(b, []byte(`"version"`), []byte(`"VERSION"`), 1) }), CodeMalformed},
		{"endless timestamp", rewrite(Director, metadata.TIMESTAMP, func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxTimestamp)...) }), CodeTooLarge},
		{"no length and hash", func(w *world) { w.o.version, w.o.noHashes = 2, true }, CodeMalformed},
		{"two hashes of a target", func(w *world) { w.o.version, w.o.directorTargetHash = 2, 2 }, CodeMalformed},
		{"deep nesting", rewrite(Director, metadata.TIMESTAMP, func([]byte) []byte { return bytes.Repeat([]byte("["), 5000) }), CodeMalformed},
		{"a root that nobody signed", func(w *world) {
			w.extra = []File{{Catalog, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: newKey(), metadata.SNAPSHOT: w.snap, metadata.TIMESTAMP: w.stamp}, 2, newKey())}}
		}, CodeSignature},
		{"a root by one of two", func(w *world) {
			w.extra = []File{{Catalog, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.targets, metadata.SNAPSHOT: w.snap, metadata.TIMESTAMP: w.stamp}, 2, w.rootA)}}
		}, CodeSignature},
		{"a root that skips a version", func(w *world) {
			w.extra = []File{{Catalog, metadata.ROOT, 3, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.targets, metadata.SNAPSHOT: w.snap, metadata.TIMESTAMP: w.stamp}, 3, w.rootA, w.rootB)}}
		}, CodeRootGap},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.device("meter-1")
			before, err := d.refresh()
			if err != nil {
				t.Fatal(err)
			}
			disk := snapshot(t, d.dir)
			good := w.o
			c.attack(w)
			_, err = d.refresh()
			var r *Refusal
			if !errors.As(err, &r) || r.Code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if !cmp.Equal(before, d.c.Wish()) {
				t.Error("the wish changed")
			}
			if diff := cmp.Diff(disk, snapshot(t, d.dir)); diff != "" {
				t.Errorf("the disk changed: %s", diff)
			}
			// The client can still update.
			w.o, w.alter, w.extra = good, nil, nil
			w.o.version, w.o.catalogVersion, w.o.generation = 9, 9, 9
			if got, err := d.refresh(); err != nil || got.Generation != 9 {
				t.Errorf("an honest refresh afterwards: %v", err)
			}
		})
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOlderVersionsAreRefused(t *testing.T) {
	for name, older := range map[string]func(*offer){
		"director": func(o *offer) { o.version = 3 },
		"catalog":  func(o *offer) { o.catalogVersion = 3 },
	} {
		w := newWorld(t)
		d := w.device("meter-1")
		w.o.version, w.o.catalogVersion = 5, 5
		if _, err := d.refresh(); err != nil {
			t.Fatal(err)
		}
		older(&w.o)
		// The thief's source does not care what is held.
		src := &deaf{w}
		_, err := d.c.Refresh(context.Background(), src)
		var r *Refusal
		if !errors.As(err, &r) || r.Code != CodeRollback {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// deaf sends everything, whatever is held.
type deaf struct{ *world }

func (d *deaf) Refresh(context.Context, Held) ([]File, error) { return d.files(), nil }

// TestDamageNeverLowersAnything damages every stored file in every way and then
// offers older metadata, then newer.
func TestDamageNeverLowersAnything(t *testing.T) {
	t.Parallel()
	damages := map[string]func(string) error{
		"missing":   os.Remove,
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"cut":       func(p string) error { return os.Truncate(p, 40) },
		"garbage":   func(p string) error { return os.WriteFile(p, []byte("not what it was"), 0o600) },
		"null":      func(p string) error { return os.WriteFile(p, []byte("null"), 0o600) },
		"too long":  func(p string) error { return os.Truncate(p, 8<<20) },
		"empty map": func(p string) error { return os.WriteFile(p, []byte("{}"), 0o600) },
	}
	n, whole := 0, fresh(t)
	for kind, damage := range damages {
		dir := filepath.Join(whole.dir, "trust")
		files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		for _, name := range seenFiles {
			files = append(files, filepath.Join(dir, name))
		}
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			name, _ := filepath.Rel(dir, f)
			if filepath.Base(f) == rootName(1) {
				continue // the anchor: without it there is nothing to trust
			}
			n++
			d := whole.copy()
			if err := damage(filepath.Join(d.dir, "trust", name)); err != nil {
				t.Fatal(err)
			}
			d.open("meter-1")
			w := d.w
			w.o.version, w.o.catalogVersion, w.o.generation = 3, 3, 3
			if got, err := d.c.Refresh(context.Background(), &deaf{w}); err == nil {
				t.Errorf("%s %s: older metadata was believed: %+v", name, kind, got)
			}
			w.o.version, w.o.catalogVersion, w.o.generation, w.o.floors = 7, 7, 7, nil
			if got, err := d.refresh(); err != nil {
				t.Errorf("%s %s: the device cannot update any more: %v", name, kind, err)
			} else if !got.Targets[0].BelowFloor {
				t.Errorf("%s %s: the floor was forgotten", name, kind)
			}
		}
	}
	t.Logf("%d damaged files", n)
}

// fresh is a device that has seen version 5 of everything and a floor.
func fresh(t *testing.T) *device {
	t.Helper()
	w := newWorld(t)
	w.o.version, w.o.catalogVersion, w.o.generation, w.o.floors = 5, 5, 5, map[string]int64{"meter-digits": 4}
	d := w.device("meter-1")
	if _, err := d.refresh(); err != nil {
		t.Fatal(err)
	}
	return d
}

// copy is another device with the same disk and a world of its own.
func (d *device) copy() *device {
	d.w.t.Helper()
	w := *d.w
	other := &device{w: &w, dir: d.w.t.TempDir(), now: d.now}
	w.must(os.CopyFS(other.dir, os.DirFS(d.dir)))
	return other
}

func TestFloorsHold(t *testing.T) {
	d := fresh(t)
	if !d.c.Wish().Targets[0].BelowFloor {
		t.Fatal("counter 1 under a floor of 4 is not marked")
	}
	// A thief of the channel's key lowers the floor: the greatest seen holds.
	d.w.o.catalogVersion, d.w.o.floors = 6, map[string]int64{"meter-digits": 0}
	got, err := d.refresh()
	if err != nil || !got.Targets[0].BelowFloor {
		t.Fatalf("a lowered floor: %v, %+v", err, got)
	}
	d.w.o.version, d.w.o.catalogVersion, d.w.o.counter = 7, 7, 4
	if got, err = d.refresh(); err != nil || got.Targets[0].BelowFloor {
		t.Fatalf("a release at the floor: %v, %+v", err, got)
	}
}

// TestRecoveryFromAThiefWhoSignedFarAhead replaces the director's keys by a root.
func TestRecoveryFromAThiefWhoSignedFarAhead(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	w.o.version = 1_000_000
	if _, err := d.refresh(); err != nil {
		t.Fatal(err)
	}
	w.director = newKey()
	w.extra = []File{{Director, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.director, metadata.SNAPSHOT: w.director, metadata.TIMESTAMP: w.director}, 2, w.rootA, w.rootB)}}
	w.o.version, w.o.generation, w.o.directorKey = 2, 2, w.director
	if got, err := d.c.Refresh(context.Background(), &both{w}); err != nil || got.Generation != 2 {
		t.Fatalf("after the keys were replaced: %v", err)
	}
	d.open("meter-1")
	w.o.version = 3
	if _, err := d.refresh(); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
}

// both sends roots and everything else, whatever is held.
type both struct{ *world }

func (b *both) Refresh(context.Context, Held) ([]File, error) {
	return append(b.files(), b.extra...), nil
}

// TestWithheldMetadataIsAFreeze lets everything that is held expire while the
// source brings nothing new.
func TestWithheldMetadataIsAFreeze(t *testing.T) {
	for _, c := range []struct {
		name   string
		extend func(*offer) // what is still signed anew
	}{
		{"nothing is signed anew", func(*offer) {}},
		{"only the catalog", func(o *offer) { o.catalogVersion, o.catalogExpires = 2, now.Add(60*24*time.Hour) }},
		{"only the director", func(o *offer) { o.version, o.directorExpires = 2, now.Add(60*24*time.Hour) }},
	} {
		w := newWorld(t)
		d := w.device("meter-1")
		if _, err := d.refresh(); err != nil {
			t.Fatal(err)
		}
		c.extend(&w.o)
		d.now = now.Add(30 * 24 * time.Hour)
		_, err := d.refresh()
		var r *Refusal
		if !errors.As(err, &r) || r.Code != CodeFreeze {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(d.c.Wish().Targets) != 1 {
			t.Errorf("%s: the wish is forgotten", c.name)
		}
	}
}

func TestDownload(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	sum := sha256.Sum256(data)
	w.blobs[sum] = data
	digest, ctx := "sha256:"+hex.EncodeToString(sum[:]), context.Background()
	w.cutAfter = 2_500_000
	if _, err := d.c.Download(ctx, w, digest, int64(len(data))); !errors.Is(err, errCut) {
		t.Fatalf("a cut: %v", err)
	}
	d.open("meter-1") // a restart in between
	w.cutAfter = 0
	p, err := d.c.Download(ctx, w, digest, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if again := w.fetched - len(data); again > len(data)/50 {
		t.Errorf("%d of %d bytes were fetched twice", again, len(data))
	}
	if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, data) {
		t.Fatal("the blob is not what was sent", err)
	}
	before := w.fetched
	if _, err := d.c.Download(ctx, w, digest, int64(len(data))); err != nil || w.fetched != before {
		t.Errorf("a blob that is here was fetched again: %v", err)
	}
	if err := d.c.Forget(digest); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.c.Have(digest); ok {
		t.Error("forgotten, and still here")
	}
}

func TestAlteredBlobIsThrownAway(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	data := bytes.Repeat([]byte("x"), 5000)
	sum := sha256.Sum256(data)
	w.blobs[sum], w.flip = data, true
	digest := "sha256:" + hex.EncodeToString(sum[:])
	var r *Refusal
	if _, err := d.c.Download(context.Background(), w, digest, int64(len(data))); !errors.As(err, &r) || r.Code != CodeBlob {
		t.Fatalf("altered: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.dir, "blobs", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	w.flip = false
	if _, err := d.c.Download(context.Background(), w, digest, int64(len(data))); err != nil {
		t.Errorf("an honest try afterwards: %v", err)
	}
	for _, bad := range []string{"", "sha256:../../etc/passwd", "md5:00", "sha256:ABC"} {
		if _, err := d.c.Download(context.Background(), w, bad, 10); !errors.As(err, &r) {
			t.Errorf("digest %q: %v", bad, err)
		}
	}
	if _, err := d.c.Download(context.Background(), w, digest, MaxBlob+1); !errors.As(err, &r) || r.Code != CodeTooLarge {
		t.Errorf("endless blob: %v", err)
	}
}

func FuzzRefresh(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"timestamp","meta":null},"signatures":[]}`), uint8(0))
	f.Add([]byte(`{"signed":{"_type":"targets","targets":{"a":{}}},"signatures":[]}`), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		w := newWorld(t)
		d := w.device("meter-1")
		n := 0
		w.alter = func(x *File) {
			if n == int(which)%7 {
				x.Bytes = b
			}
			n++
		}
		if _, err := d.refresh(); err == nil {
			t.Fatal("foreign bytes were believed")
		}
	})
}

func FuzzStrict(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"c"}]}`))
	f.Add(bytes.Repeat([]byte("["), 100))
	f.Fuzz(func(_ *testing.T, b []byte) { Strict(b) })
}
