package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Who is not let in gets no session, and the one whose name was tried keeps its
// own.
func TestAdmission(t *testing.T) {
	r := start(t)
	other, err := enroll.NewCA("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	victim := r.device(t, "victim")
	r.sim.mu.Lock()
	r.sim.revoked["revoked"] = true
	r.sim.mu.Unlock()
	nobody := r.tls(t, r.ca, "x")
	nobody.Certificates = nil
	old := r.tls(t, r.ca, "victim")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, c := range map[string]struct {
		tls *tls.Config
		o   connectOpts
	}{
		"no certificate":                 {nobody, connectOpts{id: "victim"}},
		"certificate of another CA":      {r.tls(t, other, "victim"), connectOpts{id: "victim"}},
		"TLS 1.2":                        {old, connectOpts{id: "victim"}},
		"client id of another":           {r.tls(t, r.ca, "evil"), connectOpts{id: "victim"}},
		"no client id":                   {r.tls(t, r.ca, "evil"), connectOpts{}},
		"client id in capitals":          {r.tls(t, r.ca, "evil"), connectOpts{id: "EVIL"}},
		"user name of another":           {r.tls(t, r.ca, "evil"), connectOpts{id: "evil", user: "victim"}},
		"user name of the system":        {r.tls(t, r.ca, "evil"), connectOpts{id: "evil", user: "sys"}},
		"name that is no device id":      {r.tls(t, r.ca, "Evil.device"), connectOpts{id: "Evil.device"}},
		"name of a wildcard":             {r.tls(t, r.ca, "*"), connectOpts{id: "*"}},
		"empty name":                     {r.tls(t, r.ca, ""), connectOpts{id: ""}},
		"revoked":                        {r.tls(t, r.ca, "revoked"), connectOpts{id: "revoked"}},
		"revoked, with another's id":     {r.tls(t, r.ca, "revoked"), connectOpts{id: "victim"}},
		"last will for another":          {r.tls(t, r.ca, "evil"), connectOpts{id: "evil", will: "dunlin/v1/victim/up/hello", willQoS: 2}},
		"client id with a NUL behind it": {r.tls(t, r.ca, "evil"), connectOpts{id: "evil\x00"}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dialRaw(r.Addr(), c.tls)
			if err != nil {
				return
			}
			defer conn.Close()
			if code, err := conn.connect(c.o); err == nil && code == 0 {
				t.Fatal("let in")
			}
		})
	}
	if got := victim.fence(t); len(got) > 0 {
		t.Fatalf("the victim received %v", got)
	}
	if got := r.sim.of("victim"); len(got) > 0 {
		t.Fatalf("the application heard %v of the victim", got)
	}
}

// A will of its own device may be set; it is published as the device would.
func TestWillReachesOnlyItsOwn(t *testing.T) {
	r := start(t)
	r.listen(t, "dunlin.v1.evil.up.")
	for _, topic := range []string{"dunlin/v1/victim/up/hello", "dunlin/v1/victim/down/ask", "$SYS/REQ/SERVER/PING"} {
		conn, err := dialRaw(r.Addr(), r.tls(t, r.ca, "evil"))
		if err != nil {
			t.Fatal(err)
		}
		conn.connect(connectOpts{id: "evil", will: topic})
		conn.Close() // without DISCONNECT: the will is due
		r.sim.await(t, call{device: "evil", kind: wire.KindPresence, online: true})
		r.sim.await(t, call{device: "evil", kind: wire.KindPresence, online: false})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.foreign) > 0 {
		t.Fatalf("passed the broker: %v", r.foreign)
	}
}

// Revoking a device ends its session at once and refuses the next one.
func TestKickAndRevoke(t *testing.T) {
	r := start(t)
	d := r.device(t, "meter-1")
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: true})
	r.sim.mu.Lock()
	r.sim.revoked["meter-1"] = true
	r.sim.mu.Unlock()
	if n := r.Kick("meter-1"); n != 1 {
		t.Fatalf("%d sessions ended", n)
	}
	if _, _, err := d.next(patience); err == nil {
		t.Fatal("the session goes on")
	}
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: false})
	conn, err := dialRaw(r.Addr(), r.tls(t, r.ca, "meter-1"))
	if err == nil {
		defer conn.Close()
		if code, err := conn.connect(connectOpts{id: "meter-1"}); err == nil && code == 0 {
			t.Fatal("let in again")
		}
	}
	if n := r.Kick("nobody"); n != 0 {
		t.Fatalf("%d sessions of nobody ended", n)
	}
}

// A session that was admitted in the moment of a revocation ends when it is there.
func TestRevokedInBetween(t *testing.T) {
	r := start(t)
	r.sim.mu.Lock()
	r.sim.expelled["meter-1"] = true
	r.sim.mu.Unlock()
	d, err := dialRaw(r.Addr(), r.tls(t, r.ca, "meter-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.connect(connectOpts{id: "meter-1"}) // the end may come before the answer
	if _, _, err := d.next(patience); err == nil {
		t.Fatal("the session goes on")
	}
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: false})
}

// A session that was let in with a key that another has taken the place of by the
// time it begins ends; the one with the present key goes on.
func TestKeyReplacedInBetween(t *testing.T) {
	r := start(t)
	now := r.device(t, "meter-1")
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: true})
	old := r.tls(t, r.ca, "meter-2")
	cert, err := x509.ParseCertificate(old.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r.sim.mu.Lock()
	r.sim.outdated = cert.SerialNumber
	r.sim.mu.Unlock()
	d, err := dialRaw(r.Addr(), old)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.connect(connectOpts{id: "meter-2"})
	if _, _, err := d.next(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the session goes on")
	}
	now.fence(t) // the other session goes on
	r.Broker.mu.Lock()
	defer r.Broker.mu.Unlock()
	if n := len(r.shown); n > 0 {
		t.Errorf("%d certificates are remembered", n)
	}
}

