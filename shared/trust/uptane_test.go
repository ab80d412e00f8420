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
	{"unsigned", func(_ *forgery, x *file) { x.Keys = nil }, CodeSignature},
	{"signed by a stranger", func(_ *forgery, x *file) { x.Keys = []ed25519.PrivateKey{newKey()} }, CodeSignature},
	{"signature under another key's id", func(_ *forgery, x *file) {
		x.Sigs = func(s []any) []any { s[0].(doc)["keyid"] = hashOf("another key"); return s }
	}, CodeSignature},
	{"signature twice", func(_ *forgery, x *file) { x.Sigs = func(s []any) []any { return append(s, s[0]) } }, CodeMalformed},
	{"altered after it was signed", func(_ *forgery, x *file) {
		x.Bytes = func(b []byte) []byte { return bytes.Replace(b, []byte("2026-11-30"), []byte("2027-11-30"), 1) }
	}, CodeSignature},
	{"expired", func(_ *forgery, x *file) { x.Signed["expires"] = "2026-11-23T11:59:59Z" }, CodeFreeze},
	{"expires this second", func(_ *forgery, x *file) { x.Signed["expires"] = "2026-11-23T12:00:00Z" }, CodeFreeze},
	{"of the type of another role", func(_ *forgery, x *file) {
		types := map[string]string{"targets": "snapshot", "snapshot": "timestamp", "timestamp": "snapshot"}
		x.Signed["_type"] = types[x.Signed["_type"].(string)]
	}, CodeMalformed},
	{"of another major version", func(_ *forgery, x *file) { x.Signed["spec_version"] = "2.0.0" }, CodeSpecVersion},
	{"version zero", func(_ *forgery, x *file) { x.Signed["version"] = 0 }, ""},
}

// TestEveryFileSpoilt is the kinds of the public Uptane vectors that spoil one file
// of director or image repository or of a delegation, for every file that we have.
func TestEveryFileSpoilt(t *testing.T) {
	t.Parallel()
	for _, c := range spoilt {
		for _, name := range everyRole {
			t.Run(name+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f, f.Files[name]) }, c.code, true)
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
			{"missing", func(x *file) { x.Gone = true }, CodeMixAndMatch},
			{"of another hash", func(x *file) {
				x.Late = func(b []byte) []byte { return bytes.Replace(b, []byte(`"1.0.31"`), []byte(`"1.0.30"`), 1) }
			}, CodeMixAndMatch},
			{"longer", func(x *file) { x.Late = func(b []byte) []byte { return append(b, ' ') } }, CodeMixAndMatch},
			{"shorter", func(x *file) { x.Named = func(m doc) { m["length"] = m["length"].(int) + 1 } }, CodeMixAndMatch},
			{"of another version", func(x *file) { x.Named = func(m doc) { m["version"] = 3 } }, CodeMixAndMatch},
			{"too large", func(x *file) {
				x.Bytes = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxTargets)...) }
			}, CodeTooLarge},
			{"described by another hash", func(x *file) { x.Named = func(m doc) { m["hashes"] = doc{"sha512": hashOf("a") + hashOf("b")} } }, CodeMalformed},
			{"described by none", func(x *file) { x.Named = func(m doc) { delete(m, "hashes") } }, CodeMalformed},
			{"described without a length", func(x *file) { x.Named = func(m doc) { delete(m, "length") } }, CodeMalformed},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f.Files[name]) }, c.code, true)
			})
		}
	}
}

