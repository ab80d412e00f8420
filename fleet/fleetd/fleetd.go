// Package fleetd wires the server together: database, blobs, broker, catalog,
// director, rollouts, telemetry and API in one process. Reading Run is reading
// the server. It can be imported, for tests and laboratories.
package fleetd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/broker"
	"github.com/dunlin-edge/dunlin/fleet/capture"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/drift"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/evidence"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/fleet/truth"
	"github.com/dunlin-edge/dunlin/fleet/web"
)

// Addresses are where a server really listens.
type Addresses struct {
	API  string `json:"api"`
	MQTT string `json:"mqtt"`
	PID  int    `json:"pid"`
}

// server is everything that runs.
type server struct {
	c      Config
	log    *slog.Logger
	keys   *keys                  // as the server was started with
	online atomic.Pointer[online] // that sign now
	db     *sqlite.DB

	blobs     *blob.Dir
	captured  *blob.Dir // apart: it is erased, and in no backup
	captures  *capture.Service
	catalog   *catalog.Service
	director  *director.Service
	enrol     *enroll.Service
	telemetry *telemetry.Ingest
	rollouts  *rollout.Service
	loop      *rollout.Loop
	evidence  *evidence.Service
	broker    *broker.Broker
	hub       *hub
	told      chan struct{} // the outbox has something
	alarms    *alarm.Board
	ahead     ahead
	faces     faces
}

// Run serves until ctx ends. Ready is called once both addresses are open.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(Addresses) error) error {
	s := &server{c: c, log: log, hub: newHub(), told: make(chan struct{}, 1)}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() {
		if err := s.db.Close(); err != nil {
			log.Error("close database", "err", err)
		}
	}()
	api, err := net.Listen("tcp", c.API)
	if err != nil {
		return fleet.ErrServerAddress.With("listen for the API: %v", err)
	}
	defer api.Close()
	if err := s.startBroker(); err != nil {
		return err
	}
	if err := s.listens(port(api.Addr().String()), port(s.broker.Addr())); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.broker.Run(ctx) })
	g.Go(func() error { return s.loop.Run(ctx) })
	g.Go(func() error { return s.tell(ctx) })
	g.Go(func() error { return s.upkeep().Run(ctx) })
	g.Go(func() error { return s.serveAPI(ctx, api) })
	g.Go(func() error { return s.watchFace(ctx) })
	g.Go(func() error { return s.captures.Run(ctx) })
	g.Go(func() error {
		log.Info("serving", "api", api.Addr().String(), "mqtt", s.broker.Addr(), "version", fleet.Version)
		return ready(Addresses{API: loopback(api.Addr().String()), MQTT: loopback(s.broker.Addr()), PID: os.Getpid()})
	})
	err = g.Wait()
	log.Info("stopped", "err", err)
	return err
}

func port(addr string) string {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return p
}

// loopback is how this machine reaches an address that is open to all.
func loopback(addr string) string {
	host, p, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", p)
	}
	return addr
}

