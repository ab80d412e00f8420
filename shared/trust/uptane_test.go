package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everyRole are the files of both repositories but their roots.
var everyRole = []string{"director/targets", "director/snapshot", "director/timestamp", "catalog/production", "catalog/targets", "catalog/snapshot", "catalog/timestamp"}

// spoilt are the ways in which one file can be wrong.
var spoilt = []struct {
	name  string
	spoil func(*forgery, *file)
	code  string
}{
	{"unsigned", func(_ *forgery, x *file) { x.keys = nil }, CodeSignature},
	{"signed by a stranger", func(_ *forgery, x *file) { x.keys = []ed25519.PrivateKey{newKey()} }, CodeSignature},
	{"signature under another key's id", func(_ *forgery, x *file) {
		x.sigs = func(s []any) []any { s[0].(doc)["keyid"] = hashOf("another key"); return s }
	}, CodeSignature},
	{"signature twice", func(_ *forgery, x *file) { x.sigs = func(s []any) []any { return append(s, s[0]) } }, CodeMalformed},
	{"altered after it was signed", func(_ *forgery, x *file) {
		x.bytes = func(b []byte) []byte { return bytes.Replace(b, []byte("2026-11-30"), []byte("2027-11-30"), 1) }
	}, CodeSignature},
	{"expired", func(_ *forgery, x *file) { x.signed["expires"] = "2026-11-23T11:59:59Z" }, CodeFreeze},
	{"expires this second", func(_ *forgery, x *file) { x.signed["expires"] = "2026-11-23T12:00:00Z" }, CodeFreeze},
	{"of the type of another role", func(_ *forgery, x *file) {
		types := map[string]string{"targets": "snapshot", "snapshot": "timestamp", "timestamp": "snapshot"}
		x.signed["_type"] = types[x.signed["_type"].(string)]
	}, CodeMalformed},
	{"of another major version", func(_ *forgery, x *file) { x.signed["spec_version"] = "2.0.0" }, CodeSpecVersion},
	{"version zero", func(_ *forgery, x *file) { x.signed["version"] = 0 }, ""},
}

// TestEveryFileSpoilt is the kinds of the public Uptane vectors that spoil one file
// of director or image repository or of a delegation, for every file that we have.
func TestEveryFileSpoilt(t *testing.T) {
	t.Parallel()
	for _, c := range spoilt {
		for _, name := range everyRole {
			t.Run(name+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f, f.files[name]) }, c.code, true)
			})
		}
	}
}

// TestNamedFiles is the kinds in which a file is not the one that is named.
func TestNamedFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"director/targets", "director/snapshot", "catalog/production", "catalog/targets", "catalog/snapshot"} {
		for _, c := range []struct {
			name  string
			spoil func(*file)
			code  string
		}{
			{"missing", func(x *file) { x.gone = true }, CodeMixAndMatch},
			{"of another hash", func(x *file) {
				x.late = func(b []byte) []byte { return bytes.Replace(b, []byte(`"1.0.31"`), []byte(`"1.0.30"`), 1) }
			}, CodeMixAndMatch},
			{"longer", func(x *file) { x.late = func(b []byte) []byte { return append(b, ' ') } }, CodeMixAndMatch},
			{"shorter", func(x *file) { x.named = func(m doc) { m["length"] = m["length"].(int) + 1 } }, CodeMixAndMatch},
			{"of another version", func(x *file) { x.named = func(m doc) { m["version"] = 3 } }, CodeMixAndMatch},
			{"too large", func(x *file) {
				x.bytes = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxTargets)...) }
			}, CodeTooLarge},
			{"described by another hash", func(x *file) { x.named = func(m doc) { m["hashes"] = doc{"sha512": hashOf("a") + hashOf("b")} } }, CodeMalformed},
			{"described by none", func(x *file) { x.named = func(m doc) { delete(m, "hashes") } }, CodeMalformed},
			{"described without a length", func(x *file) { x.named = func(m doc) { delete(m, "length") } }, CodeMalformed},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f.files[name]) }, c.code, true)
			})
		}
	}
}

