package lab_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// TestRevoked revokes a device in the middle of its session: the session ends,
// every later one is refused, and nothing that it says is stored; another device
// goes on.
func TestRevoked(t *testing.T) {
	s := lab.Start(t)
	d, p := s.Enrol("meter-1"), lab.NewProxy(t, s.MQTT)
	d.Start(p.Addr())
	other := s.Enrol("meter-2")
	other.Start(s.MQTT)
	say(d, 1)
	lab.Until(t, "the first acknowledgement", acked(t, s, d, 1))
	lab.Until(t, "both online", func() bool { return online(t, s, "meter-1") && online(t, s, "meter-2") })
	welcomes := d.Welcomes()

	began := time.Now()
	s.Do(http.MethodPost, "/v1/devices/meter-1/revoke", nil, nil)
	lab.Until(t, "the end of the session", func() bool { _, ended := p.Connections(); return ended > 0 })
	took := time.Since(began)
	say(d, 2)
	opened, _ := p.Connections()
	lab.Until(t, "ten more refusals", func() bool { _, ended := p.Connections(); return ended >= opened+10 })
	if d.Link.Connected() || d.Welcomes() != welcomes || online(t, s, "meter-1") {
		t.Errorf("it came back: connected %v, %d welcomes more, online %v", d.Link.Connected(), d.Welcomes()-welcomes, online(t, s, "meter-1"))
	}
	wantStored(t, s, "meter-1", 1)
	if d.Waiting() != 3 {
		t.Error("the device forgot what nobody has acknowledged")
	}
	say(other, 1)
	lab.Until(t, "the other's acknowledgement", acked(t, s, other, 1))
	if other.Welcomes() != 1 {
		t.Errorf("the other device was welcomed %d times", other.Welcomes())
	}
	now, _ := p.Connections()
	t.Logf("the session ended %v after the request; %d more connections, none let in", took.Round(time.Millisecond), now-1)
}

func online(t *testing.T, s *lab.Server, id string) bool {
	t.Helper()
	d, err := s.DB.Device(t.Context(), id)
	must(t, err)
	return d.Online
}

// client is an MQTT client that says what no device of ours would.
type client struct {
	mqtt.Client
	t    *testing.T
	came chan mqtt.Message
}

// connect makes a session with any id over any TLS.
func connect(t *testing.T, addr, id string, c *tls.Config) (*client, error) {
	x := &client{t: t, came: make(chan mqtt.Message, 1000)}
	o := mqtt.NewClientOptions().AddBroker("tls://" + addr).SetClientID(id).SetTLSConfig(c).SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(lab.Patience)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { x.came <- m })
	x.Client = mqtt.NewClient(o)
	tok := x.Connect()
	tok.WaitTimeout(lab.Patience)
	if tok.Error() == nil {
		t.Cleanup(func() { x.Disconnect(0) })
	}
	return x, tok.Error()
}

func (c *client) say(topic string, payload []byte) {
	c.t.Helper()
	tok := c.Publish(topic, 0, false, payload)
	if !tok.WaitTimeout(lab.Patience) || tok.Error() != nil {
		c.t.Fatalf("publish on %s: %v", topic, tok.Error())
	}
}

// await returns the next message of a kind.
func (c *client) await(k wire.Kind) []byte {
	c.t.Helper()
	timeout := time.After(lab.Patience)
	for {
		select {
		case m := <-c.came:
			if _, _, got, err := wire.ParseTopic(m.Topic()); err == nil && got == k {
				return m.Payload()
			}
		case <-timeout:
			c.t.Fatalf("no %s comes", k)
		}
	}
}

func encode(t *testing.T, msg any) []byte {
	t.Helper()
	b, err := wire.Encode(msg)
	must(t, err)
	return b
}

// issue is the client side of a device with a certificate of its own by a CA.
func issue(t *testing.T, ca *enroll.CA, cn string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	chain, _, err := ca.Device(cn, &key.PublicKey, time.Now())
	must(t, err)
	der, _ := pem.Decode(chain)
	// Whom it talks to does not matter to an intruder.
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der.Bytes}, PrivateKey: key}}}
}

