package fleetd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// running is a server in this process.
type running struct {
	t      *testing.T
	at     Addresses
	token  string
	client *http.Client
	stop   context.CancelFunc
	done   chan error
}

func newDir(t *testing.T) (dir, token string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "fleet")
	token, err := Init(t.Context(), dir, "localhost", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return dir, token
}

// start serves a directory on free ports until the test ends or stops it.
func start(t *testing.T, dir, token string) *running {
	t.Helper()
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.API, c.MQTT = "127.0.0.1:0", "127.0.0.1:0"
	ca, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: t, token: token, stop: stop, done: make(chan error, 1), client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}}
	ready := make(chan Addresses, 1)
	go func() {
		r.done <- Run(ctx, c, slog.New(slog.DiscardHandler), func(a Addresses) error { ready <- a; return nil })
	}()
	select {
	case r.at = <-ready:
	case err := <-r.done:
		t.Fatalf("the server ended: %v", err)
	}
	return r
}

// end stops the server and returns how long that took.
func (r *running) end() time.Duration {
	r.t.Helper()
	began := time.Now()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("the server ended: %v", err)
	}
	r.client.CloseIdleConnections()
	return time.Since(began)
}

func (r *running) get(path, token string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://"+r.at.API+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

func (r *running) status(path, token string) int {
	r.t.Helper()
	resp := r.get(path, token)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}

// TestServe starts a server, asks it, ends it and starts it again.
func TestServe(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir, token := newDir(t)
	for range 2 {
		r := start(t, dir, token)
		for _, c := range []struct {
			path, token string
			want        int
		}{
			{"/healthz", "", 200}, {"/openapi.json", "", 200}, {"/v1/ca", "", 200},
			{"/v1/devices", token, 200}, {"/v1/keys/online", token, 200}, {"/v1/catalog/metadata", token, 409},
			{"/v1/devices", "", 401}, {"/v1/devices", token[:len(token)-1], 401},
		} {
			if got := r.status(c.path, c.token); got != c.want {
				t.Errorf("GET %s: %d, want %d", c.path, got, c.want)
			}
		}
		if d := r.end(); d > 4*time.Second {
			t.Errorf("the server took %v to end", d)
		}
	}
}

// TestWatchersDoNotHoldTheServer ends a server while somebody watches a rollout
// that waits for ever.
func TestWatchersDoNotHoldTheServer(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir, token := newDir(t)
	id := waitingRollout(t, dir)
	r := start(t, dir, token)
	resp := r.get("/v1/rollouts/"+id+"/watch", token)
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "event:") {
		t.Fatalf("%q, %v", line, err)
	}
	if d := r.end(); d > 4*time.Second {
		t.Errorf("the server took %v to end", d)
	}
}

// TestStalledUploadsDoNotHoldTheServer ends a server while somebody uploads and
// sends nothing more: the end is clean and leaves nobody behind.
func TestStalledUploadsDoNotHoldTheServer(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir, token := newDir(t)
	r := start(t, dir, token)
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+r.at.API+"/v1/blobs/"+bundle.DigestOf([]byte("never whole")), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	sent := make(chan error, 1)
	go func() {
		resp, err := r.client.Do(req)
		if err == nil {
			resp.Body.Close()
			err = errors.New(resp.Status)
		}
		sent <- err
	}()
	if _, err := send.Write([]byte("never")); err != nil { // returns when the client has taken it
		t.Fatal(err)
	}
	if got := r.status("/healthz", ""); got != 200 {
		t.Errorf("health beside an upload: %d", got)
	}
	if d := r.end(); d > graceTime+4*time.Second {
		t.Errorf("the server took %v to end", d)
	}
	send.Close()
	t.Logf("the upload ended with: %v", <-sent)
	r.client.CloseIdleConnections()
}