// A device that floods is kicked and refused for a while; another one's hellos
// are all answered meanwhile.
func TestFlood(t *testing.T) {
	r := start(t)
	good := r.device(t, "good")
	good.Write(subscribePacket(0, wire.DownFilter("good")))
	evil := r.device(t, "evil")
	hello := encode(t, &wire.Hello{Protocols: []int{1}})
	p := publishPacket(wire.UpTopic("evil", wire.KindHello), 0, false, hello)
	for range 20 * messageBurst {
		if _, err := evil.Write(p); err != nil {
			break
		}
	}
	for range 5 {
		good.Write(publishPacket(wire.UpTopic("good", wire.KindHello), 0, false, hello))
		good.receive(t, wire.DownTopic("good", wire.KindWelcome))
	}
	for {
		if _, _, err := evil.next(patience); err != nil {
			break
		}
	}
	if !r.isBanned("evil") || r.isBanned("good") {
		t.Fatal("the wrong one is banned")
	}
	if n := len(r.sim.of("evil")); n > 2*messageBurst {
		t.Errorf("%d messages of the flood were handled", n)
	}
	conn, err := dialRaw(r.Addr(), r.tls(t, r.ca, "evil"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if code, err := conn.connect(connectOpts{id: "evil"}); err == nil && code == 0 {
		t.Fatal("let in although it is banned")
	}
}

// Many short sessions have no more than one long one.
func TestFloodOverManySessions(t *testing.T) {
	r := start(t)
	p := publishPacket(wire.UpTopic("evil", wire.KindHello), 0, false, encode(t, &wire.Hello{Protocols: []int{1}}))
	for i := range 10 {
		c, err := dialRaw(r.Addr(), r.tls(t, r.ca, "evil"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		code, err := c.connect(connectOpts{id: "evil"})
		if err != nil || code != 0 {
			if r.isBanned("evil") {
				return
			}
			t.Fatalf("code %d, %v", code, err)
		}
		for range messageBurst * 3 / 4 {
			c.Write(p)
		}
		waitFor(t, func() bool { return len(r.sim.of("evil")) == (i+1)*messageBurst*3/4 || r.isBanned("evil") })
		c.bye()
		r.sim.await(t, call{device: "evil", kind: wire.KindPresence, online: false})
	}
	t.Fatal("10 sessions of 150 messages each were let through")
}

// What nobody hears is counted too.
func TestPoliceCountsUnheardMessages(t *testing.T) {
	r := start(t)
	d := r.device(t, "evil")
	p := publishPacket("dunlin/v1/evil/up/junk", 0, false, nil)
	for range messageBurst + 10 {
		d.Write(p)
	}
	d.fence(t)
	d.fence(t) // nats-server adds up when it has read everything
	z, err := r.srv.Connz(&server.ConnzOptions{Account: account})
	if err != nil {
		t.Fatal(err)
	}
	r.police(z.Conns, 0)
	if !r.isBanned("evil") {
		t.Fatal("not banned")
	}
	if _, _, err := d.next(patience); err == nil {
		t.Fatal("the session goes on")
	}
}

// A ban ends by itself; limiters that are full again are forgotten.
func TestBanEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Broker{limits: map[string]*rate.Limiter{}, banned: map[string]time.Time{"evil": time.Now().Add(banTime), "gone": time.Now().Add(time.Second)}}
		b.limits["evil"] = rate.NewLimiter(messagesPerSecond, messageBurst)
		b.limits["evil"].AllowN(time.Now(), messageBurst)
		time.Sleep(banTime - time.Second)
		if !b.isBanned("evil") {
			t.Fatal("the ban ended too soon")
		}
		time.Sleep(2 * time.Second)
		if b.isBanned("evil") {
			t.Fatal("the ban does not end")
		}
		b.police(nil, reconcileEvery)
		if len(b.banned)+len(b.limits) > 0 {
			t.Fatalf("%v and %v are kept", b.banned, b.limits)
		}
	})
}

func TestPresence(t *testing.T) {
	r := start(t)
	d := r.device(t, "meter-1")
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: true})
	if got := r.Online(); !slices.Contains(got, "meter-1") {
		t.Fatalf("online: %v", got)
	}
	// An event that was lost is made good.
	r.Broker.mu.Lock()
	delete(r.live, "meter-1")
	r.live["ghost"] = map[uint64]bool{99: true}
	r.Broker.mu.Unlock()
	r.reconcile()
	r.sim.await(t, call{device: "ghost", kind: wire.KindPresence, online: false})
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: true})
	d.Close()
	r.sim.await(t, call{device: "meter-1", kind: wire.KindPresence, online: false})
}

// A refused duplicate tells of itself too: presence is a set of connections.
func TestNote(t *testing.T) {
	b := &Broker{live: map[string]map[uint64]bool{}}
	for i, c := range []struct {
		id              uint64
		up              bool
		changed, online bool
	}{
		{1, true, true, true}, {2, true, false, true}, {2, false, false, true}, {1, false, true, false}, {1, false, false, false},
	} {
		if changed, online := b.note("meter-1", c.id, c.up); changed != c.changed || online != c.online {
			t.Errorf("step %d: changed %v, online %v", i, changed, online)
		}
	}
}
