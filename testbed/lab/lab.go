// Package lab runs a whole server and devices in one process: the server as
// dunlin-fleet serves it, on free ports, and of each device what talks to it,
// identity, queues, trust and link. Between them stands a proxy that cuts
// connections where a test wants it. It is the only package besides the rest of
// testbed that sees both ends.
package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/fleetd"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Channel of everything that is published here.
const Channel = "dev"

// Patience is how long a test waits for what must come.
const Patience = 30 * time.Second

// name is the host name in the server's certificate.
const name = "localhost"

// Server is a running server with practice keys.
type Server struct {
	Dir  string
	MQTT string // host:port
	// DB is a connection of its own to the server's database: what is stored.
	DB  *sqlite.DB
	Log *Log

	t        testing.TB
	token    string // of the admin
	stop     func()
	blobs    *blob.Dir
	client   *publish.Client
	pub      *catalogtest.Publishers
	counters map[string]int64 // by model
}

// Start makes a server and runs it until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{Dir: filepath.Join(t.TempDir(), "fleet"), t: t, counters: map[string]int64{}}
	var err error
	s.token, err = fleetd.Init(t.Context(), s.Dir, name, time.Now())
	s.must(err)
	s.serve()
	s.install()
	return s
}

// Again runs what a restore has made of s in another directory, until the test
// ends.
func (s *Server) Again(dir string) *Server {
	s.t.Helper()
	n := &Server{Dir: dir, t: s.t, token: s.token, pub: s.pub, counters: s.counters}
	n.serve()
	// Publishers go on from what this server has.
	var list struct {
		Items []struct {
			Role           string `json:"role"`
			Version, Floor int64
			Bytes          []byte `json:"bytes"`
		} `json:"items"`
	}
	n.Do(http.MethodGet, "/v1/catalog/metadata", nil, &list)
	for _, x := range list.Items {
		if x.Role == Channel {
			md, err := metadata.Targets().FromBytes(x.Bytes)
			n.must(err)
			md.Signed.Version = max(x.Version, x.Floor)
			n.pub.Published(Channel, md)
		}
	}
	return n
}

// Stop ends the server.
func (s *Server) Stop() { s.stop() }

// serve runs the server of s.Dir.
func (s *Server) serve() {
	t := s.t
	t.Helper()
	s.Log = &Log{}
	c, err := fleetd.LoadConfig(s.Dir)
	s.must(err)
	c.API, c.MQTT = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan fleetd.Addresses, 1), make(chan error, 1)
	go func() {
		done <- fleetd.Run(ctx, c, slog.New(slog.NewJSONHandler(s.Log, nil)), func(a fleetd.Addresses) error { ready <- a; return nil })
	}()
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the server ended: %v", err)
		}
	})
	t.Cleanup(s.stop)
	var at fleetd.Addresses
	select {
	case at = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the server ended: %v", err)
	}
	s.MQTT = at.MQTT
	s.DB, err = sqlite.Open(t.Context(), filepath.Join(s.Dir, "fleet.db"))
	s.must(err)
	t.Cleanup(func() { s.DB.Close() })
	s.blobs, err = blob.Open(filepath.Join(s.Dir, "blobs"))
	s.must(err)
	_, port, err := net.SplitHostPort(at.API)
	s.must(err)
	s.client, err = publish.NewClient(publish.ClientConfig{Server: "https://" + net.JoinHostPort(name, port), Token: s.token, CA: filepath.Join(s.Dir, "ca.pem")})
	s.must(err)
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// install holds a ceremony of one, with the keys that the server signs with.
func (s *Server) install() {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, "online-keys.json"))
	s.must(err)
	var seeds struct {
		Snapshot  []byte `json:"catalog_snapshot"`
		Timestamp []byte `json:"catalog_timestamp"`
		Director  []byte `json:"director"`
	}
	s.must(json.Unmarshal(b, &seeds))
	key := ed25519.NewKeyFromSeed
	online := catalogtest.Online{Keys: catalog.Keys{Snapshot: key(seeds.Snapshot), Timestamp: key(seeds.Timestamp)}, Director: key(seeds.Director)}
	s.pub = catalogtest.New(s.t, 1, 1, online, time.Now().UTC().Truncate(time.Second))
	s.Do(http.MethodPost, "/v1/catalog/roots", s.pub.Ceremony(), nil)
}

// Do asks the API and wants it to be granted; in and out are JSON or nil.
func (s *Server) Do(method, path string, in, out any) {
	s.t.Helper()
	var body []byte
	if in != nil {
		var err error
		body, err = json.Marshal(in)
		s.must(err)
	}
	b, err := s.client.Do(s.t.Context(), method, path, body)
	s.must(err)
	if out != nil {
		s.must(json.Unmarshal(b, out))
	}
}

// Publish uploads bundles and publishes them.
func (s *Server) Publish(bundles ...*catalogtest.Bundle) {
	s.t.Helper()
	add := map[*catalogtest.Bundle]int64{}
	for _, b := range bundles {
		b.Put(s.t, s.blobs)
		s.counters[b.Contract.Model]++
		add[b] = s.counters[b.Contract.Model]
	}
	md := s.pub.Next(Channel, add)
	_, err := s.client.Do(s.t.Context(), http.MethodPut, "/v1/catalog/roles/"+Channel, s.pub.SignRole(md))
	s.must(err)
	s.pub.Published(Channel, md)
}

// Assign wishes a bundle of every device of a selector.
func (s *Server) Assign(b *catalogtest.Bundle, selector string) {
	s.t.Helper()
	s.AssignRollout(b, selector)
}

// AssignRollout is Assign and returns the rollout's id.
func (s *Server) AssignRollout(b *catalogtest.Bundle, selector string) string {
	s.t.Helper()
	none := 0
	var out struct {
		ID string `json:"id"`
	}
	s.Do(http.MethodPost, "/v1/rollouts", fleet.Spec{
		Model: b.Contract.Model, Version: b.Contract.Version, Channel: Channel, Selector: selector, Stages: []fleet.StageSpec{{Percent: 100}}, Control: &none, Bake: fleet.Duration(time.Millisecond),
	}, &out)
	return out.ID
}

// Token makes an enrolment token for one device.
func (s *Server) Token() *wire.EnrolToken {
	s.t.Helper()
	return s.tokenOf("/v1/enrol-tokens", map[string]any{"channel": Channel})
}

func (s *Server) tokenOf(path string, in any) *wire.EnrolToken {
	s.t.Helper()
	var out struct {
		Token string `json:"token"`
	}
	s.Do(http.MethodPost, path, in, &out)
	tok, err := wire.ParseEnrolToken(out.Token)
	s.must(err)
	return tok
}

// Log keeps what the server logs.
type Log struct {
	mu    sync.Mutex
	lines []map[string]any
}

// Write implements io.Writer: one call for each line.
func (l *Log) Write(b []byte) (int, error) {
	var line map[string]any
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(b), nil
}

// Count counts lines with these attributes, "msg" among them.
func (l *Log) Count(want map[string]string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
next:
	for _, line := range l.lines {
		for k, v := range want {
			if line[k] != v {
				continue next
			}
		}
		n++
	}
	return n
}

// Until polls what has no event of its own.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s does not happen", what)
		}
	}
}
