package director_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// files are a device's stored director files by role.
func (r *rig) files(id string) map[string]fleet.MetaRow {
	r.t.Helper()
	rows, err := r.db.AllMetadata(r.t.Context(), director.Repo, id)
	must(r.t, err)
	out := map[string]fleet.MetaRow{}
	for _, m := range rows {
		out[m.Role] = m
	}
	return out
}

func customOf(t *testing.T, b []byte) (c director.Custom) {
	t.Helper()
	var x struct {
		Signed struct {
			Custom director.Custom `json:"custom"`
		} `json:"signed"`
	}
	must(t, json.Unmarshal(b, &x))
	return x.Signed.Custom
}

// TestEveryRoleNamesTheDevice looks at the three files of a wish: device and
// generation are in each, one version, one week, and the chain is signed.
func TestEveryRoleNamesTheDevice(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1", "meter-2")
	r.wish("meter-2", item("gauge", "1.0.0", 1), item("digits", "1.0.0", 3))
	if _, err := r.Newer(t.Context(), "meter-1", director.Held{}); err != nil { // never given any wish
		t.Fatal(err)
	}
	root, err := metadata.Root().FromBytes(r.ceremony.DirectorRoot)
	must(t, err)
	for id, generation := range map[string]int64{"meter-1": 0, "meter-2": 2} {
		fs := r.files(id)
		for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
			if c := customOf(t, fs[role].Bytes); c != (director.Custom{Device: id, Generation: generation, Issued: start.Unix()}) {
				t.Errorf("%s of %s says %+v", role, id, c)
			}
			if fs[role].Owner != id || fs[role].Version != max(1, generation) {
				t.Errorf("%s of %s: %+v", role, id, fs[role])
			}
		}
		ts, err := metadata.Timestamp().FromBytes(fs[metadata.TIMESTAMP].Bytes)
		must(t, err)
		snap, err := metadata.Snapshot().FromBytes(fs[metadata.SNAPSHOT].Bytes)
		must(t, err)
		tg, err := metadata.Targets().FromBytes(fs[metadata.TARGETS].Bytes)
		must(t, err)
		must(t, errors.Join(root.VerifyDelegate(metadata.TIMESTAMP, ts), root.VerifyDelegate(metadata.SNAPSHOT, snap), root.VerifyDelegate(metadata.TARGETS, tg),
			ts.Signed.Meta["snapshot.json"].VerifyLengthHashes(fs[metadata.SNAPSHOT].Bytes), snap.Signed.Meta["targets.json"].VerifyLengthHashes(fs[metadata.TARGETS].Bytes)))
		for _, expires := range []time.Time{ts.Signed.Expires, snap.Signed.Expires, tg.Signed.Expires} {
			if !expires.Equal(start.Add(director.Life)) {
				t.Errorf("%s: expires %v", id, expires)
			}
		}
	}
	if want := []string{"meter-2", "meter-2"}; !slices.Equal(r.told, want) {
		t.Errorf("told %v, want %v", r.told, want)
	}
}

// TestSeveralModels wishes two models of one device, which believes both: each with
// its own attempt, both with one runtime, which is assigned to nothing.
func TestSeveralModels(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	d := r.device("meter-1")
	if w := d.refreshed(); w.Generation != 0 || len(w.Targets) != 0 {
		t.Errorf("before any wish: %+v", w)
	}
	r.wish("meter-1", item("digits", "1.0.0", 1), item("gauge", "1.0.0", 4))
	w := d.refreshed()
	if w.Generation != 2 || len(w.Targets) != 3 {
		t.Fatalf("%+v", w)
	}
	for _, it := range []fleet.Item{item("digits", "1.0.0", 1), item("gauge", "1.0.0", 4)} {
		want := bundle.Custom{Release: r.bundles[it.Path].Release(1), Assign: &bundle.Assign{Generation: 2, Attempt: it.Attempt, Rollout: it.Rollout, Arm: it.Arm, Runtime: runtime}}
		if diff := cmp.Diff(want, assigns(t, w, it.Path)); diff != "" {
			t.Error(diff)
		}
	}
	if c := assigns(t, w, runtime); c.Assign != nil {
		t.Errorf("the runtime is assigned: %+v", c.Assign)
	}
	r.wish("meter-1", item("digits", "1.1.0", 1))
	if w = d.refreshed(); w.Generation != 3 || len(w.Targets) != 3 || assigns(t, w, "dev/digits/1.1.0").Release.Counter != 2 {
		t.Errorf("after a newer release: %+v", w)
	}
	must(t, r.commit("meter-1", "gauge", func(w *fleet.Wish) error { w.Remove("gauge"); return nil }))
	if w = d.refreshed(); w.Generation != 4 || len(w.Targets) != 2 {
		t.Errorf("without one of the models: %+v", w)
	}
	must(t, r.commit("meter-1", "digits", func(w *fleet.Wish) error { w.Remove("digits"); return nil }))
	if w = d.refreshed(); w.Generation != 5 || len(w.Targets) != 0 {
		t.Errorf("without any: %+v", w)
	}
}

