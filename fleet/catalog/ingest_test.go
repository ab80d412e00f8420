package catalog_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

type targets = metadata.Metadata[metadata.TargetsType]

// TestIngest publishes two releases in one act and a third in the next; snapshot
// and timestamp follow and name exactly what is stored.
func TestIngest(t *testing.T) {
	r := installed(t)
	a, b := r.runtime("2.3.0"), r.runtime("2.4.0")
	md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{a: 1, b: 2})
	md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": "dev", "floors": map[string]any{a.Contract.Model: 1}}}
	if rs := r.publish("dev", md); len(rs) != 2 || rs[0].Path() != a.Path("dev") || rs[1].Path() != b.Path("dev") {
		t.Errorf("%+v", rs)
	}
	c := r.runtime("2.5.0")
	r.publish("dev", r.pub.Next("dev", map[*catalogtest.Bundle]int64{c: 3}))
	r.publish("production", r.pub.Next("production", map[*catalogtest.Bundle]int64{c: 1}))
	r.isWhole(map[string]int64{"dev": 3, "staging": 1, "production": 2, "targets": 1}, 4)
	rel, err := r.db.ReleaseByPath(t.Context(), b.Path("dev"))
	must(t, err)
	if rel.Digest != b.Digest || rel.Counter != 2 || len(rel.Blobs) != len(b.Blobs) || rel.Length != int64(len(b.Raw)) {
		t.Errorf("%+v", rel)
	}
	if s := r.stored(); s.Audit[0].Act != "catalog.publish" || r.changes != 4 {
		t.Errorf("told %d times, audit %+v", r.changes, s.Audit[0])
	}
}

// isWhole verifies the catalog from its root down, as somebody would who has
// nothing else.
func (r *rig) isWhole(versions map[string]int64, online int64) {
	r.t.Helper()
	rows, err := r.Metadata(r.t.Context())
	must(r.t, err)
	byRole := map[string][]byte{}
	for _, m := range rows {
		byRole[m.Role] = m.Bytes
	}
	root, err := metadata.Root().FromBytes(byRole["root"])
	must(r.t, err)
	ts, err := metadata.Timestamp().FromBytes(byRole["timestamp"])
	must(r.t, err)
	snap, err := metadata.Snapshot().FromBytes(byRole["snapshot"])
	must(r.t, err)
	top, err := metadata.Targets().FromBytes(byRole["targets"])
	must(r.t, err)
	must(r.t, errors.Join(root.VerifyDelegate("timestamp", ts), root.VerifyDelegate("snapshot", snap), root.VerifyDelegate("targets", top)))
	if ts.Signed.Version != online || snap.Signed.Version != online || len(snap.Signed.Meta) != len(versions) {
		r.t.Errorf("timestamp %d, snapshot %d of %d roles", ts.Signed.Version, snap.Signed.Version, len(snap.Signed.Meta))
	}
	must(r.t, ts.Signed.Meta["snapshot.json"].VerifyLengthHashes(byRole["snapshot"]))
	for role, version := range versions {
		m := snap.Signed.Meta[role+".json"]
		if m == nil || m.Version != version || m.Length == 0 || len(m.Hashes) != 1 {
			r.t.Fatalf("%s: %+v, want version %d", role, m, version)
		}
		must(r.t, m.VerifyLengthHashes(byRole[role]))
	}
}

// edit changes the text of signed metadata, as a publisher with the keys could:
// the signatures are made over what go-tuf understands of it.
func edit(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s is not in %s", old, b)
	}
	return bytes.Replace(b, []byte(old), []byte(new), 1)
}

