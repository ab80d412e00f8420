// Package broker is the MQTT endpoint of the server: nats-server inside this
// process, topics in and out, admission, rate limits and presence. It is only a
// pipe: QoS 0, clean sessions, nothing retained, nothing on disk. A device
// publishes below its own `up` and subscribes to its own `down`; who it is, its
// certificate says.
//
// Three things used here are not documented by nats-server and are tested: the
// streams made beforehand are taken as they are, a connection is in the global
// account before RegisterUser, and one consumer slot of $MQTT_msgs that is taken
// makes every QoS 1 and 2 subscription fail.
package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Devices is what the broker passes messages to. One device's messages of one
// kind come one at a time, in order.
type Devices interface {
	Hello(ctx context.Context, device string, h *wire.Hello) (*wire.Welcome, error)
	Records(ctx context.Context, device string, k wire.Kind, b *wire.Batch) (wire.Ack, error)
	// Presence returns fleet.ErrDeviceRevoked when a session that began is to
	// end again.
	Presence(ctx context.Context, device string, online bool) error
}

// Metadata answers refreshes.
type Metadata interface {
	Refresh(ctx context.Context, device string, held *wire.Held) ([]wire.MetaFile, error)
}

// Blobs opens what a device may read. The error for one that it may not read, or
// that is not there, is a *fleet.Error whose code the device is told.
type Blobs interface {
	OpenBlob(ctx context.Context, device string, digest [32]byte) (Blob, error)
}

// Blob is an open blob.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Config of a Broker.
type Config struct {
	Addr string // host:port; port 0: any
	Dir  string // scratch of nats-server; stays empty
	Cert tls.Certificate
	CAs  *x509.CertPool
	// TLS is what stands in for Cert and CAs at each handshake; nil: they stay.
	TLS func() (*tls.Certificate, *x509.CertPool)
	// Admit refuses a certificate that was issued and is not to be let in.
	Admit func(*x509.Certificate) error
	// Came is told that a device has proven to hold its certificate's key, before
	// the session begins; nil: nobody is. Its error refuses the session.
	Came func(*x509.Certificate) error
	// Session is told that a device was let in, and from which host; nil: nobody is.
	Session  func(device, host string)
	Devices  Devices
	Metadata Metadata
	Blobs    Blobs
	Log      *slog.Logger
}

// Broker is a running endpoint.
type Broker struct {
	c      Config
	ctx    context.Context // of Run; handlers end with it
	opts   *server.Options // nats-server writes the port that it took into them
	srv    *server.Server
	secret string // of in-process connections
	fleet  *server.Account
	sys    *server.Account
	out    *nats.Conn // everything that goes down

	in   []*nats.Conn // what comes up, a connection for each class
	open atomic.Bool  // for devices

	mu     sync.Mutex
	live   map[string]map[uint64]bool // device -> connection ids
	sent   map[uint64]int64           // messages of each connection at the last reconcile
	shown  map[uint64]shown           // what was let in and has not begun yet, by connection
	limits map[string]*rate.Limiter
	banned map[string]time.Time

	work  sync.RWMutex // held for reading by handlers
	ended bool
}

const (
	account    = "FLEET"
	sysAccount = "$SYS"
	domain     = "edge"
	ready      = 15 * time.Second
)

// Start begins to listen. Devices are let in when Run is called, so that nothing
// they say is missed and no session begins before its streams are there.
func Start(c Config) (*Broker, error) {
	b := &Broker{c: c, ctx: context.Background(), live: map[string]map[uint64]bool{}, shown: map[uint64]shown{}, limits: map[string]*rate.Limiter{}, banned: map[string]time.Time{}}
	var r [16]byte
	rand.Read(r[:]) // never fails
	b.secret = hex.EncodeToString(r[:])
	o, err := b.options()
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b.opts = o
	if err := b.listen(); err != nil {
		b.stop()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	return b, nil
}

// listen starts nats-server and makes it ours.
func (b *Broker) listen() (err error) {
	if b.srv, err = server.NewServer(b.opts); err != nil {
		return err
	}
	b.srv.SetLoggerV2(&natsLog{l: b.c.Log}, false, false, false)
	// NewServer copies accounts: they are looked up again.
	if b.fleet, err = b.srv.LookupAccount(account); err != nil {
		return err
	}
	b.srv.Start()
	if !b.srv.ReadyForConnections(ready) {
		return errors.New("not ready to listen; is the port taken?")
	}
	b.sys = b.srv.SystemAccount() // nil before Start
	if err := b.fleet.EnableJetStream(nil, nil); err != nil {
		return err
	}
	if b.out, err = b.dial("out"); err != nil {
		return err
	}
	if err := b.streams(); err != nil {
		return err
	}
	return b.serve()
}

// stop ends what listen began; handlers that run are waited for.
func (b *Broker) stop() {
	b.work.Lock()
	b.ended = true
	b.work.Unlock()
	for _, c := range b.in {
		c.Close()
	}
	if b.out != nil {
		b.out.Close()
	}
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
}

func (b *Broker) options() (*server.Options, error) {
	host, port, err := net.SplitHostPort(b.c.Addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		n = -1 // any
	}
	o := &server.Options{
		ServerName: "dunlin-edge", DontListen: true, NoSigs: true,
		CustomClientAuthentication: b, SystemAccount: sysAccount,
		Accounts:  []*server.Account{server.NewAccount(account), server.NewAccount(sysAccount)},
		JetStream: true, StoreDir: b.c.Dir, JetStreamDomain: domain, JetStreamMaxMemory: 64 << 20, DisableJetStreamBanner: true,
		MaxPayload: wire.MaxMessage, MaxPending: 4 << 20, WriteDeadline: 30 * time.Second,
		MaxSubs: 8, MaxSubTokens: 16, MaxConn: 19000, AuthTimeout: 5,
		MQTT: server.MQTTOpts{
			Host: host, Port: n, TLSTimeout: 5, AuthTimeout: 5, ConsumerMemoryStorage: true, MaxAckPending: 16,
			TLSConfig: b.tls(),
		},
	}
	// These two have no Go fields.
	return o, o.ProcessConfigString("mqtt { reject_qos2_publish: true, downgrade_qos2_subscribe: true }")
}

func (b *Broker) tls() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{b.c.Cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: b.c.CAs, VerifyConnection: b.verify,
	}
	if b.c.TLS != nil {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, cas := b.c.TLS()
			now := c.Clone()
			now.Certificates, now.ClientCAs, now.GetConfigForClient = []tls.Certificate{*cert}, cas, nil
			return now, nil
		}
	}
	return c
}