// TestIntruders tries to get a session that is another's, with real TLS against the
// server's real admission.
func TestIntruders(t *testing.T) {
	s := lab.Start(t)
	victim, evil := s.Enrol("victim"), s.Enrol("evil")
	victim.Start(s.MQTT)
	evil.Start(s.MQTT)
	lab.Until(t, "the victim's session", victim.Link.Connected)
	evil.Stop()
	own := evil.ID.TLS("localhost", func() bool { return true })
	foreign, err := enroll.NewCA("localhost", time.Now())
	must(t, err)
	ca := serverCA(t, s)
	none := own.Clone()
	none.Certificates = nil
	for name, c := range map[string]struct {
		id  string
		tls *tls.Config
	}{
		"no certificate":                           {"victim", none},
		"a certificate of a CA of the same name":   {"victim", issue(t, foreign, "victim")},
		"a second certificate for another's key":   {"victim", issue(t, ca, "victim")},
		"a certificate of a device never enrolled": {"nobody", issue(t, ca, "nobody")},
		"the client id of another":                 {"victim", own},
		"a client id of nobody":                    {"nobody", own},
		"a client id with another's in front":      {"victim/evil", own},
		"no client id":                             {"", own},
		"the server's certificate for a device":    {"localhost", serverTLS(t, s)},
	} {
		if _, err := connect(t, s.MQTT, c.id, c.tls); err == nil {
			t.Errorf("%s: let in", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if victim.Welcomes() != 1 || !victim.Link.Connected() {
		t.Errorf("the victim lost its session: %d welcomes", victim.Welcomes())
	}
	if _, err := connect(t, s.MQTT, "evil", own); err != nil {
		t.Errorf("its own session: %v", err)
	}
}

// serverCA is the fleet's own CA, as whoever stole it would have it.
func serverCA(t *testing.T, s *lab.Server) *enroll.CA {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(s.Dir, "ca.pem"))
	must(t, err)
	key, err := os.ReadFile(filepath.Join(s.Dir, "ca-key.pem"))
	must(t, err)
	ca, err := enroll.LoadCA(cert, key)
	must(t, err)
	return ca
}

func serverTLS(t *testing.T, s *lab.Server) *tls.Config {
	t.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "server.pem"), filepath.Join(s.Dir, "server-key.pem"))
	must(t, err)
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c}}
}

