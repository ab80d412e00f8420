package lab

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Device is a device without inference: what it says and fetches is real, what it
// would run is not there.
type Device struct {
	ID     *identity.Identity
	Queues *queue.Set
	Trust  *trust.Client
	Link   *link.Link
	// Models says what the device runs; nil: nothing.
	Models func() []wire.ModelState
	// QueueBytes bounds each queue.
	QueueBytes int64

	t    testing.TB
	dir  string
	stop func()

	mu       sync.Mutex
	welcomes int
	nonce    []byte
	counter  uint64
	run      uint64 // of this start
}

// Enrol gets a device its identity with a token, over the API.
func (s *Server) Enrol(id string) *Device {
	s.t.Helper()
	return s.EnrolWith(s.Token(), id)
}

// Replace gets a new device that has the place of another.
func (s *Server) Replace(id string) *Device {
	s.t.Helper()
	return s.EnrolWith(s.tokenOf("/v1/devices/"+id+"/replace", map[string]any{}), "")
}

// Copy is a device with the same disk, as of now: stop the device before.
func (d *Device) Copy() *Device {
	d.t.Helper()
	c := &Device{t: d.t, dir: d.t.TempDir(), QueueBytes: d.QueueBytes, stop: func() {}}
	d.must(os.CopyFS(c.dir, os.DirFS(d.dir)))
	return c
}

// EnrolWith gets a device its identity with this token.
func (s *Server) EnrolWith(tok *wire.EnrolToken, id string) *Device {
	s.t.Helper()
	d := &Device{t: s.t, dir: s.t.TempDir(), QueueBytes: 4 << 20, stop: func() {}}
	reply, err := identity.Enrol(s.t.Context(), durable.OS{}, filepath.Join(d.dir, "identity"), tok, id, map[string]string{"arch": "arm64", "class": "lab-" + id})
	s.must(err)
	s.must(trust.Install(durable.OS{}, filepath.Join(d.dir, "trust"), reply.CatalogRoots, reply.DirectorRoots))
	s.must(identity.Store(durable.OS{}, filepath.Join(d.dir, "identity"), tok, reply))
	return d
}

// Start reads the device's disk, as its program does, and connects through broker
// until Stop.
func (d *Device) Start(broker string) {
	d.t.Helper()
	fs := durable.OS{}
	d.run = rand.Uint64N(math.MaxUint64) + 1
	var err error
	d.ID, err = identity.Load(fs, filepath.Join(d.dir, "identity"))
	d.must(err)
	d.Queues, err = queue.OpenSet(fs, filepath.Join(d.dir, "queue"), d.QueueBytes)
	d.must(err)
	d.must(d.Queues.Keep(48*time.Hour, time.Now))
	d.Trust, err = trust.Open(trust.Config{FS: fs, Dir: filepath.Join(d.dir, "trust"), Blobs: filepath.Join(d.dir, "blobs"), Device: d.ID.Device, Channel: d.ID.Channel, Now: time.Now})
	d.must(err)
	host, _, err := net.SplitHostPort(d.ID.MQTT)
	d.must(err)
	d.Link = link.New(link.Config{
		Device: d.ID.Device, Broker: broker, TLS: d.ID.TLS(host, func() bool { return true }), Agent: d,
		Queues:       map[wire.Kind]link.Queue{wire.KindReport: d.Queues.Report, wire.KindSample: d.Queues.Sample, wire.KindEvent: d.Queues.Event},
		ReconnectMin: 10 * time.Millisecond, ReconnectMax: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Link.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("link of %s: %v", d.ID.Device, err)
		}
		d.must(d.Queues.Close())
	})
	d.t.Cleanup(d.stop)
}

// Stop ends the device's program; what it had in memory is gone.
func (d *Device) Stop() { d.stop() }

func (d *Device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// Hello implements link.Device.
func (d *Device) Hello() *wire.Hello {
	return &wire.Hello{
		Protocols: []int{wire.Protocol}, Agent: "lab", Epoch: d.Queues.Epoch(), Channel: d.ID.Channel, Held: *link.Held(d.Trust.Held()), Generation: d.Trust.Wish().Generation,
		Facts: map[string]string{"arch": "arm64", "class": "lab-" + d.ID.Device}, Clock: wire.Clock{Unix: time.Now().Unix(), Source: identity.Synchronised},
		Models: d.models(), Run: d.run,
		Queues: []wire.QueueState{d.Queues.Report.State(), d.Queues.Sample.State(), d.Queues.Event.State()},
	}
}

func (d *Device) models() []wire.ModelState {
	if d.Models == nil {
		return nil
	}
	return d.Models()
}

// Welcomed implements link.Device.
func (d *Device) Welcomed(w *wire.Welcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.welcomes++
	d.nonce = w.Nonce
}

// Asked implements link.Device.
func (d *Device) Asked(a *wire.Ask) string {
	if a.Verb == "hello" {
		d.Link.Poke()
	}
	return ""
}

// Welcomes counts the server's answers to hellos.
func (d *Device) Welcomes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.welcomes
}

// Refresh brings metadata until the wish has the generation.
func (d *Device) Refresh(generation int64) trust.Wish {
	d.t.Helper()
	for end := time.Now().Add(Patience); ; {
		w, err := d.Trust.Refresh(d.t.Context(), link.Source{Link: d.Link})
		switch {
		case err == nil && w.Generation >= generation:
			return w
		case time.Now().After(end):
			d.t.Fatalf("generation %d does not come: %d, %v", generation, w.Generation, err)
		}
	}
}

// Report signs and queues one.
func (d *Device) Report() {
	d.t.Helper()
	d.mu.Lock()
	d.counter++
	rep := &wire.Report{Device: d.ID.Device, Counter: d.counter, Generation: d.Trust.Wish().Generation, Nonce: d.nonce, Models: d.models(), Clock: wire.Clock{Unix: time.Now().Unix(), Source: identity.Synchronised}}
	d.mu.Unlock()
	_, err := d.Queues.Report.AppendOf(func(epoch, _ uint64) ([]byte, error) {
		rep.Epoch = epoch
		env, err := wire.Sign(d.ID.Signer(), wire.ReportType, rep)
		if err != nil {
			return nil, err
		}
		return wire.Encode(env)
	})
	d.must(err)
	d.Link.Flush()
}

// Sample queues one of a minute.
func (d *Device) Sample(minute int64) {
	d.append(d.Queues.Sample, &wire.Sample{Start: minute * 60, Seconds: 60, Host: map[string]float64{"load1": 1}})
}

// Event queues one.
func (d *Device) Event(detail string) {
	d.append(d.Queues.Event, &wire.Event{Unix: time.Now().Unix(), Type: "lab", Detail: detail})
}

func (d *Device) append(q *queue.Queue, msg any) {
	d.t.Helper()
	b, err := wire.Encode(msg)
	d.must(err)
	_, err = q.Append(b)
	d.must(err)
	d.Link.Flush()
}

// Lose removes what a stopped device keeps of a kind that was acknowledged, as age
// or a small quota would.
func (d *Device) Lose(kind string) {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "queue", kind, "*.kept"))
	d.must(err)
	if len(files) == 0 {
		d.t.Fatalf("nothing of %s is kept", kind)
	}
	for _, f := range files {
		d.must(os.Remove(f))
	}
}

// Waiting counts the kinds that have something unacknowledged.
func (d *Device) Waiting() (n int) {
	d.t.Helper()
	for _, q := range []*queue.Queue{d.Queues.Report, d.Queues.Sample, d.Queues.Event} {
		rs, err := q.Next(1, 1)
		d.must(err)
		n += len(rs)
	}
	return n
}