// TestWishesAtOnce changes wishes of two models of one device at the same time:
// neither is lost.
func TestWishesAtOnce(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	r.Changed = nil
	r.wish("meter-1", item("digits", "1.0.0", 1), item("gauge", "1.0.0", 1)) // both rollouts are there
	const each = 10
	var g sync.WaitGroup
	errs := make(chan error, 2*each)
	for _, model := range []string{"digits", "gauge"} {
		g.Go(func() {
			for range each {
				errs <- r.commit("meter-1", model, func(w *fleet.Wish) error {
					it, _ := w.Item(model)
					it.Attempt++
					w.Put(it)
					return nil
				})
			}
		})
	}
	g.Wait()
	for range 2 * each {
		must(t, <-errs)
	}
	w := r.device("meter-1").refreshed()
	for _, model := range []string{"digits", "gauge"} {
		if a := assigns(t, w, bundle.TargetPath(channel, model, "1.0.0")).Assign; a.Attempt != 1+each || a.Generation != 2+2*each {
			t.Errorf("%s: %+v", model, a)
		}
	}
}

// TestGenerationOnlyGrows does what happens to a wish in any order: changes,
// changes that fail, renewals, refreshes. A change raises the generation by one,
// nothing else moves it, every version is new, and the device believes each.
func TestGenerationOnlyGrows(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	d := r.device("meter-1")
	const steps = 40
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range steps {
		before, err := r.db.Wish(t.Context(), "meter-1")
		must(t, err)
		files := r.files("meter-1")
		want, renewed := before.Generation, true
		switch []string{"put", "remove", "fail", "unknown", "nothing", "later"}[random.IntN(6)] {
		case "put":
			model := []string{"digits", "gauge"}[random.IntN(2)]
			r.wish("meter-1", item(model, "1.0.0", 1+random.Int64N(9)))
			want++
		case "remove":
			must(t, r.commit("meter-1", "digits", func(w *fleet.Wish) error { w.Remove("digits"); return nil }))
			want++
		case "fail":
			failed := errors.New("changed its mind")
			if err := r.commit("meter-1", "digits", func(w *fleet.Wish) error { w.Put(item("digits", "1.1.0", 99)); return failed }); !errors.Is(err, failed) {
				t.Fatal(err)
			}
			renewed = false
		case "unknown": // nothing may be wished that the catalog does not hold
			err := r.commit("meter-1", "digits", func(w *fleet.Wish) error { w.Put(item("digits", "9.9.9", 1)); return nil })
			if !errors.Is(err, fleet.ErrReleaseUnknown) {
				t.Fatal(err)
			}
			renewed = false
		case "later":
			r.now = r.now.Add(director.Life/2 + time.Second)
			must(t, r.catalog.Resign(t.Context())) // also the catalog's
		case "nothing":
			renewed = len(files) == 0
		}
		if !renewed {
			if diff := cmp.Diff(files, r.files("meter-1")); diff != "" {
				t.Fatal(diff)
			}
		}
		w, err := d.refresh()
		if err != nil {
			t.Fatal(err)
		}
		after, err := r.db.Wish(t.Context(), "meter-1")
		must(t, err)
		if after.Generation != want || w.Generation != want || after.Version < before.Version || renewed && after.Version == before.Version {
			t.Fatalf("generation %d, version %d of generation %d, version %d; believed: %d", after.Generation, after.Version, before.Generation, before.Version, w.Generation)
		}
	}
	w, err := r.db.Wish(t.Context(), "meter-1")
	must(t, err)
	t.Logf("%d acts: generation %d, version %d", steps, w.Generation, w.Version)
}

