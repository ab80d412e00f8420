package publish

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/web"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

// server is the real API over the real catalog, database and blobs.
type server struct {
	catalog  *catalog.Service
	keys     catalog.Keys
	director ed25519.PrivateKey
	db       *sqlite.DB
	blobs    *blob.Dir
	http     *httptest.Server
	ca       string
	token    string
	writes   []string // requests that change something
	// bend changes the metadata before it is handed out; may be nil.
	bend func([]metaFile) []metaFile
}

func newServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(context.Background(), filepath.Join(dir, "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &server{db: db, keys: catalog.Keys{Snapshot: freshKey(t), Timestamp: freshKey(t)}, director: freshKey(t)}
	if s.blobs, err = blob.Open(dir); err != nil {
		t.Fatal(err)
	}
	s.catalog = &catalog.Service{
		Store: db, Blobs: s.blobs, Keys: s.keys, Director: s.director.Public().(ed25519.PublicKey),
		Now: func() time.Time { return day0 }, Log: slog.New(slog.DiscardHandler),
	}
	s.http = httptest.NewTLSServer(s.routes(t, db))
	t.Cleanup(s.http.Close)
	s.ca = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) client(t testing.TB) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Server: s.http.URL, Token: s.token, CA: s.ca})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// routes is the real API; it notes what changes something.
func (s *server) routes(t testing.TB, db *sqlite.DB) http.Handler {
	t.Helper()
	online, err := json.Marshal(onlineOf(s))
	if err != nil {
		t.Fatal(err)
	}
	access, token := fleet.NewAccess("test", fleet.RolePublisher, 0, day0)
	if err := db.CreateAccess(context.Background(), access, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	s.token = token
	api := web.New(web.Config{ // a publisher asks nothing of rollouts and enrolment
		Rollouts: struct{ web.Rollouts }{}, Enrolment: struct{ web.Enrolment }{},
		Store: db, Catalog: catalog.JSON{Service: s.catalog}, Blobs: s.blobs, OnlineKeys: func() []byte { return online },
		Now: func() time.Time { return day0 }, Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			s.writes = append(s.writes, r.Method+" "+r.URL.Path)
		}
		if s.bend == nil || r.URL.Path != "/v1/catalog/metadata" {
			api.ServeHTTP(w, r)
			return
		}
		honest := httptest.NewRecorder()
		api.ServeHTTP(honest, r)
		var list metaList
		if err := json.Unmarshal(honest.Body.Bytes(), &list); err != nil {
			t.Error(err)
		}
		list.Items = s.bend(list.Items)
		json.NewEncoder(w).Encode(list)
	})
}

// publisher is a server with roots, and what is needed to publish to it.
type publisher struct {
	*server
	dir    string // of the ceremony
	client *Client
	opened map[string]*offline.Key // by holder: opening one takes a while
}

// begun keeps the first publisher's ceremony for the others, because making and
// opening keys takes long on purpose. Its server's keys go with it.
var begun struct {
	sync.Mutex
	server *server
	files  map[string][]byte
	opened map[string]*offline.Key
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	begun.Lock()
	defer begun.Unlock()
	s := newServer(t)
	p := &publisher{s, t.TempDir(), s.client(t), begun.opened}
	if begun.server == nil {
		p.dir, p.opened = ceremony(t, onlineOf(s), "alice", "bob", "carol"), map[string]*offline.Key{}
		signAll(t, p.dir, "alice", "bob")
		begun.server, begun.files, begun.opened = s, read(t, p.dir), p.opened
	} else {
		s.use(begun.server)
		write(t, p.dir, begun.files)
	}
	if err := p.client.Install(context.Background(), p.dir, day0); err != nil {
		t.Fatal(err)
	}
	return p
}

