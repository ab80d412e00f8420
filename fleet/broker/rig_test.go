package broker

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// call is a message that reached the application.
type call struct {
	device string
	kind   wire.Kind
	online bool // of presence
}

// fleetSim is a small application behind the broker: it answers and writes down
// what reached it.
type fleetSim struct {
	mu       sync.Mutex
	revoked  map[string]bool
	expelled map[string]bool // admitted, and revoked before the session was there
	calls    []call
	arrived  chan call
	blobs    map[[32]byte][]byte
	may      map[string]bool // devices that may read blobs
	files    []wire.MetaFile
	fails    error
	onHello  func()
	outdated *big.Int // certificate that is refused when it is looked at after the session was let in
	looks    int      // at it
}

func (s *fleetSim) note(c call) {
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	select {
	case s.arrived <- c:
	default:
	}
}

// fail makes every intake and refresh from now on fail, or not.
func (s *fleetSim) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

func (s *fleetSim) failing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails
}

func (s *fleetSim) Hello(_ context.Context, device string, h *wire.Hello) (*wire.Welcome, error) {
	s.note(call{device: device, kind: wire.KindHello})
	s.mu.Lock()
	f := s.onHello
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return &wire.Welcome{Protocol: 1, Generation: h.Generation, Nonce: make([]byte, 16), Window: 60, Heartbeat: 60}, nil
}

func (s *fleetSim) Records(_ context.Context, device string, k wire.Kind, b *wire.Batch) (wire.Ack, error) {
	err := s.failing()
	s.note(call{device: device, kind: k})
	last := b.Records[len(b.Records)-1]
	return wire.Ack{Kind: k, Epoch: last.Epoch, Sequence: last.Sequence}, err
}

func (s *fleetSim) Presence(_ context.Context, device string, online bool) error {
	s.note(call{device: device, kind: wire.KindPresence, online: online})
	if s.mu.Lock(); online && s.expelled[device] {
		defer s.mu.Unlock()
		return fleet.ErrDeviceRevoked
	}
	s.mu.Unlock()
	return nil
}

func (s *fleetSim) Refresh(_ context.Context, device string, _ *wire.Held) ([]wire.MetaFile, error) {
	err := s.failing()
	s.note(call{device: device, kind: wire.KindGet})
	return s.files, err
}

type memBlob struct{ *bytes.Reader }

func (memBlob) Close() error { return nil }

func (s *fleetSim) OpenBlob(_ context.Context, device string, digest [32]byte) (Blob, error) {
	s.note(call{device: device, kind: wire.KindGet})
	b, ok := s.blobs[digest]
	switch {
	case !ok:
		return nil, fleet.ErrBlobUnknown
	case !s.may[device]:
		return nil, fleet.ErrBlobNotAssigned
	}
	return memBlob{bytes.NewReader(b)}, nil
}

func (s *fleetSim) admit(c *x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outdated != nil && s.outdated.Cmp(c.SerialNumber) == 0 {
		if s.looks++; s.looks > 2 {
			return fleet.ErrDeviceRevoked
		}
	}
	if s.revoked[c.Subject.CommonName] {
		return fleet.ErrDeviceRevoked
	}
	return nil
}

// of returns what reached the application besides presence.
func (s *fleetSim) of(device string) (kinds []wire.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.device == device && c.kind != wire.KindPresence {
			kinds = append(kinds, c.kind)
		}
	}
	return kinds
}

// await waits for a call.
func (s *fleetSim) await(t *testing.T, want call) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case c := <-s.arrived:
			if c == want {
				return
			}
		case <-timeout:
			t.Fatalf("%+v did not come", want)
		}
	}
}

// rig is a running broker with its CA and application.
type rig struct {
	*Broker
	sim  *fleetSim
	ca   *enroll.CA
	dir  string
	stop func()

	mu      sync.Mutex
	foreign []string // subjects that passed the broker and are nobody's own
}

// start runs a broker until the test ends.
func start(t *testing.T) *rig {
	t.Helper()
	ca, err := enroll.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Server([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	sim := &fleetSim{revoked: map[string]bool{}, expelled: map[string]bool{}, arrived: make(chan call, 10_000), blobs: map[[32]byte][]byte{}, may: map[string]bool{}}
	r := &rig{sim: sim, ca: ca, dir: t.TempDir()}
	r.Broker, err = Start(Config{
		Addr: "127.0.0.1:0", Dir: r.dir, Cert: cert, CAs: ca.Pool(), Admit: sim.admit,
		Devices: sim, Metadata: sim, Blobs: sim, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	waitFor(t, r.open.Load)
	return r
}

// tls is the client side of a device whose certificate names cn.
func (r *rig) tls(t *testing.T, ca *enroll.CA, cn string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, _, err := ca.Device(cn, &key.PublicKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(certPEM)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.ca.Pool(), Certificates: []tls.Certificate{{Certificate: [][]byte{der.Bytes}, PrivateKey: key}}}
}

// device connects one with a certificate of its own.
func (r *rig) device(t *testing.T, id string) *raw {
	t.Helper()
	c, err := dialRaw(r.Addr(), r.tls(t, r.ca, id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if code, err := c.connect(connectOpts{id: id}); err != nil || code != 0 {
		t.Fatalf("connect %s: code %d, %v", id, code, err)
	}
	return c
}

// listen writes down every subject that passes the broker and does not begin
// with one of the given.
func (r *rig) listen(t *testing.T, own ...string) {
	t.Helper()
	nc, err := r.dial("probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	own = append(own, "$JS.", "$MQTT.", "_INBOX.")
	_, err = nc.Subscribe(">", func(m *nats.Msg) {
		for _, o := range own {
			if strings.HasPrefix(m.Subject, o) {
				return
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.foreign = append(r.foreign, m.Subject)
	})
	if err = errors.Join(err, nc.Flush()); err != nil {
		t.Fatal(err)
	}
}

// stored tells how many bytes nats-server has put on disk and how many messages
// it holds besides MQTT sessions.
func (r *rig) stored(t *testing.T) (disk int64, messages uint64) {
	t.Helper()
	js, err := r.out.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"$MQTT_msgs", "$MQTT_qos2in", "$MQTT_out", "$MQTT_rmsgs"} {
		info, err := js.StreamInfo(name)
		if err != nil {
			t.Fatal(err)
		}
		messages += info.State.Msgs
	}
	return dirSize(t, r.dir), messages
}

func dirSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			n += dirSize(t, dir+"/"+e.Name())
			continue
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

func encode(t *testing.T, msg any) []byte {
	t.Helper()
	b, err := wire.Encode(msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *fleetSim) addBlob(b []byte) [32]byte {
	sum := sha256.Sum256(b)
	s.blobs[sum] = b
	return sum
}

// waitFor polls what has no event of its own.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
