package broker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// outcome of an attack: what a PINGREQ behind it gets.
const (
	alive  = "alive"  // the session goes on
	closed = "closed" // the server ends it
)

// attack is what a device with a valid certificate of its own may try.
type attack struct {
	name    string
	packets [][]byte
	want    string
	refused int // SUBACK codes 0x80
	granted int // other SUBACK codes
}

func subscribe(filter string) attack {
	return attack{name: "subscribe " + filter, packets: [][]byte{subscribePacket(0, filter)}, want: alive, refused: 1}
}

func publish(topic string) attack {
	return attack{name: "publish " + topic, packets: [][]byte{publishPacket(topic, 0, false, []byte("{}"))}, want: alive}
}

func one(name, want string, p []byte) attack {
	return attack{name: name, packets: [][]byte{p}, want: want}
}

// attacks are those that were measured against this version of nats-server
// before it was chosen: after an upgrade this table says what changed.
func attacks() []attack {
	own, victim := "dunlin/v1/evil/", "dunlin/v1/victim/"
	as := []attack{
		{name: "subscribe its own", packets: [][]byte{subscribePacket(0, own+"down/#")}, want: alive, granted: 1},
		{name: "publish its own", packets: [][]byte{publishPacket(own+"up/junk", 0, false, nil)}, want: alive},
	}
	for _, f := range []string{
		victim + "down/#", "dunlin/v1/+/down/#", "#", "+/+/+/+/+", own + "up/#", own + "#", "$SYS/#", "$SYS/ACCOUNT/FLEET/CONNECT", "$MQTT/#", "$MQTT/JSA/#",
		"$JS/#", "$JS/EVENT/#", "$share/x/" + victim + "down/#", "_INBOX/#", "_R_/#", "dunlin.v1.victim.down/x", "dunlin/v1/*/down/x",
	} {
		as = append(as, subscribe(f))
	}
	// These mean nothing special to MQTT and lie below its own down.
	for _, f := range []string{own + "down/../../victim/#", own + "down/>"} {
		as = append(as, attack{name: "subscribe " + f, packets: [][]byte{subscribePacket(0, f)}, want: alive, granted: 1})
	}
	for _, t := range []string{
		victim + "up/hello", victim + "down/ask", "$SYS/REQ/SERVER/PING", "$SYS/ACCOUNT/FLEET/DISCONNECT", "$MQTT/sess/x", "$MQTT/msgs/" + victim + "down/ask",
		"dunlin.v1.victim.down.ask", "$MQTT/sub/x", "$JS/API/STREAM/LIST", "$JS/API/STREAM/DELETE/$MQTT_sess", own + "up", own + "down/ask",
	} {
		as = append(as, publish(t))
	}
	deep := strings.Repeat("a/", 30_000) + "a"
	long := make([]byte, 200<<10)
	as = append(as,
		one("publish to a wildcard", closed, publishPacket(own+"up/+", 0, false, nil)),
		one("publish over the limit", closed, publishPacket(own+"up/big", 0, false, long)),
		one("header of 256 MiB", closed, append([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, str(nil, "dunlin")...)),
		one("length of five bytes", closed, []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}),
		one("topic of slashes", alive, publishPacket(strings.Repeat("/", 65_535), 0, false, nil)),
		one("topic of 30,000 levels", alive, publishPacket(own+"up/"+deep, 0, false, nil)),
		attack{name: "filter of 30,000 levels", packets: [][]byte{subscribePacket(0, own+"down/"+deep)}, want: alive, refused: 1},
		one("subscribe without filter", closed, packet(0x82, []byte{0, 1})),
		one("subscribe with nothing", closed, packet(0x82, nil)),
		one("subscribe with packet id 0", closed, packet(0x82, append(append([]byte{0, 0}, str(nil, own+"down/#")...), 0))),
		one("subscribe with QoS 3", closed, subscribePacket(3, own+"down/#")),
		one("subscribe with wrong flags", closed, append([]byte{0x80}, subscribePacket(0, own+"down/#")[1:]...)),
		one("subscribe with a filter cut off", closed, packet(0x82, []byte{0, 1, 0xff, 0xff, 'd'})),
		one("subscribe without QoS byte", closed, packet(0x82, []byte{0, 1, 0, 1, 'd'})),
		one("subscribe with bad UTF-8", closed, subscribePacket(0, own+"down/\xff\xfe")),
		one("publish with bad UTF-8", closed, publishPacket(own+"up/\xff", 0, false, nil)),
		one("publish with QoS 3", closed, packet(0x36, append(str(nil, own+"up/x"), 0, 1))),
		one("packet of type 15", closed, packet(0xf0, nil)),
		one("second connect", closed, connectPacket(connectOpts{id: "evil"})),
		one("connect as another", closed, connectPacket(connectOpts{id: "victim"})),
		one("acknowledge what was never sent", alive, packet(0x40, []byte{0, 9})),
		one("publish QoS 1", alive, publishPacket(own+"up/q1", 1, false, []byte("x"))),
		one("publish QoS 1 for another", alive, publishPacket(victim+"up/hello", 1, false, []byte("x"))),
		one("publish QoS 2", closed, publishPacket(own+"up/q2", 2, false, []byte("x"))),
		attack{name: "subscribe QoS 1", packets: [][]byte{subscribePacket(1, own+"down/x")}, want: alive, refused: 1},
		attack{name: "subscribe QoS 2", packets: [][]byte{subscribePacket(2, own+"down/x")}, want: alive, refused: 1},
		one("retained to its own down", alive, publishPacket(own+"down/ask", 0, true, []byte("x"))),
	)
	flood := attack{name: "retained flood", want: alive}
	for i := range 150 {
		flood.packets = append(flood.packets, publishPacket(fmt.Sprintf("%sup/r%d", own, i), 0, true, make([]byte, 4096)))
	}
	acked := attack{name: "QoS 1 flood", want: alive}
	for range 50 {
		acked.packets = append(acked.packets, publishPacket(own+"up/q1", 1, false, make([]byte, 100<<10)))
	}
	var filters []string
	for i := range 1000 {
		filters = append(filters, fmt.Sprintf("%sdown/%d", own, i))
	}
	many := attack{name: "1,000 filters", packets: [][]byte{subscribePacket(0, filters...)}, want: alive, granted: 8, refused: 992}
	return append(as, flood, acked, many)
}

