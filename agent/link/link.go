// Package link is the one MQTT session of the device: hints in, metadata and
// blocks in, reports, samples and events out. What it learns from the network is
// a hint or is verified by others; losing any message costs time, never
// correctness.
//
// A Link is safe for concurrent use; Run owns the session.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Queue is what a Link drains: the oldest records first, forgotten only after
// the server has acknowledged them.
type Queue interface {
	Next(max, maxBytes int) ([]wire.Record, error)
	Ack(epoch, sequence uint64) error
	// Rewind takes in how far the server knows the queue's present epoch, 0: none
	// of it. What it has forgotten since it was acknowledged is to come again.
	Rewind(epoch, sequence uint64) error
}

// Device is what a Link tells and whom it tells what the server says.
type Device interface {
	// Hello says who the device is, what it holds and wants to know.
	Hello() *wire.Hello
	// Welcomed takes in the server's answer; it must not block.
	Welcomed(*wire.Welcome)
	// Asked carries out an instruction and returns the code of a refusal.
	Asked(*wire.Ask) string
}

// Config of a Link.
type Config struct {
	Device string
	Broker string // host:port
	TLS    *tls.Config
	// Next is where the next session is to be begun, and how; last is the error of
	// the one before. nil: at Broker, always.
	Next         func(last error) (broker string, c *tls.Config)
	Agent        Device
	Queues       map[wire.Kind]Queue
	ReconnectMin time.Duration
	ReconnectMax time.Duration
	Log          *slog.Logger
}

// Link keeps one session to the broker.
type Link struct {
	c     Config
	poke  chan struct{}
	flush chan struct{}
	anew  chan struct{}
	says  *rate.Limiter // hellos, records, answers
	gets  *rate.Limiter

	mu      sync.Mutex
	client  mqtt.Client // nil while there is no session
	up      chan struct{}
	next    uint32 // request number
	waiting map[uint32]chan reply
	block   int // bytes asked for in one range, adapted
}

// New returns a Link; Run connects it.
func New(c Config) *Link {
	return &Link{
		c: c, poke: make(chan struct{}, 1), flush: make(chan struct{}, 1), anew: make(chan struct{}, 1), up: make(chan struct{}), waiting: map[uint32]chan reply{}, block: startBlock,
		says: rate.NewLimiter(saysPerSecond, saysBurst), gets: rate.NewLimiter(getsPerSecond, getsBurst),
	}
}

// A device that sends more than 100 messages a second, after 200 at once, is taken
// for one that floods and shut out for a while. These stay below, together; what
// has to wait goes in larger batches. Gets bring 480 KiB each: 33 MB/s.
const (
	saysPerSecond, saysBurst = 20, 60
	getsPerSecond, getsBurst = 70, 100
)

// ErrNoSession is returned while there is no session to the server.
var ErrNoSession = errors.New("no session to the server")

// Poke sends a hello soon; calls melt into one.
func (l *Link) Poke() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// Flush looks at the queues soon; calls melt into one.
func (l *Link) Flush() {
	select {
	case l.flush <- struct{}{}:
	default:
	}
}

// Reconnect ends the session, if there is one, and begins another at once.
func (l *Link) Reconnect() {
	select {
	case l.anew <- struct{}{}:
	default:
	}
}

// errAnew ends a session that is to begin anew.
var errAnew = errors.New("begun anew")

// Connected tells whether the server has welcomed the device in this session.
func (l *Link) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.up:
		return l.client != nil
	default:
		return false
	}
}

// Run keeps a session until ctx ends. Between two sessions it waits a fully
// jittered time that doubles up to ReconnectMax.
func (l *Link) Run(ctx context.Context) error {
	pause := l.c.ReconnectMin
	var err error
	for {
		began := time.Now()
		if l.c.Next != nil {
			l.c.Broker, l.c.TLS = l.c.Next(err)
		}
		err = l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errAnew) {
			continue
		}
		if time.Since(began) > time.Minute {
			pause = l.c.ReconnectMin
		}
		wait := l.c.ReconnectMin/2 + rand.N(pause)
		l.c.Log.Info("session ended", "err", err, "again", wait.Round(time.Millisecond))
		pause = min(2*pause, l.c.ReconnectMax)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

const (
	connectTimeout = 20 * time.Second
	keepAlive      = 60 * time.Second
	firstHeartbeat = 30 * time.Second // until the server has set one
	resend         = 20 * time.Second // of a batch that is not acknowledged
	inbox          = 64               // messages of a session not yet handled
)

// session is everything that lives as long as one connection.
type session struct {
	l       *Link
	client  mqtt.Client
	in      chan inbound
	lost    chan error
	drains  []*drain
	welcome bool
}

// inbound is one message of the server.
type inbound struct {
	kind    wire.Kind
	payload []byte
}

// session connects, says hello and serves the connection until it is lost.
func (l *Link) session(ctx context.Context) error {
	s := &session{l: l, in: make(chan inbound, inbox), lost: make(chan error, 1)}
	ended, end := context.WithCancel(ctx)
	defer end()
	select { // asked for before there was a session: this is the one
	case <-l.anew:
	default:
	}
	s.client = mqtt.NewClient(l.options(ended, s))
	if t := s.client.Connect(); !t.WaitTimeout(connectTimeout) || t.Error() != nil {
		s.client.Disconnect(0)
		return fmt.Errorf("connect to %s: %w", l.c.Broker, orTimeout(t.Error()))
	}
	defer s.client.Disconnect(250)
	defer end() // before Disconnect, which waits for the handler of messages
	if t := s.client.Subscribe(wire.DownFilter(l.c.Device), 0, nil); !t.WaitTimeout(connectTimeout) || t.Error() != nil {
		return fmt.Errorf("subscribe: %w", orTimeout(t.Error()))
	}
	l.mu.Lock()
	l.client = s.client
	l.mu.Unlock()
	defer l.down()
	for k, q := range l.c.Queues {
		s.drains = append(s.drains, &drain{s: s, kind: k, queue: q})
	}
	return s.serve(ctx)
}

func orTimeout(err error) error {
	if err == nil {
		return context.DeadlineExceeded
	}
	return err
}

func (l *Link) options(ctx context.Context, s *session) *mqtt.ClientOptions {
	o := mqtt.NewClientOptions().AddBroker("tls://" + l.c.Broker).SetClientID(l.c.Device).SetTLSConfig(l.c.TLS)
	o.SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false)
	o.SetKeepAlive(keepAlive).SetConnectTimeout(connectTimeout).SetWriteTimeout(connectTimeout).SetOrderMatters(true)
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { s.lost <- err })
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		device, up, kind, err := wire.ParseTopic(m.Topic())
		if err != nil || up || device != l.c.Device {
			return
		}
		if l.answer(kind, m.Payload()) {
			return
		}
		select {
		case s.in <- inbound{kind, m.Payload()}:
		case <-ctx.Done():
		}
	})
	return o
}