// TestIngestRefuses bends one thing of a good upload after the other: each is
// refused with a code, and nothing changes.
func TestIngestRefuses(t *testing.T) {
	refused, stale := fleet.ErrCatalogRefused, fleet.ErrCatalogStale
	// next is the good upload; the bundle is not published before.
	next := func(r *rig) *targets {
		return r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.9.0"): 2})
	}
	set := func(f func(*rig, *targets)) func(*rig) []byte {
		return func(r *rig) []byte { md := next(r); f(r, md); return r.pub.SignRole(md) }
	}
	text := func(old, new string) func(*rig) []byte {
		return func(r *rig) []byte { return edit(r.t, r.pub.SignRole(next(r)), old, new) }
	}
	custom := func(f func(*bundle.Release)) func(*rig) []byte {
		return set(func(r *rig, md *targets) {
			b := r.runtime("2.9.0")
			rel := b.Release(2)
			f(&rel)
			md.Signed.Targets[b.Path("dev")].Custom = rawOf(r.t, bundle.Custom{Release: rel})
		})
	}
	r := installed(t)
	md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1})
	md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": "dev", "floors": map[string]any{"runtime-litert-arm64": 1}}}
	r.publish("dev", md)
	for name, c := range map[string]struct {
		want   *fleet.Error
		upload func(*rig) []byte
	}{
		"version goes back":    {stale, set(func(_ *rig, md *targets) { md.Signed.Version = 1 })},
		"version stays":        {stale, set(func(_ *rig, md *targets) { md.Signed.Version = 2 })},
		"version leaps":        {stale, set(func(_ *rig, md *targets) { md.Signed.Version = 4 })},
		"one holder":           {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, next(r), r.pub.Release[0]) }},
		"one holder twice":     {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, next(r), r.pub.Release[0], r.pub.Release[0]) }},
		"root keys":            {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, next(r), r.pub.Root...) }},
		"the server's own key": {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, next(r), r.pub.Online.Snapshot) }},
		"nobody":               {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, next(r)) }},
		"expired":              {refused, set(func(_ *rig, md *targets) { md.Signed.Expires = start.Add(-time.Second) })},
		"delegates":            {refused, set(func(r *rig, md *targets) { md.Signed.Delegations = r.pub.Delegations().Signed.Delegations })},
		"another channel's role": {refused, func(r *rig) []byte {
			md := r.pub.Next("staging", nil)
			md.Signed.Version = 3
			return r.pub.SignRole(md)
		}},
		"another channel's next": {refused, set(func(r *rig, md *targets) {
			md.Signed.UnrecognizedFields = r.pub.Role("staging").Signed.UnrecognizedFields
		})},
		"no channel":             {refused, set(func(_ *rig, md *targets) { md.Signed.UnrecognizedFields = nil })},
		"another channel's path": {refused, set(func(r *rig, md *targets) { move(md, r.runtime("2.9.0"), "staging") })},
		"a floor falls": {refused, set(func(_ *rig, md *targets) {
			md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": "dev"}}
		})},
		"a floor that the next release cannot reach": {refused, set(func(r *rig, md *targets) {
			md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": "dev", "floors": map[string]any{"runtime-litert-arm64": 4}}}
		})},
		"a floor of a model without a release": {refused, set(func(r *rig, md *targets) {
			md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": "dev", "floors": map[string]any{"runtime-litert-arm64": 1, "other": 2}}}
		})},
		"a counter that takes all numbers": {refused, set(func(r *rig, md *targets) {
			b := r.runtime("2.9.0")
			md.Signed.Targets[b.Path("dev")] = b.Target(r.t, 1<<52)
		})},
		"the top-level targets": {refused, func(r *rig) []byte { md := r.pub.Delegations(); md.Signed.Version = 3; return r.pub.SignRole(md) }},
		"a root":                {refused, func(r *rig) []byte { return catalogtest.Sign(r.t, r.pub.CatalogRoot(), r.pub.Release...) }},
		"a release goes":        {fleet.ErrReleaseExists, set(func(r *rig, md *targets) { delete(md.Signed.Targets, r.runtime("2.3.0").Path("dev")) })},
		"a release changes": {fleet.ErrReleaseExists, set(func(r *rig, md *targets) {
			md.Signed.Targets[r.runtime("2.3.0").Path("dev")] = r.runtime("2.9.0").Target(r.t, 1)
		})},
		"counter stays": {refused, set(func(r *rig, md *targets) {
			b := r.runtime("2.9.0")
			md.Signed.Targets[b.Path("dev")] = b.Target(r.t, 1)
		})},
		"counter twice in one": {refused, set(func(r *rig, md *targets) {
			b := r.runtime("2.9.1")
			md.Signed.Targets[b.Path("dev")] = b.Target(r.t, 2)
		})},
		"counter of nothing": {refused, set(func(r *rig, md *targets) {
			b := r.runtime("2.9.0")
			md.Signed.Targets[b.Path("dev")] = b.Target(r.t, 0)
		})},
		"no custom":               {refused, set(func(r *rig, md *targets) { md.Signed.Targets[r.runtime("2.9.0").Path("dev")].Custom = nil })},
		"size of another bundle":  {refused, custom(func(x *bundle.Release) { x.Size++ })},
		"hardware of another":     {refused, custom(func(x *bundle.Release) { x.Hardware = "" })},
		"ABI of another":          {refused, custom(func(x *bundle.Release) { x.ABI.Arch = "amd64" })},
		"assigned by a publisher": {refused, set(func(r *rig, md *targets) { assign(r, md) })},
		"length of another":       {fleet.ErrBundleRefused, set(func(r *rig, md *targets) { md.Signed.Targets[r.runtime("2.9.0").Path("dev")].Length-- })},
		"no length":               {refused, set(func(r *rig, md *targets) { md.Signed.Targets[r.runtime("2.9.0").Path("dev")].Length = 0 })},
		"a second hash": {refused, set(func(r *rig, md *targets) {
			md.Signed.Targets[r.runtime("2.9.0").Path("dev")].Hashes["sha512"] = []byte{1}
		})},
		"blobs that are not here": {fleet.ErrBundleIncomplete, set(func(r *rig, md *targets) {
			b := catalogtest.Runtime(r.t, "arm64", "3.0.0", []byte("far"))
			md.Signed.Targets[b.Path("dev")] = b.Target(r.t, 3)
		})},
		"no bundle":        {fleet.ErrBundleRefused, set(notABundle)},
		"key twice":        {refused, text(`"version":3`, `"version":3,"version":3`)},
		"signatures twice": {refused, text(`"signatures":[`, `"signatures":[],"signatures":[`)},
		"null targets": {refused, func(r *rig) []byte {
			return edit(r.t, r.pub.SignRole(r.pub.Role("dev")), `"targets":{}`, `"targets":null`)
		}},
		"null custom":                {refused, text(`"custom":{"channel":"dev"`, `"custom":null,"x":{"channel":"dev"`)},
		"null signature":             {refused, text(`"signatures":[`, `"signatures":[null,`)},
		"wrong case":                 {refused, set(func(_ *rig, md *targets) { md.Signed.UnrecognizedFields["Version"] = 3 })},
		"wrong case below":           {refused, set(func(_ *rig, md *targets) { md.Signed.UnrecognizedFields["note"] = []any{map[string]any{"SHA256": "x"}} })},
		"deeper than devices go":     {refused, set(func(_ *rig, md *targets) { md.Signed.UnrecognizedFields["note"] = nested(24) })},
		"more behind the value":      {refused, func(r *rig) []byte { return append(r.pub.SignRole(next(r)), "{}"...) }},
		"endless nesting":            {refused, func(*rig) []byte { return bytes.Repeat([]byte("["), 1<<20) }},
		"longer than is read":        {refused, func(*rig) []byte { return make([]byte, catalog.MaxTargets+1) }},
		"no JSON":                    {refused, func(*rig) []byte { return []byte("hello") }},
		"nothing":                    {refused, func(*rig) []byte { return nil }},
		"an empty object":            {refused, func(*rig) []byte { return []byte("{}") }},
		"a signature that is no hex": {refused, text(`"sig":"`, `"sig":"zz`)},
	} {
		t.Run(name, func(t *testing.T) {
			r.refuses(c.want, func() error { _, err := r.Ingest(t.Context(), "dev", c.upload(r), "eve"); return err })
		})
	}
	r.publish("dev", next(r))
}