// use takes over another server's online keys.
func (s *server) use(o *server) {
	s.keys, s.director = o.keys, o.director
	s.catalog.Keys, s.catalog.Director = o.keys, o.catalog.Director
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for path, b := range files {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *publisher) conf(t *testing.T, dir, channel string, holders ...string) ReleaseConfig {
	t.Helper()
	trust, err := ReadTrust(filepath.Join(p.dir, CatalogRootFile), p.dir)
	if err != nil {
		t.Fatal(err)
	}
	c := ReleaseConfig{Dir: dir, Channel: channel, Trust: trust}
	for _, h := range holders {
		if p.opened[h] == nil {
			if p.opened[h], err = offline.LoadKey(keyPath(p.dir, h, KindRelease), pass(h)); err != nil {
				t.Fatal(err)
			}
		}
		c.Keys = append(c.Keys, p.opened[h])
	}
	return c
}

func (p *publisher) publish(c ReleaseConfig) (*Published, error) {
	return p.client.Publish(context.Background(), c, day0.Add(time.Hour))
}

// packed writes a bundle of a version, with labels of its own.
func packed(t *testing.T, version, labels string) string {
	t.Helper()
	return packedBy(t, nil, version, labels)
}

// packedBy signs the bundle too, if there is a signer.
func packedBy(t *testing.T, s *modelsig.Signer, version, labels string) string {
	t.Helper()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for name, b := range map[string][]byte{
		pack.SpecName:  []byte("model: gate\nversion: " + version + "\nfile: model.tflite\nlabels: labels.txt\ngolden: none\ninput: tensor\noutput: classes softmax\n"),
		"labels.txt":   []byte(labels),
		"model.tflite": tflitetest.Marshal(tflitetest.Classifier(3)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plan, err := pack.Model(pack.Config{Dir: dir})
	if err == nil && s != nil {
		err = plan.Sign(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Write(out); err != nil {
		t.Fatal(err)
	}
	return out
}

const labels = "a\nb\nc\n"

func TestPublish(t *testing.T) {
	p := newPublisher(t)
	first := packed(t, "1.0.0", labels)
	got, err := p.publish(p.conf(t, first, "production", "alice", "carol"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.OpenLayout(os.DirFS(first))
	if err != nil {
		t.Fatal(err)
	}
	want := &Published{Path: "production/gate/1.0.0", Digest: b.Digest, Counter: 1, Version: 2, Signers: []string{"alice", "carol"}, Uploaded: got.Uploaded,
		Signing: &Signing{Threshold: 2, By: []string{"alice", "carol"}, Open: []string{"bob"}}}
	if d := cmp.Diff(want, got); d != "" || got.Uploaded == 0 {
		t.Error(d, got.Uploaded)
	}
	if last := p.writes[len(p.writes)-1]; last != "PUT /v1/catalog/roles/production" {
		t.Errorf("the last request was %s, not the signed role", last)
	}
	releases, err := p.db.Releases(context.Background(), fleet.ReleaseFilter{Channel: "production"})
	if err != nil || len(releases) != 1 || releases[0].Digest != b.Digest {
		t.Fatalf("%v, %v", releases, err)
	}

	n := len(p.writes)
	got, err = p.publish(p.conf(t, first, "production"))
	if err != nil || !got.Already || got.Counter != 1 || len(p.writes) != n {
		t.Errorf("the second time: %+v, %v, wrote %v", got, err, p.writes[n:])
	}

	second := p.conf(t, packed(t, "1.1.0", "x\ny\nz\n"), "production", "bob", "carol")
	second.Floor = 2
	if got, err = p.publish(second); err != nil || got.Counter != 2 || got.Version != 3 || got.Uploaded >= want.Uploaded {
		t.Errorf("the next version: %+v, %v", got, err)
	}
	lower := p.conf(t, first, "production", "alice", "bob")
	lower.Floor = 1
	_, err = p.publish(lower)
	wantCode(t, err, "floor.falls")
	if got, err = p.publish(p.conf(t, first, "dev", "bob")); err != nil || got.Uploaded != 0 || got.Counter != 1 {
		t.Errorf("the same bundle in another channel: %+v, %v", got, err)
	}
}

func TestPublishRaisesFloor(t *testing.T) {
	p := newPublisher(t)
	c := p.conf(t, packed(t, "1.0.0", labels), "dev", "alice")
	c.Floor = 2
	_, err := p.publish(c)
	wantCode(t, err, "floor.above")
	c.Floor = 0
	if _, err := p.publish(c); err != nil {
		t.Fatal(err)
	}
	c = p.conf(t, c.Dir, "dev", "alice")
	c.Floor = 1
	if got, err := p.publish(c); err != nil || got.Already || got.Version != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := p.publish(c); err != nil || !got.Already {
		t.Errorf("%+v, %v", got, err)
	}
}

// newSigner makes a model-signing key and the policy that wants it.
func newSigner(t *testing.T) (*modelsig.Signer, *modelsig.Policy) {
	t.Helper()
	pass := func(bool) ([]byte, error) { return []byte("a long passphrase"), nil }
	private, public, err := modelsig.NewKey(pass)
	if err != nil {
		t.Fatal(err)
	}
	s, err := modelsig.NewSigner(private, pass)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(file, public, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := modelsig.Requirement{Key: file}.Load("")
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestPublishRequiresSignature(t *testing.T) {
	p := newPublisher(t)
	signer, want := newSigner(t)
	_, other := newSigner(t)
	signed := packedBy(t, signer, "1.0.0", labels)
	for name, c := range map[string]struct {
		dir  string
		want *modelsig.Policy
		code string
	}{
		"no signature":    {packed(t, "1.0.0", labels), want, modelsig.CodeMissing},
		"another signer":  {signed, other, modelsig.CodeIdentity},
		"the right one":   {signed, want, ""},
		"again, refused":  {signed, other, modelsig.CodeIdentity}, // also where it is published already
		"nothing is said": {signed, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conf, before := p.conf(t, c.dir, "dev", "alice"), len(p.writes)
			conf.Signature = c.want
			_, err := p.publish(conf)
			if code(err) != c.code {
				t.Errorf("%v, wanted %q", err, c.code)
			}
			if err != nil && len(p.writes) != before {
				t.Errorf("refused, and yet sent: %v", p.writes[before:])
			}
		})
	}
}

func TestPublishRefuses(t *testing.T) {
	p := newPublisher(t)
	good := packed(t, "1.0.0", labels)
	if _, err := p.publish(p.conf(t, good, "production", "alice", "bob")); err != nil {
		t.Fatal(err)
	}
	changed := packed(t, "3.0.0", labels)
	blobs, err := filepath.Glob(filepath.Join(changed, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range blobs {
		if b, _ := os.ReadFile(f); string(b) == labels {
			if err := os.WriteFile(f, []byte("a\nb\nX\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := packed(t, "2.0.0", labels)
	strange := p.conf(t, next, "production", "alice")
	rootKeyed, err := offline.LoadKey(keyPath(p.dir, "bob", KindRoot), pass("bob"))
	if err != nil {
		t.Fatal(err)
	}
	strange.Keys = append(strange.Keys, rootKeyed)
	twice := p.conf(t, next, "production", "alice", "alice")
	n := len(p.writes)
	for name, c := range map[string]struct {
		conf ReleaseConfig
		want string
	}{
		"one signature":             {p.conf(t, next, "production", "alice"), "publish.threshold"},
		"one holder twice":          {twice, "publish.threshold"},
		"a root key":                {strange, "publish.key"},
		"version with other digest": {p.conf(t, packed(t, "1.0.0", "x\ny\nz\n"), "production", "alice", "bob"), "release.exists"},
		"changed bundle":            {p.conf(t, changed, "production", "alice", "bob"), "blob.digest"},
		"no such channel":           {p.conf(t, next, "beta", "alice", "bob"), "channel.unknown"},
	} {
		_, err := p.publish(c.conf)
		if code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if len(p.writes) != n {
		t.Errorf("something was sent: %v", p.writes[n:])
	}
	var e *fleet.Error
	if _, err := p.publish(p.conf(t, next, "production", "alice")); !errors.As(err, &e) || !strings.HasPrefix(e.Next, "pass one more --key, of: bob, carol;") {
		t.Errorf("who could still sign: %v", e)
	}
}

// A replayed role is refused by the server, and nothing of the catalog changes.
func TestReplay(t *testing.T) {
	p := newPublisher(t)
	if _, err := p.publish(p.conf(t, packed(t, "1.0.0", labels), "dev", "alice")); err != nil {
		t.Fatal(err)
	}
	rows, err := p.catalog.Metadata(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rows, func(r fleet.MetaRow) bool { return r.Role == "dev" })
	old := rows[i].Bytes
	_, err = p.client.do(context.Background(), http.MethodPut, "/v1/catalog/roles/dev", &body{bytes.NewReader(old), int64(len(old)), "application/json"})
	wantCode(t, err, "catalog.stale")
	_, err = p.client.do(context.Background(), http.MethodPut, "/v1/catalog/roles/staging", &body{bytes.NewReader(old), int64(len(old)), "application/json"})
	wantCode(t, err, "catalog.refused")
}

// A server that was broken into must not get anything of its own signed.
func TestPublishDistrusts(t *testing.T) {
	p := newPublisher(t)
	other := newServer(t)
	dir := ceremony(t, onlineOf(other), "mallory", "trudy")
	signAll(t, dir, "mallory", "trudy")
	if err := other.client(t).Install(context.Background(), dir, day0); err != nil {
		t.Fatal(err)
	}
	foreign, err := other.catalog.Metadata(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	take := func(list []metaFile, roles ...string) []metaFile {
		for i := range list {
			j := slices.IndexFunc(foreign, func(r fleet.MetaRow) bool { return r.Role == list[i].Role })
			if slices.Contains(roles, list[i].Role) {
				list[i].Bytes = foreign[j].Bytes
			}
		}
		return list
	}
	dir = packed(t, "1.0.0", labels)
	for name, c := range map[string]struct {
		bend func([]metaFile) []metaFile
		want string
	}{
		"foreign role":    {func(l []metaFile) []metaFile { return take(l, "dev") }, "catalog.untrusted"},
		"foreign targets": {func(l []metaFile) []metaFile { return take(l, "dev", "targets") }, "catalog.untrusted"},
		"all foreign":     {func(l []metaFile) []metaFile { return take(l, "dev", "targets", "root") }, "catalog.untrusted"},
		"another channel's role": {func(l []metaFile) []metaFile {
			i := slices.IndexFunc(l, func(m metaFile) bool { return m.Role == "dev" })
			j := slices.IndexFunc(l, func(m metaFile) bool { return m.Role == "staging" })
			l[i].Bytes = l[j].Bytes
			return l
		}, "catalog.untrusted"},
		"injected target": {func(l []metaFile) []metaFile {
			i := slices.IndexFunc(l, func(m metaFile) bool { return m.Role == "dev" })
			l[i].Bytes = bytes.Replace(l[i].Bytes, []byte(`"targets": {}`), []byte(`"targets": {"dev/gate/9.9.9":{"length":1,"hashes":{"sha256":"00"}}}`), 1)
			return l
		}, "catalog.untrusted"},
		"nothing": {func([]metaFile) []metaFile { return nil }, "metadata.malformed"},
		"panicker": {func(l []metaFile) []metaFile {
			return []metaFile{{"catalog", "root", 1, []byte(`{"signed":{"_type":"root","roles":{"root":null}}}`), 0}}
		}, "metadata.malformed"},
	} {
		p.bend = c.bend
		n := len(p.writes)
		_, err := p.publish(p.conf(t, dir, "dev", "alice"))
		if code(err) != c.want || len(p.writes) != n {
			t.Errorf("%s: %v, want %s; sent %v", name, err, c.want, p.writes[n:])
		}
	}
}

func TestClient(t *testing.T) {
	s := newServer(t)
	for _, server := range []string{"", "http://127.0.0.1:1", "://", "host:8443"} {
		_, err := NewClient(ClientConfig{Server: server})
		wantCode(t, err, "server.address")
	}
	_, err := NewClient(ClientConfig{Server: s.http.URL, CA: filepath.Join(t.TempDir(), "none")})
	wantCode(t, err, "server.ca")
	stranger, err := NewClient(ClientConfig{Server: s.http.URL, Token: s.token}) // without its CA
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Online(context.Background())
	wantCode(t, err, "server.unreachable")
	got, err := s.client(t).Online(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(onlineOf(s), got); d != "" {
		t.Error(d)
	}
	_, err = s.client(t).do(context.Background(), http.MethodGet, "/v1/nothing", nil)
	wantCode(t, err, "route.unknown")
	nobody, err := NewClient(ClientConfig{Server: s.http.URL, CA: s.ca})
	if err != nil {
		t.Fatal(err)
	}
	_, err = nobody.Online(context.Background())
	wantCode(t, err, "auth.missing")
}
