package broker

import (
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
	c.RegisterUser(&server.User{Username: device, Account: b.fleet, Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{subjectRoot + device + ".up.*"}},
		Subscribe: &server.SubjectPermission{Allow: []string{subjectRoot + device + ".down.>", subjectRoot + device + ".down"}},
	}})
	return true
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

// limiter is one device's rate of messages.
type limiter struct{ r *rate.Limiter }

// allow counts a message and kicks and bans a device that sends too many.
func (b *Broker) allow(device string) bool {
	b.mu.Lock()
	l := b.limits[device]
	if l == nil {
		l = &limiter{rate.NewLimiter(messagesPerSecond, messageBurst)}
		b.limits[device] = l
	}
	ok := l.r.Allow()
	_, out := b.banned[device]
	if !ok && !out {
		b.banned[device] = time.Now().Add(banTime)
	}
	b.mu.Unlock()
	if !ok && !out {
		b.c.Log.Warn("device kicked: too many messages", "device", device, "for", banTime)
		b.Kick(device)
	}
	return ok
}

func (b *Broker) isBanned(device string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.banned[device]
	if ok && time.Now().After(until) {
		delete(b.banned, device)
		delete(b.limits, device)
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