// TestRenewal asks twice a day for a month: what is handed out has more than
// half of its life left, is signed no oftener than needed, and never expires on a
// device that asks; one that was away gets fresh files.
func TestRenewal(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1", "meter-2")
	r.wish("meter-1", item("digits", "1.0.0", 1))
	r.wish("meter-2", item("digits", "1.0.0", 1))
	d, away := r.device("meter-1"), r.device("meter-2")
	away.refreshed()
	version, signed := int64(1), 0
	for r.now = start; r.now.Before(start.Add(30 * 24 * time.Hour)); r.now = r.now.Add(12 * time.Hour) {
		must(t, r.catalog.Resign(t.Context()))
		if w := d.refreshed(); w.Generation != 1 {
			t.Fatalf("generation %d", w.Generation)
		}
		ts, err := metadata.Timestamp().FromBytes(r.files("meter-1")[metadata.TIMESTAMP].Bytes)
		must(t, err)
		if left := ts.Signed.Expires.Sub(r.now); left <= director.Life/2 || left > director.Life {
			t.Fatalf("%v: %v are left", r.now, left)
		}
		if ts.Signed.Version != version {
			signed++
			version = ts.Signed.Version
		}
	}
	if signed != 8 { // every 3.5 days
		t.Errorf("signed %d times in 30 days", signed)
	}
	if w := away.refreshed(); w.Generation != 1 || !away.Evidence().Issued.Equal(r.now) {
		t.Errorf("after a month away: %+v, issued %v", w, away.Evidence().Issued)
	}
	t.Logf("signed %d times in 30 days", signed)
}

// TestWithheldFilesExpire hands a device what was signed a week ago, as a server
// would that hides newer wishes: it is refused, and what was believed stays.
func TestWithheldFilesExpire(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1))
	old := r.device("meter-1")
	must(t, errors.Join(first(old.refresh())))
	r.now = r.now.Add(director.Life + time.Second)
	fresh := r.device("meter-1")
	_, err := fresh.Client.Refresh(t.Context(), replay{old.last})
	var refusal *trust.Refusal
	if !errors.As(err, &refusal) || refusal.Code != trust.CodeFreeze {
		t.Errorf("%v, want %s", err, trust.CodeFreeze)
	}
	if w := fresh.Wish(); w.Generation != 0 {
		t.Errorf("believed: %+v", w)
	}
}

func first(_ trust.Wish, err error) error { return err }

// replay hands out the same files to everybody.
type replay struct{ files []trust.File }

// TestOnlyItsOwn wants no device to get another's files, whatever their names have
// in common, and one that is given them all the same not to believe them.
func TestOnlyItsOwn(t *testing.T) {
	r := newRig(t)
	names := []string{"meter", "meter-1", "meter-10", "meter-11", "1", "-", "targets", "catalog"}
	r.enrol(names...)
	for _, name := range names {
		r.wish(name, item("digits", "1.0.0", 1))
	}
	for _, name := range names {
		d := r.device(name)
		d.refreshed()
		n := 0
		for _, f := range d.last {
			if f.Repo == director.Repo && f.Role != metadata.ROOT {
				if n++; customOf(t, f.Bytes).Device != name {
					t.Errorf("%s got %s of %s", name, f.Role, customOf(t, f.Bytes).Device)
				}
			}
			for _, other := range names {
				if other != name && bytes.Contains(f.Bytes, []byte(`"device":"`+other+`"`)) {
					t.Errorf("%s: %s names %s", name, f.Role, other)
				}
			}
		}
		if n != 3 {
			t.Errorf("%s got %d files of its own", name, n)
		}
	}
	for _, strange := range []string{"", "%", "meter-%", "METER-1", "meter-1 ", "nobody", "*"} {
		rows, err := r.Newer(t.Context(), strange, director.Held{})
		for _, m := range rows {
			if m.Role != metadata.ROOT {
				t.Errorf("%q got %s of %q", strange, m.Role, m.Owner)
			}
		}
		if err == nil {
			t.Errorf("%q is served", strange)
		}
	}
	d := r.device("meter-1")
	d.asks = "meter-10"
	var refusal *trust.Refusal
	if _, err := d.refresh(); !errors.As(err, &refusal) || refusal.Code != trust.CodeWrongDevice {
		t.Errorf("another's files: %v, want %s", err, trust.CodeWrongDevice)
	}
	if d.Wish().Generation != 0 {
		t.Error("believed")
	}
}