// A device with a valid certificate reaches nobody but the application, on its
// own topics; nothing that it sends is kept; another device does not notice.
func TestAttacks(t *testing.T) {
	r := start(t)
	victim := r.device(t, "victim")
	victim.Write(subscribePacket(0, "dunlin/v1/victim/down/#"))
	victim.fence(t)
	r.listen(t, "dunlin.v1.evil.up.")
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) { a.run(t, r) })
	}
	if got := victim.fence(t); len(got) > 0 {
		t.Errorf("the victim received %v", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.foreign) > 0 {
		t.Errorf("passed the broker: %v", r.foreign)
	}
	if got := r.sim.of("victim"); len(got) > 0 {
		t.Errorf("the application heard %v of the victim", got)
	}
	if got := r.sim.of("evil"); len(got) > 0 {
		t.Errorf("the application heard %v of the attacker", got)
	}
	if disk, messages := r.stored(t); disk > 0 || messages > 0 {
		t.Errorf("%d bytes on disk, %d messages are kept", disk, messages)
	}
}

func (a *attack) run(t *testing.T, r *rig) {
	evil := r.device(t, "evil")
	defer evil.bye()
	evil.Write(bytes.Join(append(a.packets, pingPacket), nil))
	got, refused, granted := "", 0, 0
	for got == "" {
		head, body, err := evil.next(patience)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			t.Fatal("neither answered nor closed")
		case err != nil:
			got = closed
		case head == 0xd0:
			got = alive
		case head == 0x90:
			for _, code := range body[2:] {
				if code == 0x80 {
					refused++
				} else {
					granted++
				}
			}
		}
	}
	if got != a.want || refused != a.refused || granted != a.granted {
		t.Errorf("%s, %d filters refused, %d granted; want %s, %d, %d", got, refused, granted, a.want, a.refused, a.granted)
	}
}

// Who does not get through CONNECT in time is closed.
func TestSlowConnections(t *testing.T) {
	r := start(t)
	for name, open := range map[string]func(t *testing.T) net.Conn{
		"no TLS": func(t *testing.T) net.Conn {
			c, err := net.Dial("tcp", r.Addr())
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		"no connect": func(t *testing.T) net.Conn {
			c, err := dialRaw(r.Addr(), r.tls(t, r.ca, "slow-1"))
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		"half a connect": func(t *testing.T) net.Conn {
			c, err := dialRaw(r.Addr(), r.tls(t, r.ca, "slow-2"))
			if err != nil {
				t.Fatal(err)
			}
			c.Write(connectPacket(connectOpts{id: "slow-2"})[:9])
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t)
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(patience))
			_, err := c.Read(make([]byte, 1))
			var timeout net.Error
			if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatalf("still open after %v: %v", patience, err)
			}
		})
	}
}