// TestAddressTaken wants a server that cannot listen to say so at once.
func TestAddressTaken(t *testing.T) {
	dir, _ := newDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for about, set := range map[string]func(*Config){
		"API":            func(c *Config) { c.API = taken.Addr().String() },
		"MQTT":           func(c *Config) { c.MQTT = taken.Addr().String() },
		"no API address": func(c *Config) { c.API = "nowhere" },
		"no MQTT":        func(c *Config) { c.MQTT = "nowhere" },
	} {
		c, err := LoadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		c.API, c.MQTT = "127.0.0.1:0", "127.0.0.1:0"
		set(&c)
		began := time.Now()
		err = Run(t.Context(), c, slog.New(slog.DiscardHandler), func(Addresses) error { t.Errorf("%s: serves", about); return nil })
		if !errors.Is(err, fleet.ErrServerAddress) {
			t.Errorf("%s: %v", about, err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s: noticed after %v", about, d)
		}
	}
}

// waitingRollout makes a paused rollout to one device that never comes.
func waitingRollout(t *testing.T, dir string) string {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Now()
	rel := fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, now), Channel: "dev", Digest: bundle.DigestOf(nil), Length: 1, Published: now, Release: bundle.Release{Kind: bundle.KindModel, Model: "reader", Version: "1.0.0", Counter: 1}}
	r, members := rollout.New(fleet.Spec{Model: "reader", Version: "1.0.0", Channel: "dev"}, []*fleet.Device{{ID: "meter-1"}}, "test", now)
	tok := &fleet.EnrolToken{ID: fleet.NewID(fleet.PrefixToken, now), Channel: "dev", Max: 1, Expires: now.Add(time.Hour), Created: now}
	err = errors.Join(
		db.PutMetadata(t.Context(), nil, nil, []fleet.Release{rel}, fleet.Audit{}),
		db.CreateEnrolToken(t.Context(), tok, fleet.Audit{}),
	)
	if err == nil {
		_, _, err = db.Enrol(t.Context(), tok.ID, tok.Hash, &fleet.Device{ID: "meter-1", Status: fleet.DeviceActive, Channel: "dev", PublicKey: []byte("key"), Enrolled: now}, []byte("cert"), now)
	}
	if err == nil {
		err = db.CreateRollout(t.Context(), r, members, fleet.Audit{})
	}
	if err == nil {
		err = db.SetRolloutStatus(t.Context(), r.ID, []string{fleet.RolloutRunning}, fleet.RolloutPaused, "", fleet.Audit{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// TestInitRefuses wants a server to be made once, and its secrets to be its own.
func TestInitRefuses(t *testing.T) {
	dir, token := newDir(t)
	if _, err := Init(t.Context(), dir, "localhost", time.Now()); !errors.Is(err, fleet.ErrServerExists) {
		t.Errorf("a second init: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), token) {
			t.Errorf("%s holds the admin token", e.Name())
		}
		if strings.Contains(e.Name(), "key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", e.Name(), info.Mode())
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	if _, err := LoadConfig(t.TempDir()); !errors.Is(err, fleet.ErrServerAbsent) {
		t.Errorf("an empty directory: %v", err)
	}
	for name, text := range map[string]string{
		"unknown key": "name: a\nport: 1\n", "no name": "api: :1\n", "heartbeat": "name: a\nheartbeat: 1ms\n", "level": "name: a\nlog: loud\n", "no YAML": "{", "twice": "name: a\nname: b\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); !errors.Is(err, fleet.ErrServerConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeysRefuse wants a server with a missing or foreign key not to start.
func TestKeysRefuse(t *testing.T) {
	for _, file := range []string{caFile, caKeyFile, serverFile, serverKeyFile, onlineFile} {
		dir, _ := newDir(t)
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		c.API, c.MQTT = "127.0.0.1:0", "127.0.0.1:0"
		err = Run(t.Context(), c, slog.New(slog.DiscardHandler), func(Addresses) error { t.Errorf("serves without %s", file); return nil })
		if !errors.Is(err, fleet.ErrServerKeys) {
			t.Errorf("without %s: %v", file, err)
		}
	}
}