// TestNewer hands out what is not held, and never makes a wish for asking.
func TestNewer(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1), item("digits", "1.0.0", 2), item("digits", "1.0.0", 3))
	for name, c := range map[string]struct {
		held director.Held
		want string
	}{
		"a new device":       {director.Held{}, "root1 timestamp3 snapshot3 targets3"},
		"an enrolled one":    {director.Held{Root: 1}, "timestamp3 snapshot3 targets3"},
		"one that is behind": {director.Held{Root: 1, Timestamp: 2, Snapshot: 2, Targets: 2}, "timestamp3 snapshot3 targets3"},
		"half a refresh":     {director.Held{Root: 1, Timestamp: 3, Snapshot: 3, Targets: 2}, "targets3"},
		"all":                {director.Held{Root: 1, Timestamp: 3, Snapshot: 3, Targets: 3}, ""},
		"nonsense":           {director.Held{Root: -5, Timestamp: -1, Snapshot: -1, Targets: -1}, "root1 timestamp3 snapshot3 targets3"},
	} {
		rows, err := r.Newer(t.Context(), "meter-1", c.held)
		must(t, err)
		var got []string
		for _, m := range rows {
			got = append(got, fmt.Sprint(m.Role, m.Version))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

// TestMayRead lets a device read the blobs of what it is to run, and only while it
// is to run it.
func TestMayRead(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-1", "meter-2")
	r.wish("meter-1", item("digits", "1.0.0", 1))
	may := func(id, path string) (n, all int) {
		for digest := range r.bundles[path].Blobs {
			ok, err := r.MayRead(t.Context(), id, digest)
			must(t, err)
			if all++; ok {
				n++
			}
		}
		return n, all
	}
	for _, path := range []string{"dev/digits/1.0.0", runtime} {
		if n, all := may("meter-1", path); n != all {
			t.Errorf("%s: %d of %d blobs", path, n, all)
		}
		if n, _ := may("meter-2", path); n != 0 {
			t.Errorf("%s: %d blobs for another device", path, n)
		}
	}
	if n, all := may("meter-1", "dev/gauge/1.0.0"); n == all {
		t.Error("a release that is not assigned can be read")
	}
	must(t, r.commit("meter-1", "digits", func(w *fleet.Wish) error { w.Remove("digits"); return nil }))
	if n, _ := may("meter-1", "dev/digits/1.0.0"); n != 0 {
		t.Errorf("%d blobs of a release that is not wished any more", n)
	}
}

// TestRuntime pairs a release with the newest runtime of its channel that fits.
func TestRuntime(t *testing.T) {
	r := newRig(t)
	rel, err := r.db.ReleaseByPath(t.Context(), "dev/digits/1.0.0")
	must(t, err)
	for name, c := range map[string]struct {
		arch, need, min, want string
	}{
		"fits":           {"arm64", "litert", "2.1.6", runtime},
		"just fits":      {"arm64", "litert", "2.3.0", runtime},
		"too old":        {"arm64", "litert", "2.3.1", ""},
		"another kind":   {"arm64", "onnx", "1.0.0", ""},
		"another arch":   {"amd64", "litert", "2.1.6", ""},
		"arch not known": {"", "litert", "2.1.6", ""},
	} {
		x := *rel
		x.Needs = &bundle.RuntimeNeed{Name: c.need, Min: c.min}
		got, err := r.Runtime(t.Context(), &fleet.Device{ID: "meter-1", Facts: map[string]string{"arch": c.arch}}, &x)
		if got != c.want || (c.want == "") != errors.Is(err, director.ErrNoRuntime) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