// TestRootVectors is the kinds that are about roots, for both repositories.
func TestRootVectors(t *testing.T) {
	t.Parallel()
	zero := func(role string) func(*forgery, *file) {
		return func(_ *forgery, r *file) { part(r.signed, role)["threshold"] = 0 }
	}
	for _, repo := range []string{Director, Catalog} {
		for _, c := range []struct {
			name  string
			spoil func(*forgery, *file)
			code  string
		}{
			{"root of threshold zero", zero("root"), CodeMalformed},
			{"targets of threshold zero", zero("targets"), CodeMalformed},
			{"snapshot of threshold zero", zero("snapshot"), CodeMalformed},
			{"timestamp of threshold zero", zero("timestamp"), CodeMalformed},
			{"threshold of a role unmet", func(_ *forgery, r *file) { part(r.signed, "targets")["threshold"] = 2 }, CodeSignature},
			{"expired", func(_ *forgery, r *file) { r.signed["expires"] = "2026-11-23T11:59:59Z" }, CodeFreeze},
			{"unsigned", func(_ *forgery, r *file) { r.keys = nil }, CodeSignature},
			{"threshold unmet", func(_ *forgery, r *file) { r.keys = r.keys[:1] }, CodeSignature},
			{"one holder signs twice", func(_ *forgery, r *file) { r.keys = []ed25519.PrivateKey{r.keys[0], r.keys[0]} }, CodeMalformed},
			{"key ids of nobody", func(_ *forgery, r *file) { part(r.signed, "root")["keyids"] = []any{hashOf("a"), hashOf("b")} }, CodeMalformed},
			{"unknown key type", func(_ *forgery, r *file) {
				for _, k := range r.signed["keys"].(doc) {
					k.(doc)["keytype"], k.(doc)["scheme"] = "ml-dsa", "ml-dsa-65"
				}
			}, CodeUnknownKey},
			{"of another type", func(_ *forgery, r *file) { r.signed["_type"] = "targets" }, CodeMalformed},
			{"not signed by the old keys", func(f *forgery, r *file) {
				k := []ed25519.PrivateKey{newKey(), newKey()}
				r.grant(f.w.t, "root", k...)
				r.keys = k
			}, CodeSignature},
			{"not signed by the new keys", func(f *forgery, r *file) { r.grant(f.w.t, "root", newKey(), newKey()) }, CodeSignature},
			{"version unchanged", func(_ *forgery, r *file) { r.signed["version"] = 1 }, CodeRollback},
			{"version skipped", func(_ *forgery, r *file) { r.signed["version"] = 3 }, CodeRootGap},
			{"without a role", func(_ *forgery, r *file) { delete(r.signed["roles"].(doc), "snapshot") }, CodeMalformed},
			{"too large", func(_ *forgery, r *file) {
				r.bytes = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxRoot)...) }
			}, CodeTooLarge},
		} {
			t.Run(repo+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f, f.root(repo)) }, c.code, true)
			})
		}
	}
}

// TestRotationVectors is the kinds in which roots change rightly.
func TestRotationVectors(t *testing.T) {
	t.Parallel()
	for _, repo := range []string{Director, Catalog} {
		for _, many := range []int{1, 3} {
			attack(t, func(f *forgery) {
				old := []ed25519.PrivateKey{f.w.rootA, f.w.rootB}
				for range many {
					r, next := f.root(repo), []ed25519.PrivateKey{newKey(), newKey()}
					r.grant(t, "root", next...)
					r.keys, old = slices.Concat(old, next), next
				}
			}, "", false)
		}
	}
}

