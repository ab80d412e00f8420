package broker

import (
	"crypto/x509"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Limits of one device. nats-server has none of its own: a publish flood is the
// one thing that a valid certificate could still do.
const (
	messagesPerSecond = 100
	messageBurst      = 200
	banTime           = 30 * time.Second
)

// Check implements server.Authentication. It runs at MQTT CONNECT, before any
// session of that name is touched, so a refused connection disturbs nobody.
func (b *Broker) Check(c server.ClientAuthentication) bool {
	ts := c.GetTLSConnectionState()
	if ts == nil { // in-process
		o := c.GetOpts()
		if o.Password != b.secret {
			return false
		}
		u := &server.User{Username: o.Username, Account: b.fleet}
		if o.Username == "sys" {
			u.Account = b.sys
		}
		c.RegisterUser(u)
		return true
	}
	if len(ts.VerifiedChains) == 0 {
		return false
	}
	cert := ts.VerifiedChains[0][0]
	device := cert.Subject.CommonName
	if !wire.ValidDevice(device) || b.isBanned(device) || b.c.Admit(cert) != nil {
		return false
	}
	if id := b.clientID(c); id != device {
		b.c.Log.Warn("connection refused: the client id is not the certificate's", "device", device, "client_id", id)
		return false
	}
	if u := c.GetOpts().Username; u != "" && u != device {
		return false
	}
	// The handshake is over: only now it is known that the key is held.
	if b.c.Came != nil {
		if err := b.c.Came(cert); err != nil {
			b.c.Log.Warn("connection refused", "device", device, "err", err)
			return false
		}
	}
	b.mu.Lock()
	b.shown[c.GetID()] = shown{device, cert, time.Now()}
	b.mu.Unlock()
	if b.c.Session != nil {
		b.c.Session(device, host(c.RemoteAddress()))
	}
	c.RegisterUser(&server.User{Username: device, Account: b.fleet, Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{subjectRoot + device + ".up.*"}},
		Subscribe: &server.SubjectPermission{Allow: []string{subjectRoot + device + ".down.>", subjectRoot + device + ".down"}},
	}})
	return true
}

// shown is the certificate that a connection was let in with.
type shown struct {
	device string
	cert   *x509.Certificate
	at     time.Time
}

// stays looks again at a session that has begun: the identity may have ended, or
// gone to another key, after it was let in and before Kick could find it.
func (b *Broker) stays(device string, id uint64) {
	b.mu.Lock()
	x := b.shown[id]
	delete(b.shown, id)
	b.mu.Unlock()
	if x.cert == nil {
		return
	}
	if err := b.c.Admit(x.cert); err != nil {
		b.c.Log.Info("session ended: its certificate is refused by now", "device", device, "err", err)
		b.srv.DisconnectClientByID(id) // it may be gone
	}
}

func host(a net.Addr) string {
	if a == nil {
		return ""
	}
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

// clientID asks the server for the MQTT client id of a connection that is not
// registered yet: such connections are few, so the look-up is small.
func (b *Broker) clientID(c server.ClientAuthentication) string {
	z, err := b.srv.Connz(&server.ConnzOptions{CID: c.GetID(), Account: b.srv.GlobalAccount().GetName()})
	if err != nil || len(z.Conns) != 1 {
		return ""
	}
	return z.Conns[0].MQTTClient
}

// allow counts a message and kicks and bans a device that sends too many. The
// count survives the session: connecting anew does not begin it again.
func (b *Broker) allow(device string) bool {
	b.mu.Lock()
	l := b.limits[device]
	if l == nil {
		l = rate.NewLimiter(messagesPerSecond, messageBurst)
		b.limits[device] = l
	}
	ok := l.Allow()
	b.mu.Unlock()
	if !ok {
		b.ban(device)
	}
	return ok
}

// ban ends a device's sessions and refuses it for banTime.
func (b *Broker) ban(device string) {
	b.mu.Lock()
	_, out := b.banned[device]
	if !out {
		b.banned[device] = time.Now().Add(banTime)
	}
	b.mu.Unlock()
	if !out {
		b.c.Log.Warn("device kicked: too many messages", "device", device, "for", banTime)
		b.Kick(device)
	}
}

// police bans whoever sent more than it may since the last call, as nats-server
// counted: also what went to topics that nobody hears or that are refused. It
// forgets limiters and bans that no longer say anything.
func (b *Broker) police(conns []*server.ConnInfo, since time.Duration) {
	limit := int64(messageBurst + since.Seconds()*messagesPerSecond)
	sent := map[uint64]int64{}
	b.mu.Lock()
	before := b.sent
	b.sent = sent
	for d, l := range b.limits {
		if l.Tokens() >= messageBurst {
			delete(b.limits, d)
		}
	}
	for d, until := range b.banned {
		if time.Now().After(until) {
			delete(b.banned, d)
		}
	}
	b.mu.Unlock()
	for _, c := range conns {
		if c.MQTTClient == "" {
			continue
		}
		sent[c.Cid] = c.InMsgs
		if c.InMsgs-before[c.Cid] > limit {
			b.ban(c.MQTTClient)
		}
	}
}

func (b *Broker) isBanned(device string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.banned[device]
	if ok && time.Now().After(until) {
		delete(b.banned, device)
		return false
	}
	return ok
}

// Kick ends every session of a device and returns how many there were.
func (b *Broker) Kick(device string) int {
	z, err := b.srv.Connz(&server.ConnzOptions{MQTTClient: device, Account: account, Limit: 16})
	if err != nil {
		return 0
	}
	n := 0
	for _, c := range z.Conns {
		if b.srv.DisconnectClientByID(c.Cid) == nil {
			n++
		}
	}
	return n
}