// down ends everything that waits for this session.
func (l *Link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = nil
	select {
	case <-l.up:
		l.up = make(chan struct{})
	default:
	}
	for id, c := range l.waiting {
		close(c)
		delete(l.waiting, id)
	}
}

func (s *session) serve(ctx context.Context) error {
	if err := s.hello(ctx); err != nil {
		return err
	}
	beat := time.NewTimer(firstHeartbeat)
	defer beat.Stop()
	tick := time.NewTicker(resend / 4)
	defer tick.Stop()
	heartbeat := firstHeartbeat
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.lost:
			return err
		case <-s.l.anew:
			return errAnew
		case m := <-s.in:
			if d := s.handle(ctx, m); d > 0 && d != heartbeat {
				heartbeat = d
				beat.Reset(jittered(heartbeat))
			}
		case <-s.l.poke:
			if err := s.hello(ctx); err != nil {
				return err
			}
		case <-beat.C:
			if err := s.hello(ctx); err != nil {
				return err
			}
			beat.Reset(jittered(heartbeat))
		case <-s.l.flush:
		case <-tick.C:
		}
		if s.welcome {
			for _, d := range s.drains {
				d.step(ctx, time.Now())
			}
		}
	}
}

// jittered is a quarter more or less.
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

func (s *session) publish(ctx context.Context, k wire.Kind, msg any) error {
	b, err := wire.Encode(msg)
	if err != nil {
		return err
	}
	if err := s.l.says.Wait(ctx); err != nil {
		return err
	}
	t := s.client.Publish(wire.UpTopic(s.l.c.Device, k), 0, false, b)
	if !t.WaitTimeout(connectTimeout) || t.Error() != nil {
		return fmt.Errorf("publish %s: %w", k, orTimeout(t.Error()))
	}
	return nil
}

func (s *session) hello(ctx context.Context) error {
	return s.publish(ctx, wire.KindHello, s.l.c.Agent.Hello())
}

// handle takes in a message of the server and returns a new heartbeat, if it set
// one. A message that is not understood is logged and forgotten.
func (s *session) handle(ctx context.Context, m inbound) time.Duration {
	switch m.kind {
	case wire.KindWelcome:
		var w wire.Welcome
		if err := wire.Decode(m.payload, &w); err != nil {
			s.l.c.Log.Warn("welcome refused", "err", err)
			return 0
		}
		s.welcomed(&w)
		return time.Duration(w.Heartbeat) * time.Second
	case wire.KindAck:
		var a wire.Ack
		if err := wire.Decode(m.payload, &a); err != nil {
			s.l.c.Log.Warn("ack refused", "err", err)
			return 0
		}
		s.acked(a)
	case wire.KindAsk:
		var a wire.Ask
		if err := wire.Decode(m.payload, &a); err != nil {
			s.l.c.Log.Warn("ask refused", "err", err)
			return 0
		}
		if err := s.publish(ctx, wire.KindAnswer, &wire.Answer{ID: a.ID, Error: s.l.c.Agent.Asked(&a)}); err != nil {
			s.l.c.Log.Info("answer put off", "err", err)
		}
	}
	return 0
}

func (s *session) welcomed(w *wire.Welcome) {
	for _, d := range s.drains {
		d.rewind(w.Acked)
	}
	for _, a := range w.Acked {
		s.acked(a)
	}
	s.l.mu.Lock()
	if !s.welcome {
		s.welcome = true
		close(s.l.up)
	}
	s.l.mu.Unlock()
	s.l.c.Agent.Welcomed(w)
}

func (s *session) acked(a wire.Ack) {
	for _, d := range s.drains {
		if d.kind == a.Kind {
			d.acked(a)
		}
	}
}