// open builds the services over what the directory holds.
func (s *server) open(ctx context.Context) error {
	var err error
	if s.keys, err = loadKeys(s.c.Dir, s.c.names(), time.Now()); err != nil {
		return err
	}
	if s.blobs, err = blob.Open(filepath.Join(s.c.Dir, "blobs")); err != nil {
		return err
	}
	if s.captured, err = blob.Open(filepath.Join(s.c.Dir, "captured")); err != nil {
		return err
	}
	if s.db, err = sqlite.Open(ctx, filepath.Join(s.c.Dir, databaseFile)); err != nil {
		return err
	}
	// Whoever was online before is told so again by the broker.
	if err := s.db.SetOnlineExactly(ctx, nil); err != nil {
		return errors.Join(err, s.db.Close())
	}
	vouching, err := s.c.vouching()
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.alarms = &alarm.Board{Store: s.db, Now: time.Now, Log: s.log}
	s.catalog = &catalog.Service{Store: s.db, Blobs: s.blobs, Keys: s.keys.catalog, Director: publicOf(s.keys.director), Vouch: vouching.Vouch, Next: s.nextKeys, Took: s.tookKeys, Now: time.Now, Log: s.log}
	if err := s.settleKeys(ctx); err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.online.Store(&online{s.keys.catalog, s.keys.director})
	if err := s.online.Load().signsFor(ctx, s.db); err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.director = &director.Service{Store: s.db, Key: s.keys.director, Now: time.Now, Changed: func(string) { s.wakeTell() }}
	s.enrol = &enroll.Service{Standing: s.standing, Store: s.db, Life: s.c.DeviceLife, Ended: s.ended, Copied: s.copied, Now: time.Now}
	s.evidence = &evidence.Service{Store: s.db}
	s.loop = rollout.NewLoop(rollout.Loop{Store: s.db, Assigner: s.director, Gates: s.evidence, Release: s.db.Release, Holder: fleet.NewID("srv_", time.Now()), Now: time.Now, Log: s.log, Changed: s.hub.changed})
	s.rollouts = &rollout.Service{Store: s.db, Now: time.Now, Wake: s.loop.Wake}
	s.captures = &capture.Service{Store: s.db, Blobs: s.captured, Sign: s.enrol.SignCaptures, Poke: func(devices []string) { s.broker.Poke(devices) }, Now: time.Now, Log: s.log}
	s.telemetry = &telemetry.Ingest{Store: s.db, Captures: s.captures, Newer: s.newer, Told: s.hello, Came: s.cameNext, Tell: s.enrol.Tell, Copied: s.copied, Sampled: s.evidence.Add, Wake: s.loop.Wake, Heartbeat: time.Duration(s.c.Heartbeat), IdleWindow: s.c.Windows.Idle, RolloutWindow: s.c.Windows.Rollout, Now: time.Now, Log: s.log}
	return nil
}

// admitTimeout bounds the look-up of a certificate at a handshake.
const admitTimeout = 5 * time.Second

func (s *server) startBroker() error {
	// The broker takes long to notice that its port is taken; this asks first.
	probe, err := net.Listen("tcp", s.c.MQTT)
	if err != nil {
		return fleet.ErrServerAddress.With("listen for MQTT: %v", err)
	}
	probe.Close()
	scratch := filepath.Join(s.c.Dir, "broker")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	s.broker, err = broker.Start(broker.Config{
		Addr: s.c.MQTT, Dir: scratch, Cert: s.keys.server, TLS: s.tls,
		Admit: func(c *x509.Certificate) error {
			ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
			defer cancel()
			return s.enrol.Admit(ctx, c)
		},
		Came: func(c *x509.Certificate) error {
			ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
			defer cancel()
			return s.came(ctx, c)
		},
		Session: func(device, host string) {
			ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
			defer cancel()
			s.telemetry.Session(ctx, device, host)
		},
		Devices: s.telemetry, Metadata: s, Blobs: s, Log: s.log,
	})
	if err != nil {
		return fleet.ErrServerAddress.With("listen for MQTT: %v", err)
	}
	return nil
}

// cameNext takes in that a device holds a key. Sessions of the key before end.
func (s *server) cameNext(ctx context.Context, device string, spki []byte) error {
	replaced, err := s.enrol.Came(ctx, device, spki)
	if replaced {
		s.log.Info("identity renewed", "device", device, "sessions_ended", s.broker.Kick(device))
	}
	return err
}

// graceTime is what requests get to end in when the server stops.
const graceTime = 3 * time.Second

func (s *server) serveAPI(ctx context.Context, l net.Listener) error {
	h := web.New(web.Config{
		Store: s.db, Rollouts: watched{s.rollouts, s.hub}, Enrolment: s.enrol, Retire: s.director.Retire, Catalog: catalog.JSON{Service: s.catalog}, Blobs: s.blobs, Lockboxes: s.lockboxes(), Alarms: s.alarms, Captures: s.captures, Truth: &truth.Service{Store: s.db, Now: time.Now},
		Drift:      &drift.Service{Store: s.db, Blobs: s.blobs, Now: time.Now},
		OnlineKeys: s.onlineJSON, CA: func() []byte { return enroll.Certs(s.standing().CAs) }, Waiting: rollout.Waiting, Reading: rollout.Reading, Why: (&rollout.Asker{Store: s.db, Now: time.Now}).Why,
		Revoked: s.ended, Watch: s.hub.watch, Now: time.Now, Version: fleet.Version, Log: s.log,
	})
	var handlers sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			h.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig:   &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { cert, _ := s.tls(); return cert, nil }},
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
	defer cancel()
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) { // somebody is slow; their connections are cut
		err = srv.Close()
	}
	handlers.Wait() // the database is closed after this
	if serveErr := <-done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
