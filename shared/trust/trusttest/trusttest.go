// Package trusttest forges metadata: it takes genuine files of both repositories, lets
// a test change what it likes, and signs and names everything again with the keys that
// the attacker has. It knows files as JSON only, so nothing that our own code would
// refuse to write is out of an attacker's reach.
package trusttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Doc is a JSON object.
type Doc = map[string]any

// File is one file of a forgery: what is signed, by whom, and what becomes of it.
type File struct {
	Signed Doc
	Keys   []ed25519.PrivateKey
	Sigs   func([]any) []any   // changes the signatures
	Bytes  func([]byte) []byte // changes the file, before another names it
	Late   func([]byte) []byte // changes it after it was named
	Gone   bool
	Named  func(Doc) // changes what the other says of it
}

// Genuine is a file as it was signed, and the keys that signed it.
type Genuine struct {
	Repo, Role string
	Bytes      []byte
	Keys       []ed25519.PrivateKey
}

// Sent is a file as a device gets it.
type Sent struct {
	Repo, Role string
	Version    int64
	Bytes      []byte
}

// Forgery is a set of files in which a test changes what it likes: everything is then
// signed again by the keys that it should be signed by, or by those that the test
// gives.
type Forgery struct {
	T     testing.TB
	Files map[string]*File // "repository/role"

	first   map[string][]byte // roots, by repository
	holders []ed25519.PrivateKey
	roots   map[string][]*File // that come before the files
}

// New begins with genuine files; first are the roots that devices hold, and holders
// those who sign them.
func New(t testing.TB, files []Genuine, first map[string][]byte, holders ...ed25519.PrivateKey) *Forgery {
	f := &Forgery{T: t, Files: map[string]*File{}, first: first, holders: holders, roots: map[string][]*File{}}
	for _, x := range files {
		f.Files[x.Repo+"/"+x.Role] = &File{Signed: SignedOf(t, x.Bytes), Keys: x.Keys}
	}
	return f
}

// SignedOf is what is signed in a file.
func SignedOf(t testing.TB, b []byte) Doc {
	t.Helper()
	var o struct {
		Signed Doc `json:"signed"`
	}
	must(t, json.Unmarshal(b, &o))
	return o.Signed
}

// Root adds the next root of a repository.
func (f *Forgery) Root(repo string) *File {
	r := &File{Signed: SignedOf(f.T, f.first[repo]), Keys: slices.Clone(f.holders)}
	f.roots[repo] = append(f.roots[repo], r)
	r.Signed["version"] = len(f.roots[repo]) + 1
	return r
}

// Part is a role of a root, or of the catalog's delegations: the first one without a
// name.
func Part(signed Doc, role string) Doc {
	d, ok := signed["delegations"].(Doc)
	if !ok {
		return signed["roles"].(Doc)[role].(Doc)
	}
	for _, r := range d["roles"].([]any) {
		if role == "" || r.(Doc)["name"] == role {
			return r.(Doc)
		}
	}
	return nil
}

// Grant gives a role of a root to keys.
func (x *File) Grant(t testing.TB, role string, keys ...ed25519.PrivateKey) {
	t.Helper()
	ids := []any{}
	for _, k := range keys {
		id, public := Identify(t, k)
		x.Signed["keys"].(Doc)[id] = public
		ids = append(ids, id)
	}
	Part(x.Signed, role)["keyids"] = ids
}

// Identify is a key's id and how a file names it.
func Identify(t testing.TB, k ed25519.PrivateKey) (string, Doc) {
	t.Helper()
	key, err := metadata.KeyFromPublicKey(k.Public())
	must(t, err)
	id, err := key.ID()
	must(t, err)
	return id, Doc{"keytype": "ed25519", "scheme": "ed25519", "keyval": Doc{"public": hex.EncodeToString(k.Public().(ed25519.PublicKey))}}
}

// Make is the file as it is sent, and as it is named.
func (x *File) Make(t testing.TB) (sent, named []byte) {
	t.Helper()
	raw, err := json.Marshal(x.Signed)
	must(t, err)
	payload, err := jcs.Transform(raw)
	must(t, err)
	sigs := []any{}
	for _, k := range x.Keys {
		id, _ := Identify(t, k)
		sigs = append(sigs, Doc{"keyid": id, "sig": hex.EncodeToString(ed25519.Sign(k, payload))})
	}
	if x.Sigs != nil {
		sigs = x.Sigs(sigs)
	}
	b, err := json.Marshal(Doc{"signatures": sigs, "signed": x.Signed})
	must(t, err)
	if x.Bytes != nil {
		b = x.Bytes(b)
	}
	named = b
	if x.Late != nil {
		b = x.Late(bytes.Clone(b))
	}
	return b, named
}

// Send makes all files, roots first. Snapshots name what is there, timestamps name
// snapshots.
func (f *Forgery) Send() []Sent {
	f.T.Helper()
	var out []Sent
	for _, repo := range slices.Sorted(maps.Keys(f.roots)) {
		for i, r := range f.roots[repo] {
			b, _ := r.Make(f.T)
			out = append(out, Sent{repo, metadata.ROOT, int64(i + 2), b})
		}
	}
	names := slices.Sorted(maps.Keys(f.Files))
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, name := range names {
		one := f.Files[name]
		b, named := one.Make(f.T)
		repo, role, _ := strings.Cut(name, "/")
		f.name(repo, role, one, named)
		if !one.Gone {
			out = append(out, Sent{repo, role, 2, b})
		}
	}
	return out
}

// name writes down in the snapshot, or the timestamp, what a file is.
func (f *Forgery) name(repo, role string, one *File, b []byte) {
	by := f.Files[repo+"/"+[...]string{metadata.SNAPSHOT, metadata.TIMESTAMP, ""}[rank(role)]]
	if by == nil {
		return
	}
	m, ok := by.Signed["meta"].(Doc)[role+".json"].(Doc)
	if !ok {
		return
	}
	sum := sha256.Sum256(b)
	m["version"], m["length"], m["hashes"] = one.Signed["version"], len(b), Doc{"sha256": hex.EncodeToString(sum[:])}
	if one.Named != nil {
		one.Named(m)
	}
}

func rank(name string) int {
	switch {
	case strings.HasSuffix(name, metadata.TIMESTAMP):
		return 2
	case strings.HasSuffix(name, metadata.SNAPSHOT):
		return 1
	}
	return 0
}

// Hash is the SHA-256 of a text, in hexadecimal.
func Hash(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
