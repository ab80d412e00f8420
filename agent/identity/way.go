package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// bearings are which way to the server is taken, guarded by the lock of pairs.
type bearings struct {
	post    *post          // nil: what the enrolment said
	ways    []wire.Address // in the order to be tried, at least one
	trusted []*x509.Certificate
	issuers []*x509.Certificate // of the own certificate: trusted, once trusted

	tried   int  // index of the way of this or the last session
	started bool // a session was tried
	arrived bool // the server has welcomed the device on it
	trouble string
	server  []*x509.Certificate // of the last handshake
}

// Way is how the server is reached.
type Way struct {
	wire.Address        // of this session or the last try
	First        string // MQTT address that is to be used
	// Trouble says why another is, empty: none is.
	Trouble string
	// Fallback tells that another way than the first was welcomed.
	Fallback bool
}

// Way tells it.
func (id *Identity) Way() Way {
	id.mu.Lock()
	defer id.mu.Unlock()
	return Way{Address: id.ways[id.tried], First: id.ways[0].MQTT, Trouble: id.trouble, Fallback: id.arrived && id.tried > 0}
}

// Next is where the next session is to be begun: the first way after one that was
// welcomed, another after each that was not. last is the error of the try before.
func (id *Identity) Next(last error, trusted func() bool) (broker string, c *tls.Config) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.started && !id.arrived {
		if id.tried == 0 && last != nil {
			id.trouble = last.Error()
		}
		id.tried = (id.tried + 1) % len(id.ways)
	} else {
		id.tried = 0
	}
	id.started, id.arrived = true, false
	at := id.ways[id.tried].MQTT
	return at, id.TLS(host(at), trusted)
}

func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return h
}

// arrive takes in a welcome on the way that is being tried. Moved tells the
// address before when it is another than the last that worked; what was kept as a
// way back is dropped once a listed one has worked. The lock is held.
func (id *Identity) arrive() (from string) {
	id.arrived = true
	if id.tried == 0 {
		id.trouble = ""
	}
	p, at := id.post, id.ways[id.tried]
	if p == nil || p.Last == at.MQTT {
		return ""
	}
	from = p.Last
	now := *p
	now.Last = at.MQTT
	if id.tried < len(p.Addresses) {
		now.Kept = nil
	}
	if id.keep("identity.arrived", &now) != nil {
		return "" // the next welcome tries again
	}
	return from
}

// Probe looks whether the server answers at the first way, as itself. Nothing of
// the device is shown. The error is kept as the trouble.
func (id *Identity) Probe(ctx context.Context, trusted func() bool) error {
	id.mu.Lock()
	at := id.ways[0].MQTT
	id.mu.Unlock()
	d := tls.Dialer{Config: id.checked(host(at), trusted)}
	conn, err := d.DialContext(ctx, "tcp", at)
	if err == nil {
		return conn.Close()
	}
	err = fmt.Errorf("%s: %w", at, err)
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.tried > 0 {
		id.trouble = err.Error()
	}
	return err
}

// servers are the API's addresses, the one in use first.
func (id *Identity) servers() []string {
	id.mu.Lock()
	defer id.mu.Unlock()
	out := []string{id.ways[id.tried].Server}
	for i, w := range id.ways {
		if i != id.tried {
			out = append(out, w.Server)
		}
	}
	return out
}
