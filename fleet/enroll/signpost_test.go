package enroll_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var moved = wire.Address{Server: "https://new.example:8443", MQTT: "new.example:8883"}

func newCA(t *testing.T) *enroll.CA {
	t.Helper()
	ca, err := enroll.NewCA("test", start)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// becomes changes what the server is known by.
func (r *rig) becomes(cas []*enroll.CA, at ...wire.Address) {
	r.standing = &enroll.Standing{CAs: cas, Addresses: at}
}

// reader is a device that reads signposts.
type reader struct {
	t    *testing.T
	r    *rig
	id   string
	cas  []*x509.Certificate // trusted
	held wire.SignpostHeld
}

// hello tells what is held, and takes in what comes; it returns the number, 0: none.
func (d *reader) hello() int64 {
	d.t.Helper()
	env, err := d.r.Tell(d.t.Context(), d.id, &d.held)
	if err != nil {
		d.t.Fatal(err)
	}
	if env == nil {
		return 0
	}
	var keys []*ecdsa.PublicKey
	for _, c := range d.cas {
		keys = append(keys, c.PublicKey.(*ecdsa.PublicKey))
	}
	s, err := env.OpenSignpost(keys)
	if err != nil {
		d.t.Fatal(err)
	}
	if s.Device != d.id || s.Number <= d.held.Number {
		d.t.Errorf("%s, which holds %d, is sent %d of %s", d.id, d.held.Number, s.Number, s.Device)
	}
	d.cas, d.held = nil, wire.SignpostHeld{Number: s.Number, Mark: wire.Mark(env.Payload)}
	for _, der := range s.CAs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			d.t.Fatal(err)
		}
		d.cas = append(d.cas, c)
	}
	return s.Number
}

func (r *rig) reader(t *testing.T, id string) *reader {
	t.Helper()
	r.member(t, id)
	return &reader{t: t, r: r, id: id, cas: []*x509.Certificate{certificate(t, r.standing.CAs[0].Cert())}}
}

func TestTell(t *testing.T) {
	r := newRig(t).withRoots(t)
	first, home := r.standing.CAs[0], r.standing.Addresses[0]
	next := newCA(t)
	d := r.reader(t, "meter-1")
	if env, err := r.Tell(t.Context(), d.id, nil); env != nil || err != nil {
		t.Error("an agent that takes none:", env, err)
	}
	if n := d.hello(); n != 0 {
		t.Error("nothing has changed, and it is told", n)
	}
	// Both CAs, then the other issues, then it stands alone; the name changes, too.
	for i, step := range []struct {
		cas []*enroll.CA
		at  []wire.Address
	}{
		{[]*enroll.CA{first, next}, []wire.Address{home}},
		{[]*enroll.CA{next, first}, []wire.Address{home}},
		{[]*enroll.CA{next}, []wire.Address{moved, home}},
		{[]*enroll.CA{next}, []wire.Address{moved}},
	} {
		r.becomes(step.cas, step.at...)
		if n := d.hello(); n != int64(i+1) {
			t.Errorf("step %d: told %d", i, n)
		}
		for range 2 {
			if n := d.hello(); n != 0 {
				t.Errorf("step %d: told again: %d", i, n)
			}
		}
	}
	row, err := r.db.Signpost(t.Context(), d.id)
	if err != nil || row.Using != moved.MQTT || row.Trouble != "" || row.Holds().Number != 4 {
		t.Errorf("%+v, %v", row, err)
	}
	d.held.Using, d.held.Trouble = home.MQTT, "no such host"
	d.hello()
	if row, err = r.db.Signpost(t.Context(), d.id); err != nil || row.Using != home.MQTT || row.Trouble != "no such host" {
		t.Errorf("%+v, %v", row, err)
	}
}

// What either side has forgotten is told again, under a number that rises.
func TestTellForgetful(t *testing.T) {
	r := newRig(t).withRoots(t)
	first, home := r.standing.CAs[0], r.standing.Addresses[0]
	d := r.reader(t, "meter-1")
	both := []*enroll.CA{first, newCA(t)}
	r.becomes(both, home)
	// The answer is lost: the same comes again.
	a, err := r.Tell(t.Context(), d.id, &wire.SignpostHeld{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Tell(t.Context(), d.id, &wire.SignpostHeld{})
	if err != nil || !slices.Equal(a.Payload, b.Payload) {
		t.Error("another signpost for the same", err)
	}
	d.hello()
	// The server was restored, and the device holds what nobody knows.
	d.held.Number, d.held.Mark = 7, []byte("12345678")
	if n := d.hello(); n != 8 {
		t.Errorf("told %d", n)
	}
	// The device has lost the file.
	d.held = wire.SignpostHeld{}
	if n := d.hello(); n != 8 {
		t.Errorf("told %d", n)
	}
	// The same number, with another content.
	d.held.Mark = []byte("87654321")
	if n := d.hello(); n != 9 {
		t.Errorf("told %d", n)
	}
}

// A device is given certificates of a CA that it knows.
func TestRenewAcrossCAs(t *testing.T) {
	r := newRig(t).withRoots(t)
	first, next := r.standing.CAs[0], newCA(t)
	home := r.standing.Addresses[0]
	told, deaf := r.member(t, "meter-1"), r.member(t, "meter-2")
	r.becomes([]*enroll.CA{next, first}, home)
	d := &reader{t: t, r: r, id: "meter-1", cas: []*x509.Certificate{certificate(t, first.Cert())}}
	d.hello()
	d.hello()
	for m, want := range map[*member]*enroll.CA{told: next, deaf: first} {
		reply, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256())))
		if err != nil {
			t.Fatal(err)
		}
		c := certificate(t, reply.Certificate)
		if r.standing.Of(c) != want || !m.admitted(c) {
			t.Errorf("%s got a certificate of %v", m.cert.Subject.CommonName, c.Issuer)
		}
	}
	fs, err := r.db.Followers(t.Context())
	if err != nil || len(fs) != 2 {
		t.Fatal(fs, err)
	}
	both, one := []string{next.Name(), first.Name()}, []string{first.Name()}
	for i, want := range []enroll.Followed{{Device: "meter-1", Knows: both, Hangs: both, Address: home.MQTT}, {Device: "meter-2", Knows: one, Hangs: one}} {
		if diff := cmp.Diff(want, r.standing.Follow(&fs[i])); diff != "" {
			t.Error(diff)
		}
	}
}

