package broker

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// raw is a small MQTT 3.1.1 client that can also send what no client should.
type raw struct {
	net.Conn
	r *bufio.Reader
}

// connectOpts of a CONNECT packet.
type connectOpts struct {
	id, user, will string
	willQoS        byte
	unclean        bool
}

// dialRaw makes the TLS connection only.
func dialRaw(addr string, c *tls.Config) (*raw, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: c}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &raw{nc, bufio.NewReader(nc)}, nil
}

func str(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// packet frames a body.
func packet(head byte, body []byte) []byte {
	b := []byte{head}
	for n := len(body); ; {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			d |= 0x80
		}
		if b = append(b, d); n == 0 {
			return append(b, body...)
		}
	}
}

func connectPacket(o connectOpts) []byte {
	var flags byte
	if !o.unclean {
		flags |= 2
	}
	if o.will != "" {
		flags |= 4 | o.willQoS<<3
	}
	if o.user != "" {
		flags |= 0x80
	}
	b := append(str(nil, "MQTT"), 4, flags, 0, 0)
	b = str(b, o.id)
	if o.will != "" {
		b = str(str(b, o.will), "gone")
	}
	if o.user != "" {
		b = str(b, o.user)
	}
	return packet(0x10, b)
}

func publishPacket(topic string, qos byte, retain bool, payload []byte) []byte {
	head := 0x30 | qos<<1
	if retain {
		head |= 1
	}
	b := str(nil, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, 5)
	}
	return packet(head, append(b, payload...))
}

func subscribePacket(qos byte, filters ...string) []byte {
	b := []byte{0, 7}
	for _, f := range filters {
		b = append(str(b, f), qos)
	}
	return packet(0x82, b)
}

var pingPacket = []byte{0xc0, 0}

// next reads one packet.
func (r *raw) next(wait time.Duration) (head byte, body []byte, err error) {
	r.SetReadDeadline(time.Now().Add(wait))
	if head, err = r.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r.r) // MQTT's remaining length has the same form
	if err != nil || n > 1<<20 {
		return 0, nil, fmt.Errorf("length %d: %w", n, err)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r.r, body)
	return head, body, err
}

// connect sends CONNECT and returns the code of its answer.
func (r *raw) connect(o connectOpts) (code byte, err error) {
	if _, err := r.Write(connectPacket(o)); err != nil {
		return 0, err
	}
	head, body, err := r.next(patience)
	if err != nil {
		return 0, fmt.Errorf("no answer to connect: %w", err)
	}
	if head != 0x20 || len(body) != 2 {
		return 0, fmt.Errorf("packet %x %x is no answer to connect", head, body)
	}
	return body[1], nil
}

// bye ends the session and waits until the server has closed it, so that the same
// device can come back at once.
func (r *raw) bye() {
	r.Write([]byte{0xe0, 0})
	for {
		if _, _, err := r.next(patience); err != nil {
			break
		}
	}
	r.Close()
}

// fence waits until the server has taken in everything sent before, and returns
// the messages that came meanwhile.
func (r *raw) fence(t *testing.T) (topics []string) {
	t.Helper()
	if _, err := r.Write(pingPacket); err != nil {
		t.Fatal(err)
	}
	for {
		head, body, err := r.next(patience)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case head == 0xd0:
			return topics
		case head&0xf0 == 0x30:
			topic, _ := message(body)
			topics = append(topics, topic)
		}
	}
}

// message takes a QoS 0 PUBLISH apart.
func message(body []byte) (topic string, payload []byte) {
	n := int(binary.BigEndian.Uint16(body))
	return string(body[2 : 2+n]), body[2+n:]
}

// receive returns the next message on a topic.
func (r *raw) receive(t *testing.T, topic string) []byte {
	t.Helper()
	for {
		head, body, err := r.next(patience)
		if err != nil {
			t.Fatalf("wait for %s: %v", topic, err)
		}
		if head&0xf0 != 0x30 {
			continue
		}
		if got, payload := message(body); got == topic {
			return payload
		}
	}
}
