package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/gowebpki/jcs"
)

// doc is a JSON object.
type doc = map[string]any

// file is one file of a forgery: what is signed, by whom, and what becomes of it.
type file struct {
	signed doc
	keys   []ed25519.PrivateKey
	sigs   func([]any) []any   // changes the signatures
	bytes  func([]byte) []byte // changes the file, before another names it
	late   func([]byte) []byte // changes it after it was named
	gone   bool
	named  func(doc) // changes what the other says of it
}

// forgery is the next version of both repositories, in which a test changes what it
// likes: everything is then signed again by the keys that it should be signed by, or
// by those that the test gives.
type forgery struct {
	w     *world
	files map[string]*file // "repository/role"
	roots []*file          // that come before them, of the repository rootsOf
	of    string
}

func forge(w *world) *forgery {
	f := &forgery{w: w, files: map[string]*file{}}
	for _, x := range w.files() {
		keys := map[string]ed25519.PrivateKey{"catalog/timestamp": w.stamp, "catalog/snapshot": w.snap, "catalog/targets": w.targets, "catalog/production": w.role}
		name := x.Repo + "/" + x.Role
		k, ok := keys[name]
		if !ok {
			k = w.director
		}
		f.files[name] = &file{signed: signedOf(w.t, x.Bytes), keys: []ed25519.PrivateKey{k}}
	}
	f.files["catalog/targets"].signed["version"] = 2
	return f
}

func signedOf(t *testing.T, b []byte) doc {
	var o struct {
		Signed doc `json:"signed"`
	}
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	return o.Signed
}

// root adds the next root of a repository.
func (f *forgery) root(repo string) *file {
	first := f.w.catalogRoot
	if repo == Director {
		first = f.w.directorRoot
	}
	r := &file{signed: signedOf(f.w.t, first), keys: []ed25519.PrivateKey{f.w.rootA, f.w.rootB}}
	f.roots, f.of = append(f.roots, r), repo
	r.signed["version"] = len(f.roots) + 1
	return r
}

// part is a role of a root, or of the catalog's delegations.
func part(signed doc, role string) doc {
	if d, ok := signed["delegations"].(doc); ok {
		return d["roles"].([]any)[0].(doc)
	}
	return signed["roles"].(doc)[role].(doc)
}

// grant gives a role of a root to keys.
func (r *file) grant(t *testing.T, role string, keys ...ed25519.PrivateKey) {
	ids := []any{}
	for _, k := range keys {
		id, public := identify(t, k)
		r.signed["keys"].(doc)[id] = public
		ids = append(ids, id)
	}
	part(r.signed, role)["keyids"] = ids
}

func identify(t *testing.T, k ed25519.PrivateKey) (string, doc) {
	key := tufKey(t, k)
	id, err := key.ID()
	if err != nil {
		t.Fatal(err)
	}
	return id, doc{"keytype": "ed25519", "scheme": "ed25519", "keyval": doc{"public": hex.EncodeToString(k.Public().(ed25519.PublicKey))}}
}

// make is the file as it is sent, and as it is named.
func (x *file) make(t *testing.T) (sent, named []byte) {
	t.Helper()
	raw, err := json.Marshal(x.signed)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jcs.Transform(raw)
	if err != nil {
		t.Fatal(err)
	}
	sigs := []any{}
	for _, k := range x.keys {
		id, _ := identify(t, k)
		sigs = append(sigs, doc{"keyid": id, "sig": hex.EncodeToString(ed25519.Sign(k, payload))})
	}
	if x.sigs != nil {
		sigs = x.sigs(sigs)
	}
	b, err := json.Marshal(doc{"signatures": sigs, "signed": x.signed})
	if err != nil {
		t.Fatal(err)
	}
	if x.bytes != nil {
		b = x.bytes(b)
	}
	named = b
	if x.late != nil {
		b = x.late(bytes.Clone(b))
	}
	return b, named
}

// Refresh hands out all files, whatever is held.
func (f *forgery) Refresh(context.Context, Held) ([]File, error) {
	var out []File
	for i, r := range f.roots {
		b, _ := r.make(f.w.t)
		out = append(out, File{f.of, "root", int64(i + 2), b})
	}
	for _, x := range [][3]string{{Catalog, "production", "snapshot"}, {Catalog, "targets", "snapshot"}, {Catalog, "snapshot", "timestamp"}, {Catalog, "timestamp"}, {Director, "targets", "snapshot"}, {Director, "snapshot", "timestamp"}, {Director, "timestamp"}} {
		one := f.files[x[0]+"/"+x[1]]
		b, named := one.make(f.w.t)
		if x[2] != "" {
			sum := sha256.Sum256(named)
			meta := f.files[x[0]+"/"+x[2]].signed["meta"].(doc)
			if m, ok := meta[x[1]+".json"].(doc); ok {
				m["version"], m["length"], m["hashes"] = one.signed["version"], len(named), doc{"sha256": hex.EncodeToString(sum[:])}
				if one.named != nil {
					one.named(m)
				}
			}
		}
		if !one.gone {
			out = append(out, File{x[0], x[1], 2, b})
		}
	}
	return out, nil
}