// A token that names a former CA is good while that is accepted.
func TestTokenOfFormerCA(t *testing.T) {
	r := newRig(t).withRoots(t)
	first, next, home := r.standing.CAs[0], newCA(t), r.standing.Addresses[0]
	token := r.token(t, 2)
	r.becomes([]*enroll.CA{next, first}, home)
	req := request(t, token, newKey(t, elliptic.P256()), "meter-1")
	req.CA = token.CA
	reply, err := r.Enrol(t.Context(), req)
	if err != nil || r.standing.Of(certificate(t, reply.Certificate)) != first || !certificate(t, reply.CA).Equal(certificate(t, first.Cert())) {
		t.Errorf("%v", err)
	}
	r.becomes([]*enroll.CA{next}, home)
	req = request(t, token, newKey(t, elliptic.P256()), "meter-2")
	req.CA = token.CA
	if _, err := r.Enrol(t.Context(), req); !errors.Is(err, fleet.ErrTokenCA) {
		t.Error(err)
	}
}

// The server is known by every CA that is accepted, whatever it is shown by.
func TestBridge(t *testing.T) {
	first, next, third, other := newCA(t), newCA(t), newCA(t), newCA(t)
	st := &enroll.Standing{CAs: []*enroll.CA{next, first, third}}
	cert, err := st.Server([]string{"fleet.example"}, start)
	if err != nil {
		t.Fatal(err)
	}
	for ca, want := range map[*enroll.CA]bool{first: true, next: true, third: true, other: false} {
		opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: "fleet.example", CurrentTime: start.Add(time.Hour)}
		opts.Roots.AddCert(certificate(t, ca.Cert()))
		for _, der := range cert.Certificate[1:] {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			opts.Intermediates.AddCert(c)
		}
		if _, err := cert.Leaf.Verify(opts); (err == nil) != want {
			t.Errorf("known: %v, want %v", err, want)
		}
	}
	// A device's certificate of the next CA is none of the former's, in spite of it.
	text, _, err := next.Device("meter-1", &newKey(t, elliptic.P256()).PublicKey, start)
	if err != nil {
		t.Fatal(err)
	}
	old := &enroll.Standing{CAs: []*enroll.CA{first}}
	opts := x509.VerifyOptions{Roots: old.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: start}
	if _, err := certificate(t, text).Verify(opts); err == nil || old.Of(certificate(t, text)) != nil {
		t.Error("it is")
	}
}

func TestCovers(t *testing.T) {
	first, next := newCA(t), newCA(t)
	alone := &enroll.Standing{CAs: []*enroll.CA{first}}
	cert := func(names ...string) *tls.Certificate {
		c, err := alone.Server(names, start)
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	for name, tc := range map[string]struct {
		st    *enroll.Standing
		names []string
		at    time.Time
		want  bool
	}{
		"as it was":      {alone, []string{"a.example"}, start, true},
		"another name":   {alone, []string{"a.example", "b.example"}, start, false},
		"another CA":     {&enroll.Standing{CAs: []*enroll.CA{next}}, []string{"a.example"}, start, false},
		"a bridge wants": {&enroll.Standing{CAs: []*enroll.CA{first, next}}, []string{"a.example"}, start, false},
		"half over":      {alone, []string{"a.example"}, start.Add(enroll.ServerLife/2 + time.Hour), false},
	} {
		if got := tc.st.Covers(cert("a.example").Leaf, tc.names, tc.at); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever an interruption leaves of the two files is read as before or after.
func TestLoadCAs(t *testing.T) {
	a, b := newCA(t), newCA(t)
	keys := func(cas ...*enroll.CA) []byte {
		k, err := enroll.Keys(cas)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, tc := range map[string]struct {
		certs, keys []byte
		want        int // 0: refused
	}{
		"one":                       {a.Cert(), keys(a), 1},
		"two":                       {enroll.Certs([]*enroll.CA{b, a}), keys(a, b), 2},
		"the certificate to follow": {a.Cert(), keys(a, b), 1},
		"a key is missing":          {enroll.Certs([]*enroll.CA{a, b}), keys(a), 0},
		"none":                      {nil, keys(a), 0},
		"another's key":             {a.Cert(), keys(b), 0},
		"too many":                  {enroll.Certs([]*enroll.CA{a, b, a, b, a}), keys(a, b), 0},
	} {
		got, err := enroll.LoadCAs(tc.certs, tc.keys)
		if len(got) != tc.want || (err != nil) != (tc.want == 0) {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
}
