package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Broker is where messages come from and answers go.
type Broker struct {
	URL            string // tcp://, or tls:// for a broker that is not on this machine
	In, Out        string // topics; In may be a filter
	Client         string // id: the broker keeps what comes while nobody is there under it
	User, Password string
	TLS            *tls.Config
	Log            *slog.Logger
}

// maxWaiting bounds the messages that a broker has sent and nobody has taken. Brokers
// send fewer than that ahead of acknowledgements. Of one that sends more, what it will
// not send again (QoS 0) is dropped, and anything else ends the stream: on the next
// connection the broker sends it again.
const maxWaiting = 1024

// refused in place of a granted quality of service, MQTT 3.1.1 section 3.9.3.
const refused = 0x80

// errAhead ends a stream whose broker sends too far ahead.
var errAhead = fmt.Errorf("the broker sent more than %d messages ahead of the answers: lower its in-flight window", maxWaiting)

// Check says what is wrong before anything is dialled: without TLS only this machine
// is asked, and answers do not come back as questions.
func (b *Broker) Check() error {
	u, err := url.Parse(b.URL)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%q is no address of a broker, as tcp://127.0.0.1:1883 is", b.URL)
	case u.Scheme == "tls" || u.Scheme == "ssl" || u.Scheme == "mqtts":
	case u.Scheme != "tcp" && u.Scheme != "mqtt":
		return fmt.Errorf("%q: tcp:// or tls:// is wanted", b.URL)
	case u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback():
		return fmt.Errorf("%s is not this machine: use tls://", u.Hostname())
	}
	if b.In == "" || b.Out == "" || b.In == b.Out {
		return errors.New("two different topics are wanted")
	}
	return nil
}

// MQTT is a Source of a broker's messages. Each is acknowledged after its answer is
// with the broker, so that none is lost when this process ends at any moment; one may
// be answered twice then.
type MQTT struct {
	b        Broker
	client   mqtt.Client
	messages chan mqtt.Message
	ended    context.Context
	end      context.CancelCauseFunc
}

// Dial connects and subscribes; from then on the connection mends itself.
func Dial(ctx context.Context, b Broker) (*MQTT, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	m := &MQTT{b: b, messages: make(chan mqtt.Message, maxWaiting)}
	m.ended, m.end = context.WithCancelCause(context.Background())
	o := mqtt.NewClientOptions().AddBroker(b.URL).SetClientID(b.Client).SetUsername(b.User).SetPassword(b.Password).
		SetCleanSession(false).SetAutoAckDisabled(true).SetOrderMatters(true).SetProtocolVersion(4).
		SetConnectTimeout(10 * time.Second).SetMaxReconnectInterval(30 * time.Second).
		SetDefaultPublishHandler(m.take).                               // what waited comes before the subscription is answered
		SetOnConnectHandler(func(c mqtt.Client) { go m.subscribe(c) }). // it may not wait here
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { b.Log.Warn("broker lost", "err", err) })
	if b.TLS != nil {
		o.SetTLSConfig(b.TLS)
	}
	m.client = mqtt.NewClient(o)
	if err := wait(ctx, m.client.Connect()); err != nil {
		m.Close()
		return nil, fmt.Errorf("connect to %s: %w", b.URL, err)
	}
	return m, nil
}

func (m *MQTT) subscribe(c mqtt.Client) {
	t := c.Subscribe(m.b.In, 1, nil)
	t.Wait()
	err := t.Error()
	if s, ok := t.(*mqtt.SubscribeToken); ok && s.Result()[m.b.In] == refused {
		err = errors.New("the broker does not allow it")
	}
	if err != nil && c.IsConnectionOpen() { // else the next connection subscribes
		m.end(fmt.Errorf("subscribe to %s: %w", m.b.In, err))
	}
}

// take is called for one message after the other and must not wait.
func (m *MQTT) take(_ mqtt.Client, x mqtt.Message) {
	select {
	case m.messages <- x:
	default:
		if x.Qos() == 0 {
			m.b.Log.Warn("message dropped: nobody is faster", "topic", x.Topic())
			return
		}
		m.end(errAhead)
	}
}

// wait waits for a token until ctx ends.
func wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Next implements Source.
func (m *MQTT) Next(ctx context.Context) (Message, error) {
	select {
	case <-ctx.Done():
		return Message{}, ctx.Err()
	case <-m.ended.Done():
		return Message{}, context.Cause(m.ended)
	case x := <-m.messages:
		q := Message{Body: x.Payload(), Answer: func(ctx context.Context, line []byte) error {
			if err := wait(ctx, m.client.Publish(m.b.Out, 1, false, line)); err != nil {
				return fmt.Errorf("publish an answer: %w", err)
			}
			x.Ack()
			return nil
		}}
		if len(q.Body) > MaxMessage {
			q.Body, q.Err = nil, fmt.Errorf("the message has more than %d bytes", MaxMessage)
		}
		return q, nil
	}
}

// Close ends the connection after what is being sent.
func (m *MQTT) Close() {
	m.end(context.Canceled)
	m.client.Disconnect(250)
}