func move(md *targets, b *catalogtest.Bundle, channel string) {
	md.Signed.Targets[b.Path(channel)] = md.Signed.Targets[b.Path("dev")]
	delete(md.Signed.Targets, b.Path("dev"))
}

func assign(r *rig, md *targets) {
	b := r.runtime("2.9.0")
	md.Signed.Targets[b.Path("dev")].Custom = rawOf(r.t, bundle.Custom{Release: b.Release(2), Assign: &bundle.Assign{Generation: 1}})
}

// notABundle signs the digest of a blob that is no manifest.
func notABundle(r *rig, md *targets) {
	b := r.runtime("2.9.0")
	t := md.Signed.Targets[b.Path("dev")]
	sum := sha256.Sum256(b.RawContract)
	t.Hashes = metadata.Hashes{"sha256": sum[:]}
	t.Length = int64(len(b.RawContract))
}

func nested(depth int) any {
	v := any("x")
	for range depth {
		v = []any{v}
	}
	return v
}

// TestChannels wants uploads for what is no channel refused, whoever signed.
func TestChannels(t *testing.T) {
	r := installed(t)
	for _, ch := range []string{"", "targets", "root", "snapshot", "timestamp", "test", "dev/x", "../dev"} {
		r.refuses(fleet.ErrCatalogRefused, func() error {
			_, err := r.Ingest(t.Context(), ch, r.pub.SignRole(r.pub.Next("dev", nil)), "eve")
			return err
		})
	}
	empty := newRig(t, 1, 1)
	empty.refuses(fleet.ErrCatalogEmpty, func() error {
		_, err := empty.Ingest(t.Context(), "dev", empty.pub.SignRole(empty.pub.Next("dev", nil)), "eve")
		return err
	})
}