// TestAgreementVectors is the kinds in which both repositories are whole and do not
// say the same, or say what they may not.
func TestAgreementVectors(t *testing.T) {
	t.Parallel()
	const path = "production/meter-digits/1.0.0"
	of := func(f *forgery, name string) doc { return f.files[name].signed["targets"].(doc) }
	target := func(f *forgery, name string) doc { return of(f, name)[path].(doc) }
	for _, c := range []struct {
		name  string
		spoil func(*forgery)
		code  string
	}{
		{"simple", func(*forgery) {}, ""},
		{"director's hash", func(f *forgery) { target(f, "director/targets")["hashes"] = doc{"sha256": hashOf("x")} }, CodeDisagree},
		{"catalog's hash", func(f *forgery) { target(f, "catalog/production")["hashes"] = doc{"sha256": hashOf("x")} }, CodeDisagree},
		{"director's length", func(f *forgery) { target(f, "director/targets")["length"] = 1 }, CodeDisagree},
		{"catalog's length", func(f *forgery) { target(f, "catalog/production")["length"] = 1 }, CodeDisagree},
		{"director's hardware", func(f *forgery) { releaseOf(target(f, "director/targets"))["hardware"] = "arch=x" }, CodeDisagree},
		{"catalog's hardware", func(f *forgery) { releaseOf(target(f, "catalog/production"))["hardware"] = "arch=x" }, CodeDisagree},
		{"director's counter", func(f *forgery) { releaseOf(target(f, "director/targets"))["counter"] = 9 }, CodeDisagree},
		{"no custom in the director", func(f *forgery) { delete(target(f, "director/targets"), "custom") }, CodeMalformed},
		{"no custom in the catalog", func(f *forgery) { delete(target(f, "catalog/production"), "custom") }, CodeMalformed},
		{"another device", func(f *forgery) { custom(f, "director/targets")["device"] = "meter-2" }, CodeWrongDevice},
		{"another device in the snapshot", func(f *forgery) { custom(f, "director/snapshot")["device"] = "meter-2" }, CodeWrongDevice},
		{"another device in the timestamp", func(f *forgery) { custom(f, "director/timestamp")["device"] = "meter-2" }, CodeWrongDevice},
		{"no device", func(f *forgery) { delete(custom(f, "director/targets"), "device") }, CodeWrongDevice},
		{"generations mixed", func(f *forgery) { custom(f, "director/targets")["generation"] = 7 }, CodeMixAndMatch},
		{"the director delegates", func(f *forgery) {
			f.files["director/targets"].signed["delegations"] = doc{"keys": doc{}, "roles": []any{}}
		}, CodeMalformed},
		{"a model twice", func(f *forgery) {
			second := "production/meter-digits/1.0.1"
			of(f, "director/targets")[second], of(f, "catalog/production")[second] = target(f, "director/targets"), target(f, "catalog/production")
		}, CodeMalformed},
		{"an empty delegation", func(f *forgery) { f.files["catalog/production"].signed["targets"] = doc{} }, CodeDisagree},
		{"the target in the top-level role only", func(f *forgery) {
			f.files["catalog/targets"].signed["targets"] = of(f, "catalog/production")
			f.files["catalog/production"].signed["targets"] = doc{}
		}, CodeDisagree},
		{"the target in both", func(f *forgery) { f.files["catalog/targets"].signed["targets"] = of(f, "catalog/production") }, ""},
		{"a delegation of other paths", func(f *forgery) { part(f.files["catalog/targets"].signed, "")["paths"] = []any{"dev/*/*"} }, CodeDisagree},
		{"a delegation without a key", func(f *forgery) { f.files["catalog/targets"].signed["delegations"].(doc)["keys"] = doc{} }, CodeMalformed},
		{"a delegation of threshold zero", func(f *forgery) { part(f.files["catalog/targets"].signed, "")["threshold"] = 0 }, CodeMalformed},
		{"a delegation's threshold unmet", func(f *forgery) { part(f.files["catalog/targets"].signed, "")["threshold"] = 2 }, CodeSignature},
		{"no delegation", func(f *forgery) { delete(f.files["catalog/targets"].signed, "delegations") }, CodeMalformed},
		{"a delegation that the snapshot does not name", func(f *forgery) { delete(f.files["catalog/snapshot"].signed["meta"].(doc), "production.json") }, CodeMixAndMatch},
		{"a delegation of two who sign", func(f *forgery) { two(f, 2) }, ""},
		{"a delegation of two, one signs", func(f *forgery) { two(f, 1) }, CodeSignature},
		{"metadata changed under its version", func(f *forgery) {
			f.files["catalog/production"].signed["version"] = 1
			f.files["catalog/production"].signed["note"] = "changed"
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { attack(t, c.spoil, c.code, c.code != "") })
	}
}

// two gives the channel to two holders, of whom so many sign.
func two(f *forgery, signers int) {
	keys := []ed25519.PrivateKey{f.w.role, newKey()}
	d := f.files["catalog/targets"].signed["delegations"].(doc)
	ids := []any{}
	for _, k := range keys {
		id, public := identify(f.w.t, k)
		d["keys"].(doc)[id] = public
		ids = append(ids, id)
	}
	e := part(f.files["catalog/targets"].signed, "")
	e["keyids"], e["threshold"] = ids, 2
	f.files["catalog/production"].keys = keys[:signers]
}

func releaseOf(target doc) doc { return target["custom"].(doc)["release"].(doc) }

func custom(f *forgery, name string) doc { return f.files[name].signed["custom"].(doc) }

// attack lets a device believe version 1, forges version 2 and wants its code, or
// any refusal for none when it is refused; nothing may have changed then.
func attack(t *testing.T, spoil func(*forgery), code string, refused bool) {
	t.Helper()
	w := newWorld(t)
	d := w.device("meter-1")
	wish, err := d.refresh()
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, d.dir)
	w.o.version, w.o.catalogVersion, w.o.generation = 2, 2, 2
	f := forge(w)
	spoil(f)
	got, err := d.c.Refresh(t.Context(), fetchless{f})
	var r *Refusal
	switch {
	case !refused && (err != nil || got.Generation != 2 || len(got.Targets) != 1):
		t.Fatalf("%+v, %v", got, err)
	case !refused:
		return
	case !errors.As(err, &r):
		t.Fatalf("it was believed, or refused without a code: %v", err)
	case code != "" && r.Code != code:
		t.Errorf("%v, want %s", err, code)
	}
	if diff := cmp.Diff(before, snapshot(t, d.dir)); diff != "" {
		t.Errorf("the disk changed: %s", diff)
	}
	if diff := cmp.Diff(wish, d.c.Wish()); diff != "" {
		t.Errorf("the wish changed: %s", diff)
	}
	d.now = now.Add(time.Minute)
	w.o.version, w.o.catalogVersion, w.o.generation = 9, 9, 9
	if _, err := d.refresh(); err != nil {
		t.Errorf("an honest refresh afterwards: %v", err)
	}
}

// fetchless is a Source without blobs.
type fetchless struct{ *forgery }

func (fetchless) Fetch(context.Context, Blob, []Range, io.WriterAt) error { return errCut }