// TestForeignTopics speaks and listens on topics of another device, with a good
// identity: nothing is heard, nothing is stored, and the other notices nothing.
func TestForeignTopics(t *testing.T) {
	s := lab.Start(t)
	victim, evil := s.Enrol("victim"), s.Enrol("evil")
	victim.Start(s.MQTT)
	evil.Start(s.MQTT)
	lab.Until(t, "both sessions", func() bool { return victim.Link.Connected() && evil.Link.Connected() })
	evil.Stop()
	c, err := connect(t, s.MQTT, "evil", evil.ID.TLS("localhost", func() bool { return true }))
	must(t, err)
	filters := []string{wire.DownFilter("victim"), wire.UpFilter("victim"), wire.DownTopic("victim", wire.KindAck), "#", "dunlin/#", "dunlin/v1/+/down/#", "+/+/+/+/+", "$SYS/#", "$share/g/dunlin/v1/victim/down/#"}
	for _, f := range filters {
		tok := c.Subscribe(f, 0, nil)
		tok.WaitTimeout(lab.Patience)
		for _, code := range tok.(*mqtt.SubscribeToken).Result() {
			if code != 0x80 {
				t.Errorf("subscribed to %s", f)
			}
		}
	}
	own := wire.DownFilter("evil")
	if tok := c.Subscribe(own, 0, nil); !tok.WaitTimeout(lab.Patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	event := encode(t, &wire.Batch{Records: []wire.Record{{Epoch: victim.Queues.Epoch(), Sequence: 1, Payload: encode(t, &wire.Event{Type: "forged"})}}})
	hello := victim.Hello()
	hello.Generation, hello.Agent = 99, "forged"
	ack := encode(t, &wire.Ack{Kind: wire.KindEvent, Epoch: victim.Queues.Epoch(), Sequence: 1})
	forged := map[string][]byte{
		wire.UpTopic("victim", wire.KindEvent): event, wire.UpTopic("victim", wire.KindSample): event, wire.UpTopic("victim", wire.KindReport): event,
		wire.UpTopic("victim", wire.KindHello): encode(t, hello), wire.DownTopic("victim", wire.KindAck): ack, wire.DownTopic("victim", wire.KindAsk): encode(t, &wire.Ask{ID: "1", Verb: "hello"}),
		"dunlin/v1/victim/up": event, "dunlin/v1//up/event": event, "dunlin/v1/evil/up/event/victim": event, "$SYS/REQ/SERVER/PING": nil, "$MQTT/sess/edge/victim": nil,
	}
	for topic, b := range forged {
		c.say(topic, b)
	}
	say(victim, 1) // heard by nobody else, and stored after what was forged
	lab.Until(t, "the victim's acknowledgement", acked(t, s, victim, 1))
	c.say(wire.UpTopic("evil", wire.KindHello), encode(t, evil.Hello()))
	c.await(wire.KindWelcome)
	if len(c.came) > 0 {
		t.Errorf("heard %s", (<-c.came).Topic())
	}
	wantStored(t, s, "victim", 1)
	es, err := s.DB.Events(t.Context(), "", "", 100)
	must(t, err)
	if len(es) != 1 || es[0].Event.Type != "lab" {
		t.Errorf("stored: %+v", es)
	}
	if d, err := s.DB.Device(t.Context(), "victim"); err != nil || d.Agent != "lab" || d.Generation != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if victim.Welcomes() != 1 || victim.Waiting() != 0 {
		t.Errorf("the victim was welcomed %d times, %d queues wait", victim.Welcomes(), victim.Waiting())
	}
	t.Logf("%d filters and %d topics of others refused", len(filters), len(forged))
}

// TestMalformed sends bytes that are no message on every topic that a device may
// publish: the server names each with a code, stores nothing, and goes on with
// this session and with the other device's.
func TestMalformed(t *testing.T) {
	s := lab.Start(t)
	evil, other := s.Enrol("evil"), s.Enrol("other")
	other.Start(s.MQTT)
	evil.Start(s.MQTT)
	lab.Until(t, "both sessions", func() bool { return evil.Link.Connected() && other.Link.Connected() })
	evil.Stop()
	lab.Until(t, "the end of its session", func() bool { return !online(t, s, "evil") })
	c, err := connect(t, s.MQTT, "evil", evil.ID.TLS("localhost", func() bool { return true }))
	must(t, err)
	if tok := c.Subscribe(wire.DownFilter("evil"), 0, nil); !tok.WaitTimeout(lab.Patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	lab.Until(t, "its presence", func() bool { return online(t, s, "evil") })
	before := everything(t, s)
	bad := map[string][]byte{
		"nothing": {}, "not CBOR": []byte("\xff\xff"), "JSON": []byte(`{"records":[]}`), "a list": {0x80}, "an unknown key": {0xa1, 0x18, 99, 0}, "a key twice": {0xa2, 1, 0x80, 1, 0x80},
		"cut off": {0xa1, 1, 0x81}, "a huge array": {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "an endless map": {0xbf, 0xff}, "deep": bytes.Repeat([]byte{0x81}, 10_000),
		"a float that is none": {0xa1, 1, 0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, "a tag": {0xc0, 0xa0}, "long": make([]byte, 100<<10),
	}
	kinds := []wire.Kind{wire.KindHello, wire.KindGet, wire.KindReport, wire.KindSample, wire.KindEvent, wire.KindAnswer}
	for _, k := range kinds {
		for _, b := range bad {
			c.say(wire.UpTopic("evil", k), b)
		}
	}
	c.say(wire.UpTopic("evil", wire.KindPresence), []byte("\xff")) // nobody listens to its words
	for _, b := range [][]byte{encode(t, &wire.Batch{}), encode(t, &wire.Get{Request: 1}), encode(t, &wire.Get{Request: 1, Refresh: &wire.Held{}, Blob: &wire.BlobGet{}})} {
		c.say(wire.UpTopic("evil", wire.KindGet), b)
	}
	lab.Until(t, "a code for each", func() bool {
		return s.Log.Count(map[string]string{"msg": "message refused", "device": "evil", "code": "wire.malformed"}) == len(kinds)*len(bad)+3
	})
	for _, k := range kinds {
		if n := s.Log.Count(map[string]string{"msg": "message refused", "kind": string(k), "code": "wire.malformed"}); n < len(bad) {
			t.Errorf("%s: %d of %d named", k, n, len(bad))
		}
	}
	if diff := cmp.Diff(before, everything(t, s)); diff != "" {
		t.Error(diff)
	}
	if len(c.came) > 0 {
		t.Errorf("answered on %s", (<-c.came).Topic())
	}
	c.say(wire.UpTopic("evil", wire.KindHello), encode(t, evil.Hello()))
	c.await(wire.KindWelcome)
	c.say(wire.UpTopic("evil", wire.KindGet), encode(t, &wire.Get{Request: 7, Refresh: &wire.Held{}}))
	c.await(wire.KindMeta)
	c.say(wire.UpTopic("evil", wire.KindEvent), encode(t, &wire.Batch{Records: []wire.Record{{Epoch: 1, Sequence: 1, Payload: encode(t, &wire.Event{Type: "x"})}}}))
	c.await(wire.KindAck)
	say(other, 1)
	lab.Until(t, "the other's acknowledgement", acked(t, s, other, 1))
	if other.Welcomes() != 1 {
		t.Errorf("the other device was welcomed %d times", other.Welcomes())
	}
	t.Logf("%d messages refused, each with a code", len(kinds)*len(bad)+3)
}

// everything is what messages of devices can change.
func everything(t *testing.T, s *lab.Server) string {
	t.Helper()
	ds, err := s.DB.Devices(t.Context(), fleet.DeviceFilter{Limit: 100})
	must(t, err)
	as, err := s.DB.Audit(t.Context(), "", "", 1000)
	must(t, err)
	out := fmt.Sprintf("%d acts\n", len(as))
	for _, d := range ds {
		acks, aerr := s.DB.Acked(t.Context(), d.ID, d.Epoch)
		w, werr := s.DB.Wish(t.Context(), d.ID)
		must(t, errors.Join(aerr, werr))
		out += fmt.Sprintf("%s: %s, epoch %d, counter %d, generation %d, nonce %x, seen %v, online %v, acks %v, wish %d/%d, records %v\n",
			d.ID, d.Status, d.Epoch, d.Counter, d.Generation, d.Nonce, d.LastSeen, d.Online, acks, w.Generation, w.Version, stored(t, s, d.ID))
	}
	return out
}