// TestRootVectors is the kinds that are about roots, for both repositories.
func TestRootVectors(t *testing.T) {
	t.Parallel()
	zero := func(role string) func(*forgery, *file) {
		return func(_ *forgery, r *file) { part(r.Signed, role)["threshold"] = 0 }
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
			{"threshold of a role unmet", func(_ *forgery, r *file) { part(r.Signed, "targets")["threshold"] = 2 }, CodeSignature},
			{"expired", func(_ *forgery, r *file) { r.Signed["expires"] = "2026-11-23T11:59:59Z" }, CodeFreeze},
			{"unsigned", func(_ *forgery, r *file) { r.Keys = nil }, CodeSignature},
			{"threshold unmet", func(_ *forgery, r *file) { r.Keys = r.Keys[:1] }, CodeSignature},
			{"one holder signs twice", func(_ *forgery, r *file) { r.Keys = []ed25519.PrivateKey{r.Keys[0], r.Keys[0]} }, CodeMalformed},
			{"key ids of nobody", func(_ *forgery, r *file) { part(r.Signed, "root")["keyids"] = []any{hashOf("a"), hashOf("b")} }, CodeMalformed},
			{"unknown key type", func(_ *forgery, r *file) {
				for _, k := range r.Signed["keys"].(doc) {
					k.(doc)["keytype"], k.(doc)["scheme"] = "ml-dsa", "ml-dsa-65"
				}
			}, CodeUnknownKey},
			{"of another type", func(_ *forgery, r *file) { r.Signed["_type"] = "targets" }, CodeMalformed},
			{"not signed by the old keys", func(f *forgery, r *file) {
				k := []ed25519.PrivateKey{newKey(), newKey()}
				r.Grant(f.w.t, "root", k...)
				r.Keys = k
			}, CodeSignature},
			{"not signed by the new keys", func(f *forgery, r *file) { r.Grant(f.w.t, "root", newKey(), newKey()) }, CodeSignature},
			{"version unchanged", func(_ *forgery, r *file) { r.Signed["version"] = 1 }, CodeRollback},
			{"version skipped", func(_ *forgery, r *file) { r.Signed["version"] = 3 }, CodeRootGap},
			{"without a role", func(_ *forgery, r *file) { delete(r.Signed["roles"].(doc), "snapshot") }, CodeMalformed},
			{"too large", func(_ *forgery, r *file) {
				r.Bytes = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxRoot)...) }
			}, CodeTooLarge},
		} {
			t.Run(repo+" "+c.name, func(t *testing.T) {
				attack(t, func(f *forgery) { c.spoil(f, f.Root(repo)) }, c.code, true)
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
					r, next := f.Root(repo), []ed25519.PrivateKey{newKey(), newKey()}
					r.Grant(t, "root", next...)
					r.Keys, old = slices.Concat(old, next), next
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
	of := func(f *forgery, name string) doc { return f.Files[name].Signed["targets"].(doc) }
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
			f.Files["director/targets"].Signed["delegations"] = doc{"keys": doc{}, "roles": []any{}}
		}, CodeMalformed},
		{"a model twice", func(f *forgery) {
			second := "production/meter-digits/1.0.1"
			of(f, "director/targets")[second], of(f, "catalog/production")[second] = target(f, "director/targets"), target(f, "catalog/production")
		}, CodeMalformed},
		{"an empty delegation", func(f *forgery) { f.Files["catalog/production"].Signed["targets"] = doc{} }, CodeDisagree},
		{"the target in the top-level role only", func(f *forgery) {
			f.Files["catalog/targets"].Signed["targets"] = of(f, "catalog/production")
			f.Files["catalog/production"].Signed["targets"] = doc{}
		}, CodeDisagree},
		{"the target in both", func(f *forgery) { f.Files["catalog/targets"].Signed["targets"] = of(f, "catalog/production") }, ""},
		{"a delegation of other paths", func(f *forgery) { part(f.Files["catalog/targets"].Signed, "")["paths"] = []any{"dev/*/*"} }, CodeDisagree},
		{"a delegation without a key", func(f *forgery) { f.Files["catalog/targets"].Signed["delegations"].(doc)["keys"] = doc{} }, CodeMalformed},
		{"a delegation of threshold zero", func(f *forgery) { part(f.Files["catalog/targets"].Signed, "")["threshold"] = 0 }, CodeMalformed},
		{"a delegation's threshold unmet", func(f *forgery) { part(f.Files["catalog/targets"].Signed, "")["threshold"] = 2 }, CodeSignature},
		{"no delegation", func(f *forgery) { delete(f.Files["catalog/targets"].Signed, "delegations") }, CodeMalformed},
		{"a delegation that the snapshot does not name", func(f *forgery) { delete(f.Files["catalog/snapshot"].Signed["meta"].(doc), "production.json") }, CodeMixAndMatch},
		{"a delegation of two who sign", func(f *forgery) { two(f, 2) }, ""},
		{"a delegation of two, one signs", func(f *forgery) { two(f, 1) }, CodeSignature},
		{"metadata changed under its version", func(f *forgery) {
			f.Files["catalog/production"].Signed["version"] = 1
			f.Files["catalog/production"].Signed["note"] = "changed"
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { attack(t, c.spoil, c.code, c.code != "") })
	}
}

// two gives the channel to two holders, of whom so many sign.
func two(f *forgery, signers int) {
	keys := []ed25519.PrivateKey{f.w.role, newKey()}
	d := f.Files["catalog/targets"].Signed["delegations"].(doc)
	ids := []any{}
	for _, k := range keys {
		id, public := identify(f.w.t, k)
		d["keys"].(doc)[id] = public
		ids = append(ids, id)
	}
	e := part(f.Files["catalog/targets"].Signed, "")
	e["keyids"], e["threshold"] = ids, 2
	f.Files["catalog/production"].Keys = keys[:signers]
}

func releaseOf(target doc) doc { return target["custom"].(doc)["release"].(doc) }

func custom(f *forgery, name string) doc { return f.Files[name].Signed["custom"].(doc) }

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