// verify refuses a connection before MQTT begins.
func (b *Broker) verify(s tls.ConnectionState) error {
	if !b.open.Load() {
		return errors.New("the server is starting or going down")
	}
	return b.c.Admit(s.PeerCertificates[0])
}

// dial makes one in-process connection. Each class of traffic has its own: a
// flood of one then cannot push out another.
func (b *Broker) dial(user string) (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(b.srv), nats.UserInfo(user, b.secret), nats.Name(user),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
}

// streams makes the five streams of MQTT sessions before the first device can, in
// memory and bounded, and takes the one consumer slot that QoS 1 and 2
// subscriptions need.
func (b *Broker) streams() error {
	js, err := b.out.JetStream()
	if err != nil {
		return err
	}
	for _, s := range []*nats.StreamConfig{
		{Name: "$MQTT_sess", Subjects: []string{"$MQTT.sess." + domain + ".>"}, MaxMsgsPerSubject: 1, MaxBytes: 32 << 20},
		{Name: "$MQTT_msgs", Subjects: []string{"$MQTT.msgs.>"}, Retention: nats.InterestPolicy, MaxBytes: 1 << 20, MaxConsumers: 1},
		{Name: "$MQTT_qos2in", Subjects: []string{"$MQTT.qos2.>"}, Discard: nats.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxBytes: 1 << 20, MaxMsgs: 1},
		{Name: "$MQTT_out", Subjects: []string{"$MQTT.out.>"}, Retention: nats.InterestPolicy, MaxBytes: 1 << 20},
		{Name: "$MQTT_rmsgs", Subjects: []string{"$MQTT.rmsgs.>"}, MaxMsgsPerSubject: 1, MaxMsgs: 1, MaxBytes: 1 << 20, MaxMsgSize: 1},
	} {
		s.Storage = nats.MemoryStorage
		if _, err := js.AddStream(s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Name, err)
		}
	}
	_, err = js.AddConsumer("$MQTT_msgs", &nats.ConsumerConfig{Durable: "none", FilterSubject: "$MQTT.msgs.none", AckPolicy: nats.AckExplicitPolicy, MemoryStorage: true})
	return err
}

// Addr is where devices connect.
func (b *Broker) Addr() string {
	host, _, err := net.SplitHostPort(b.c.Addr)
	if err != nil {
		return b.c.Addr
	}
	return net.JoinHostPort(host, strconv.Itoa(b.opts.MQTT.Port))
}

// Run serves until ctx ends, then closes the sessions one after the other over
// drainTime, waits for what is being handled and stops.
func (b *Broker) Run(ctx context.Context) error {
	b.ctx = ctx
	defer b.stop()
	b.open.Store(true)
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.drain()
			return nil
		case <-tick.C:
			b.reconcile()
		}
	}
}

const (
	reconcileEvery = 15 * time.Second
	drainTime      = 2 * time.Second
)

// drain refuses new sessions and ends the others at an even pace. nats-server's
// own lame duck mode does nothing of use without a NATS listener.
func (b *Broker) drain() {
	b.open.Store(false)
	b.mu.Lock()
	var ids []uint64
	for _, m := range b.live {
		for id := range m {
			ids = append(ids, id)
		}
	}
	b.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	pace := time.NewTicker(max(drainTime/time.Duration(len(ids)), time.Microsecond))
	defer pace.Stop()
	for _, id := range ids {
		b.srv.DisconnectClientByID(id)
		if len(ids) > 50 {
			<-pace.C
		}
	}
}
