package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// object is a JSON object: the simulator signs whatever a test makes of it.
type object = map[string]any

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// key signs.
type key struct {
	id     string
	public object
	sign   func([]byte) []byte
}

func newKey(t *testing.T, keytype string) *key {
	t.Helper()
	var private crypto.Signer
	var err error
	public, opts := "", crypto.SignerOpts(crypto.SHA256)
	k := &key{}
	switch keytype {
	case "ed25519":
		var pub ed25519.PublicKey
		pub, private, err = ed25519.GenerateKey(rand.Reader)
		public, opts = hex.EncodeToString(pub), crypto.Hash(0)
		k.public = object{"keytype": "ed25519", "scheme": "ed25519"}
	case "ecdsa":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		k.public = object{"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256"}
	case "rsa":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		k.public = object{"keytype": "rsa", "scheme": "rsassa-pss-sha256"}
	}
	must(t, err)
	if public == "" {
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		must(t, err)
		public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	k.public["keyval"] = object{"public": public}
	k.identify()
	k.sign = func(b []byte) []byte {
		if opts.HashFunc() != 0 {
			sum := sha256.Sum256(b)
			b = sum[:]
		}
		sig, err := private.Sign(rand.Reader, b, opts)
		must(t, err)
		return sig
	}
	return k
}

// identify sets the id anew, after a change of the public part.
func (k *key) identify() {
	sum := sha256.Sum256(canonical(k.public))
	k.id = hex.EncodeToString(sum[:])
}

// canonical is what TUF signs: JSON with sorted keys, no space, and no escapes but
// of quotation mark and backslash.
func canonical(v any) []byte {
	switch v := v.(type) {
	case object:
		var members [][]byte
		for _, k := range slices.Sorted(maps.Keys(v)) {
			members = append(members, slices.Concat(canonical(k), []byte(":"), canonical(v[k])))
		}
		return slices.Concat([]byte("{"), bytes.Join(members, []byte(",")), []byte("}"))
	case []any:
		var items [][]byte
		for _, x := range v {
			items = append(items, canonical(x))
		}
		return slices.Concat([]byte("["), bytes.Join(items, []byte(",")), []byte("]"))
	case string:
		return []byte(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`)
	}
	return fmt.Append(nil, v)
}

// sim is a repository on a web server, with one key for each role at first.
type sim struct {
	t       *testing.T
	url     string
	now     time.Time
	docs    map[string]object // what is signed, by role
	signers map[string][]*key // by role
	files   map[string][][]byte
	targets map[string][]byte // by name without its hash
	hashes  bool              // length and hash of metadata are given
	asked   []string          // of metadata: "2.root", "timestamp"
	fetched []string          // of targets
}

var topLevel = []string{"root", "targets", "snapshot", "timestamp"}

func newSim(t *testing.T) *sim {
	s := &sim{t: t, now: start, docs: map[string]object{}, signers: map[string][]*key{}, files: map[string][][]byte{}, targets: map[string][]byte{}}
	for _, role := range topLevel {
		s.docs[role] = s.document(role)
	}
	s.docs["root"]["consistent_snapshot"], s.docs["root"]["keys"], s.docs["root"]["roles"] = true, object{}, object{}
	for _, role := range topLevel {
		s.grant(role, 1, newKey(t, "ed25519"))
	}
	s.docs["targets"]["targets"] = object{}
	s.docs["snapshot"]["meta"], s.docs["timestamp"]["meta"] = object{}, object{}
	s.publish("root", "targets", "snapshot", "timestamp")
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *sim) document(role string) object {
	kind := role
	if !slices.Contains(topLevel, role) {
		kind = "targets"
	}
	return object{"_type": kind, "spec_version": "1.0.31", "version": 0, "expires": stamp(s.now.Add(30 * day))}
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

func (s *sim) expire(role string, after time.Duration) {
	s.docs[role]["expires"] = stamp(start.Add(after))
}

// grant makes exactly these the keys of a top-level role, and its signers.
func (s *sim) grant(role string, threshold int, keys ...*key) {
	s.allow(role, threshold, keys...)
	s.signers[role] = keys
}

// allow is grant that leaves the signers as they are.
func (s *sim) allow(role string, threshold int, keys ...*key) {
	root := s.docs["root"]
	ids := []any{}
	for _, k := range keys {
		root["keys"].(object)[k.id] = k.public
		ids = append(ids, k.id)
	}
	root["roles"].(object)[role] = object{"keyids": ids, "threshold": threshold}
}

// delegate adds a role to those of another; it is signed by its keys.
func (s *sim) delegate(by, role string, terminating bool, paths []any, keys ...*key) object {
	if s.docs[role] == nil {
		s.docs[role] = s.document(role)
		s.docs[role]["targets"] = object{}
	}
	if s.docs[by]["delegations"] == nil {
		s.docs[by]["delegations"] = object{"keys": object{}, "roles": []any{}}
	}
	if len(keys) == 0 {
		keys = []*key{newKey(s.t, "ed25519")}
	}
	d := s.docs[by]["delegations"].(object)
	ids := []any{}
	for _, k := range keys {
		d["keys"].(object)[k.id] = k.public
		ids = append(ids, k.id)
	}
	entry := object{"name": role, "keyids": ids, "threshold": 1, "terminating": terminating, "paths": paths}
	d["roles"] = append(d["roles"].([]any), entry)
	s.signers[role] = append(s.signers[role], keys...)
	return entry
}

// add puts a target into a role.
func (s *sim) add(role, name, content string) object {
	sum := sha256.Sum256([]byte(content))
	t := object{"length": len(content), "hashes": object{"sha256": hex.EncodeToString(sum[:])}}
	s.docs[role]["targets"].(object)[name], s.targets[name] = t, []byte(content)
	return t
}

func sha512Of(content string) string {
	sum := sha512.Sum512([]byte(content))
	return hex.EncodeToString(sum[:])
}

// publish signs the next version of each role and names it in the one that names
// it.
func (s *sim) publish(roles ...string) {
	for _, role := range roles {
		s.docs[role]["version"] = s.docs[role]["version"].(int) + 1
		s.put(role, s.signed(role))
	}
}

// signed is a role's file.
func (s *sim) signed(role string) object {
	payload := canonical(s.docs[role])
	sigs := []any{}
	for _, k := range s.signers[role] {
		sigs = append(sigs, object{"keyid": k.id, "sig": hex.EncodeToString(k.sign(payload))})
	}
	return object{"signatures": sigs, "signed": s.docs[role]}
}

// put publishes a file as it is.
func (s *sim) put(role string, file object) {
	b, err := json.Marshal(file)
	must(s.t, err)
	s.files[role] = append(s.files[role], b)
	by := map[string]string{"snapshot": "timestamp", "root": "", "timestamp": ""}
	namer, ok := by[role]
	if !ok {
		namer = "snapshot"
	}
	if namer == "" {
		return
	}
	m := object{"version": s.docs[role]["version"]}
	if s.hashes {
		sum := sha256.Sum256(b)
		m["length"], m["hashes"] = len(b), object{"sha256": hex.EncodeToString(sum[:])}
	}
	s.docs[namer]["meta"].(object)[role+".json"] = m
}

// meta is what snapshot or timestamp say of a file.
func (s *sim) meta(by, role string) object { return s.docs[by]["meta"].(object)[role+".json"].(object) }

// rewind makes a role begin again before version 1.
func (s *sim) rewind(role string) { s.docs[role]["version"], s.files[role] = 0, nil }

// replace puts a file in place of the newest.
func (s *sim) replace(role string, change func([]byte) []byte) {
	last := len(s.files[role]) - 1
	s.files[role][last] = change(s.files[role][last])
}

func (s *sim) newest(role string) []byte { return s.files[role][len(s.files[role])-1] }

// ServeHTTP implements http.Handler.
func (s *sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.RequestURI, "/"), "/", 2)
	var b []byte
	switch {
	case len(parts) == 2 && parts[0] == "metadata":
		s.asked = append(s.asked, strings.TrimSuffix(parts[1], ".json"))
		b = s.metadata(strings.TrimSuffix(parts[1], ".json"))
	case len(parts) == 2 && parts[0] == "targets":
		s.fetched = append(s.fetched, parts[1])
		b = s.target(parts[1])
	}
	if b == nil {
		http.NotFound(w, r)
		return
	}
	w.Write(b)
}

func (s *sim) metadata(name string) []byte {
	version, role, ok := strings.Cut(name, ".")
	if n, err := strconv.Atoi(version); ok && err == nil && (role == "root" || s.docs["root"]["consistent_snapshot"] == true) {
		for known, files := range s.files {
			if escaped(known) == role && n >= 1 && n <= len(files) {
				return files[n-1]
			}
		}
		return nil
	}
	if files := s.files[name]; len(files) > 0 && name != "root" {
		return files[len(files)-1]
	}
	return nil
}

func (s *sim) target(name string) []byte {
	name, err := url.PathUnescape(name)
	must(s.t, err)
	if s.docs["root"]["consistent_snapshot"] == true {
		dir, file := "", name
		if i := strings.LastIndex(name, "/"); i >= 0 {
			dir, file = name[:i+1], name[i+1:]
		}
		_, file, _ = strings.Cut(file, ".")
		name = dir + file
	}
	return s.targets[name]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
