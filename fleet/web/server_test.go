package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/capture"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/drift"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/fleet/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var day0 = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// everyRole is each role that a token can have.
var everyRole = []string{fleet.RoleViewer, fleet.RoleOperator, fleet.RolePublisher, fleet.RoleAdmin}

// server is the API over the real services, database and blobs. Nothing carries
// rollouts out and no broker runs.
type server struct {
	t       testing.TB
	db      *sqlite.DB
	http    *httptest.Server
	config  Config
	handler http.Handler
	ca      string
	tokens  map[string]string // by role
	changed chan struct{}     // each value wakes a watch

	mu      sync.Mutex
	revoked []string
}

type lockboxes struct {
	*lockbox.Service
	*telemetry.Ingest
}

// roots are the online keys of every test's server and the ceremony made for
// them: encrypting its keys takes a while, so that is done once.
type roots struct {
	keys     catalog.Keys
	director ed25519.PrivateKey
	dir      string // of the ceremony
}

var shared roots

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ceremony")
	if err == nil {
		shared, err = newRoots(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newRoots(dir string) (roots, error) {
	r := roots{dir: dir}
	for _, k := range []*ed25519.PrivateKey{&r.keys.Snapshot, &r.keys.Timestamp, &r.director} {
		var err error
		if _, *k, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return r, err
		}
	}
	pass := func(bool) ([]byte, error) { return []byte("a passphrase of a test"), nil }
	online := &publish.Online{Snapshot: half(r.keys.Snapshot), Timestamp: half(r.keys.Timestamp), Director: half(r.director)}
	join := publish.JoinConfig{Dir: dir, Holder: "eve", Holders: 1, Practice: true, Online: func() (*publish.Online, error) { return online, nil }, Passphrase: pass}
	if _, err := publish.Join(join, day0); err != nil {
		return r, err
	}
	_, err := publish.Sign(dir, "eve", pass)
	return r, err
}

// half is the public half of a key.
func half(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// newServer serves a fleet without roots, devices or releases.
func newServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	captured, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.NewCA("test", day0)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, db: db, tokens: map[string]string{}, changed: make(chan struct{}, 1)}
	var clock atomic.Int64 // every look at it is a millisecond later, so acts have an order
	now := func() time.Time { return day0.Add(time.Duration(clock.Add(1)) * time.Millisecond) }
	log := slog.New(slog.DiscardHandler)
	online, err := json.Marshal(map[string][]byte{
		"catalog_snapshot": half(shared.keys.Snapshot), "catalog_timestamp": half(shared.keys.Timestamp), "director": half(shared.director),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.config = Config{
		Store:    db,
		Rollouts: &rollout.Service{Store: db, Now: now, Wake: func() {}},
		Enrolment: &enroll.Service{Standing: func() *enroll.Standing {
			return &enroll.Standing{CAs: []*enroll.CA{ca}, Addresses: []wire.Address{{Server: "https://fleet.test:8443", MQTT: "fleet.test:8883"}}}
		}, Store: db, Now: now},
		Catalog: catalog.JSON{Service: &catalog.Service{Store: db, Blobs: blobs, Keys: shared.keys, Director: half(shared.director), Now: now, Log: log}},
		Blobs:   blobs,
		Lockboxes: lockboxes{
			&lockbox.Service{Store: db, Director: &director.Service{Store: db, Key: shared.director, Now: now}, Blobs: blobs, Now: now,
				Catalog: func(context.Context, string) ([]fleet.MetaRow, error) {
					return db.AllMetadata(t.Context(), catalog.Repo, "")
				}},
			&telemetry.Ingest{Store: db, Wake: func() {}, Now: now, Log: log},
		},
		Alarms:     &alarm.Board{Store: db, Now: now, Log: log},
		Drift:      &drift.Service{Store: db, Blobs: blobs, Now: now},
		Truth:      &truth.Service{Store: db, Now: now},
		Captures:   &capture.Service{Store: db, Blobs: captured, Poke: func([]string) {}, Now: now, Log: log},
		OnlineKeys: func() []byte { return online }, CA: ca.Cert,
		Waiting: func(*fleet.Rollout, []fleet.Tally, time.Time) string { return "" },
		Why: func(_ context.Context, device, model string) ([]fleet.Why, error) {
			return []fleet.Why{{Device: device, Model: model}}, nil
		},
		Reading: func(x fleet.GateEvaluation) (fleet.GateReading, error) {
			return fleet.GateReading{Gate: x.Gate, Stage: x.Stage, At: x.At, Verdict: x.Verdict}, nil
		},
		Retire: func(ctx context.Context, device string, a fleet.Audit) error {
			return (&director.Service{Store: db, Key: shared.director, Now: now}).Retire(ctx, device, a)
		},
		Revoked: func(device string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.revoked = append(s.revoked, device)
		},
		Watch: func(string) (<-chan struct{}, func()) { return s.changed, func() {} },
		Now:   now, Version: "test", Log: log,
	}
	s.handler = New(s.config)
	s.http = httptest.NewTLSServer(s.handler)
	t.Cleanup(s.http.Close)
	s.ca = filepath.Join(dir, "http-ca.pem")
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, role := range everyRole {
		s.tokens[role] = s.access(role, 0)
	}
	return s
}

func (s *server) access(role string, life time.Duration) string {
	s.t.Helper()
	x, text := fleet.NewAccess("test "+role, role, life, day0)
	if err := s.db.CreateAccess(s.t.Context(), x, fleet.Audit{}); err != nil {
		s.t.Fatal(err)
	}
	return text
}

// ceremony gives the server its roots.
func (s *server) ceremony() {
	s.t.Helper()
	c, err := publish.NewClient(publish.ClientConfig{Server: s.http.URL, Token: s.tokens[fleet.RolePublisher], CA: s.ca})
	if err != nil {
		s.t.Fatal(err)
	}
	if online, err := c.Online(s.t.Context()); err != nil || !online.Director.Equal(half(shared.director)) {
		s.t.Fatalf("online keys %v, %v", online, err)
	}
	if err := c.Install(s.t.Context(), shared.dir, day0); err != nil {
		s.t.Fatal(err)
	}
}

// release puts a release into the catalog's index, as a publication would.
func (s *server) release(model, version string, counter int64) {
	s.t.Helper()
	r := fleet.Release{
		ID: fleet.NewID(fleet.PrefixRelease, day0), Channel: "dev", Digest: bundle.DigestOf([]byte(model + version)), Length: 10, Published: day0,
		Release: bundle.Release{Kind: bundle.KindModel, Model: model, Version: version, Counter: counter},
	}
	if err := s.db.PutMetadata(s.t.Context(), nil, nil, []fleet.Release{r}, fleet.Audit{}); err != nil {
		s.t.Fatal(err)
	}
}

// enrol makes a device by way of the API and returns what it sent.
func (s *server) enrol(name string, labels map[string]string) wire.EnrolRequest {
	s.t.Helper()
	var made TokenView
	s.ask(fleet.RoleOperator, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev", "labels": labels}).ok(&made)
	req := enrolRequest(s.t, made.Token, name)
	s.ask("", "POST", "/v1/enrol", req).ok(nil)
	return req
}

// enrolRequest is what a device with a fresh key sends.
func enrolRequest(t testing.TB, text, name string) wire.EnrolRequest {
	t.Helper()
	token, err := wire.ParseEnrolToken(text)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.EnrolRequest{Secret: token.Secret, Device: name, Facts: map[string]string{"arch": "amd64", "class": "amd64-test"}}
	resign(t, &q, token.ID)
	return q
}

// resign makes a request one for this token, under a fresh key.
func resign(t testing.TB, q *wire.EnrolRequest, token string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if q.PublicKey, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(wire.EnrolProof(token, q.PublicKey))
	if q.Signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		t.Fatal(err)
	}
	q.Token = token
}

// answer is what the API answered to one request.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   []byte
}

// ask sends a request with the token of a role; none for "". A body that is not
// bytes is sent as JSON.
func (s *server) ask(role, method, path string, body any) *answer {
	s.t.Helper()
	header := http.Header{}
	if role != "" {
		header.Set("Authorization", "Bearer "+s.tokens[role])
	}
	return s.send(method, path, body, header)
}

func (s *server) send(method, path string, body any, header http.Header) *answer {
	s.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case string:
		r = bytes.NewReader([]byte(b))
	default:
		text, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.http.URL+path, r)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header = header
	if r != nil && header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return &answer{s.t, method + " " + path, resp.StatusCode, resp.Header, b}
}

// ok wants success and reads the answer into v, if any.
func (a *answer) ok(v any) {
	a.t.Helper()
	if a.status/100 != 2 {
		a.t.Fatalf("%s: %d %s", a.what, a.status, a.body)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v: %s", a.what, err, a.body)
	}
}

// refused wants a problem of RFC 9457 with this code, a sentence and a next step.
func (a *answer) refused(status int, code string) {
	a.t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		a.t.Fatalf("%s: %d, no problem: %s", a.what, a.status, a.body)
	}
	if a.status != status || p.Code != code || p.Status != status {
		a.t.Errorf("%s: %d %s (%s), want %d %s", a.what, a.status, p.Code, p.Detail, status, code)
	}
	if p.Detail == "" || p.Next == "" || a.header.Get("Content-Type") != problemType {
		a.t.Errorf("%s: detail %q, next %q, type %q", a.what, p.Detail, p.Next, a.header.Get("Content-Type"))
	}
}

// acts lists the acts of the audit, the oldest first.
func (s *server) acts() []string {
	s.t.Helper()
	as, err := s.db.Audit(s.t.Context(), "", "", 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, a := range slices.Backward(as) {
		out = append(out, a.Act+" "+a.Object)
	}
	return out
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