// TestTwoPublishersAtOnce lets both sign the same next version: one is taken in,
// the other is told that it is stale.
func TestTwoPublishersAtOnce(t *testing.T) {
	r := installed(t)
	type answer struct{ err error }
	answers := make(chan answer)
	for n := range 2 {
		b := r.pub.SignRole(r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime(fmt.Sprintf("2.3.%d", n)): 1}))
		go func() {
			_, err := r.Ingest(t.Context(), "dev", b, "anna")
			answers <- answer{err}
		}()
	}
	first, second := (<-answers).err, (<-answers).err
	if first != nil {
		first, second = second, first
	}
	if first != nil || !errors.Is(second, fleet.ErrCatalogStale) {
		t.Errorf("%v and %v", first, second)
	}
	r.isWhole(map[string]int64{"dev": 2, "staging": 1, "production": 1, "targets": 1}, 2)
}

// TestResign renews snapshot and timestamp when half of a life is over, not
// before, and never after less; the offline roles stay as they are.
func TestResign(t *testing.T) {
	r := installed(t)
	must(t, newRig(t, 1, 1).Resign(t.Context())) // nothing to sign is no error
	version := func() int64 {
		v, _, err := r.db.Metadata(t.Context(), catalog.Repo, "", metadata.TIMESTAMP)
		must(t, err)
		return v
	}
	signed := 0
	for day := range 30 {
		r.now = start.Add(time.Duration(day) * 24 * time.Hour)
		before := version()
		must(t, r.Resign(t.Context()))
		if version() != before {
			signed++
		}
		rows, err := r.Metadata(t.Context())
		must(t, err)
		for _, m := range rows {
			if m.Role == metadata.TIMESTAMP {
				ts, err := metadata.Timestamp().FromBytes(m.Bytes)
				must(t, err)
				if left := ts.Signed.Expires.Sub(r.now); left <= catalog.TimestampLife/2 || left > catalog.TimestampLife {
					t.Fatalf("day %d: %v are left", day, left)
				}
			}
		}
		again := version()
		must(t, r.Resign(t.Context()))
		if version() != again {
			t.Fatalf("day %d: signed twice", day)
		}
	}
	if signed != 29/4 || version() != int64(1+signed) {
		t.Errorf("signed %d times in 30 days, version %d", signed, version())
	}
	r.isWhole(map[string]int64{"dev": 1, "staging": 1, "production": 1, "targets": 1}, version())
}

// TestNewer gives a device what it does not hold, of its own channel only.
func TestNewer(t *testing.T) {
	r := installed(t)
	r.publish("dev", r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1}))
	for name, c := range map[string]struct {
		channel string
		held    catalog.Held
		want    string
	}{
		"a new device":          {"dev", catalog.Held{}, "root1 timestamp2 snapshot2 targets1 dev2"},
		"another channel":       {"production", catalog.Held{}, "root1 timestamp2 snapshot2 targets1 production1"},
		"an enrolled device":    {"dev", catalog.Held{Root: 1}, "timestamp2 snapshot2 targets1 dev2"},
		"before the release":    {"dev", catalog.Held{Root: 1, Timestamp: 1, Snapshot: 1, Targets: 1, Roles: map[string]int64{"dev": 1}}, "timestamp2 snapshot2 dev2"},
		"all":                   {"dev", catalog.Held{Root: 1, Timestamp: 2, Snapshot: 2, Targets: 1, Roles: map[string]int64{"dev": 2}}, ""},
		"more than there is":    {"dev", catalog.Held{Root: 9, Timestamp: 9, Snapshot: 9, Targets: 9, Roles: map[string]int64{"dev": 9}}, ""},
		"nonsense":              {"dev", catalog.Held{Root: -9, Timestamp: -1, Snapshot: -1, Targets: -1, Roles: map[string]int64{"dev": -1}}, "root1 timestamp2 snapshot2 targets1 dev2"},
		"a channel of nobody's": {"", catalog.Held{Root: 1, Timestamp: 2, Snapshot: 2, Targets: 1}, ""},
	} {
		rows, err := r.Newer(t.Context(), c.channel, c.held)
		must(t, err)
		var got []string
		for _, m := range rows {
			got = append(got, fmt.Sprint(m.Role, m.Version))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
	if rows, err := newRig(t, 1, 1).Newer(t.Context(), "dev", catalog.Held{}); err != nil || len(rows) > 0 {
		t.Errorf("without roots: %v, %v", rows, err)
	}
}

// FuzzIngest hands any bytes to the catalog as a role.
func FuzzIngest(f *testing.F) {
	r := newRig(f, 1, 1)
	must(f, r.Install(f.Context(), r.pub.Ceremony(), "anna"))
	good := r.pub.SignRole(r.pub.Next("dev", nil))
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"signatures":[],"signed":{"_type":"targets","targets":{"a":null}}}`))
	f.Add([]byte(`{"signatures":[{}],"signed":{"_type":"targets","expires":"x","delegations":{"roles":[]}}}`))
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := r.Ingest(t.Context(), "dev", b, "eve")
		var e *fleet.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("refused without a code: %v", err)
		}
	})
}
