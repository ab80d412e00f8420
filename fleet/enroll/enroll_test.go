package enroll_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rig is enrolment over the real store with a clock that the test turns.
type rig struct {
	*enroll.Service
	db  *sqlite.DB
	now time.Time

	standing *enroll.Standing
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ca, err := enroll.NewCA("test", start)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{db: db, now: start}
	r.standing = &enroll.Standing{CAs: []*enroll.CA{ca}, Addresses: []wire.Address{{Server: "https://fleet.example:8443", MQTT: "fleet.example:8883"}}}
	r.Service = &enroll.Service{Standing: func() *enroll.Standing { return r.standing }, Store: db, Now: func() time.Time { return r.now }}
	return r
}

// withRoots installs two roots of the catalog and one of the director.
func (r *rig) withRoots(t *testing.T) *rig {
	t.Helper()
	rows := []fleet.MetaRow{
		{Repo: wire.RepoCatalog, Role: "root", Version: 1, Bytes: []byte("catalog 1")}, {Repo: wire.RepoCatalog, Role: "root", Version: 2, Bytes: []byte("catalog 2")},
		{Repo: wire.RepoDirector, Role: "root", Version: 1, Bytes: []byte("director 1")},
	}
	if err := r.db.PutMetadata(t.Context(), rows, nil, nil, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) token(t *testing.T, max int) *wire.EnrolToken {
	t.Helper()
	_, text, err := r.NewToken(t.Context(), fleet.TokenRequest{Channel: "production", Labels: map[string]string{"site": "harbour"}, Max: max, Expires: time.Hour}, "anna")
	if err != nil {
		t.Fatal(err)
	}
	token, err := wire.ParseEnrolToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// request is what a device with this key sends.
func request(t *testing.T, token *wire.EnrolToken, key crypto.Signer, device string) *wire.EnrolRequest {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := &wire.EnrolRequest{Token: token.ID, Secret: bytes.Clone(token.Secret), Device: device, PublicKey: spki, Facts: map[string]string{"arch": "arm64"}}
	sign(t, r, key)
	return r
}

func sign(t *testing.T, r *wire.EnrolRequest, key crypto.Signer) {
	t.Helper()
	sum := sha256.Sum256(wire.EnrolProof(r.Token, r.PublicKey))
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	r.Signature = sig
}

func newKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func certificate(t *testing.T, b []byte) *x509.Certificate {
	t.Helper()
	p, _ := pem.Decode(b)
	c, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnrol(t *testing.T) {
	r := newRig(t).withRoots(t)
	token, key := r.token(t, 1), newKey(t, elliptic.P256())
	req := request(t, token, key, "")
	reply, err := r.Enrol(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(reply.Device, "d-") || !wire.ValidDevice(reply.Device) || reply.Channel != "production" || reply.MQTT != "fleet.example:8883" {
		t.Errorf("%+v", reply)
	}
	if len(reply.CatalogRoots) != 2 || len(reply.DirectorRoots) != 1 {
		t.Errorf("%d and %d roots", len(reply.CatalogRoots), len(reply.DirectorRoots))
	}
	// The token names what the reply brings.
	for what, c := range map[string]struct{ token, have []byte }{
		"CA":       {token.CA, certificate(t, reply.CA).Raw},
		"catalog":  {token.CatalogRoot, reply.CatalogRoots[0]},
		"director": {token.DirectorRoot, reply.DirectorRoots[0]},
	} {
		if sum := sha256.Sum256(c.have); !bytes.Equal(sum[:], c.token) {
			t.Errorf("the token does not name the %s", what)
		}
	}
	d, err := r.db.Device(t.Context(), reply.Device)
	if err != nil || d.Labels["site"] != "harbour" || d.Facts["arch"] != "arm64" || d.Status != fleet.DeviceActive {
		t.Errorf("%+v, %v", d, err)
	}
	// A lost answer: the same key gets the same certificate, and counts once.
	r.now = r.now.Add(30 * time.Minute)
	again, err := r.Enrol(t.Context(), req)
	if err != nil || !bytes.Equal(again.Certificate, reply.Certificate) || again.Device != reply.Device {
		t.Errorf("replay: %v", err)
	}
}

func TestEnrolRefusals(t *testing.T) {
	r := newRig(t).withRoots(t)
	key := newKey(t, elliptic.P256())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	used, taken := r.token(t, 1), r.token(t, 10)
	for _, req := range []*wire.EnrolRequest{request(t, used, newKey(t, elliptic.P256()), ""), request(t, taken, newKey(t, elliptic.P256()), "pump-7")} {
		if _, err := r.Enrol(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	many := map[string]string{}
	for i := range 65 {
		many[strconv.Itoa(i)] = "x"
	}
	for name, c := range map[string]struct {
		key    crypto.Signer
		token  *wire.EnrolToken
		change func(*wire.EnrolRequest)
		want   *fleet.Error
	}{
		"reused token":         {key, used, func(*wire.EnrolRequest) {}, fleet.ErrTokenSpent},
		"unknown token":        {key, taken, func(q *wire.EnrolRequest) { q.Token = "tok_x"; sign(t, q, key) }, fleet.ErrTokenUnknown},
		"wrong secret":         {key, taken, func(q *wire.EnrolRequest) { q.Secret[0] ^= 1 }, fleet.ErrTokenUnknown},
		"short secret":         {key, taken, func(q *wire.EnrolRequest) { q.Secret = q.Secret[1:] }, fleet.ErrBadRequest},
		"name of another":      {key, taken, func(q *wire.EnrolRequest) { q.Device = "pump-7" }, fleet.ErrDeviceExists},
		"name that is none":    {key, taken, func(q *wire.EnrolRequest) { q.Device = "Pump 7" }, fleet.ErrBadRequest},
		"name with a wildcard": {key, taken, func(q *wire.EnrolRequest) { q.Device = "*" }, fleet.ErrBadRequest},
		"name with a slash":    {key, taken, func(q *wire.EnrolRequest) { q.Device = "a/../b" }, fleet.ErrBadRequest},
		"not signed":           {key, taken, func(q *wire.EnrolRequest) { q.Signature = nil }, fleet.ErrBadRequest},
		"signed by another":    {key, taken, func(q *wire.EnrolRequest) { sign(t, q, newKey(t, elliptic.P256())) }, fleet.ErrBadRequest},
		"signed for another":   {key, taken, func(q *wire.EnrolRequest) { q.Token = used.ID; q.Secret = used.Secret }, fleet.ErrBadRequest},
		"no key":               {key, taken, func(q *wire.EnrolRequest) { q.PublicKey = nil }, fleet.ErrBadRequest},
		"key with bytes behind": {key, taken, func(q *wire.EnrolRequest) {
			q.PublicKey = append(q.PublicKey, 0)
			sign(t, q, key)
		}, fleet.ErrBadRequest},
		"long key":       {key, taken, func(q *wire.EnrolRequest) { q.PublicKey = make([]byte, 513) }, fleet.ErrBadRequest},
		"P-384 key":      {newKey(t, elliptic.P384()), taken, func(*wire.EnrolRequest) {}, fleet.ErrBadRequest},
		"RSA key":        {rsaKey, taken, func(*wire.EnrolRequest) {}, fleet.ErrBadRequest},
		"too many facts": {key, taken, func(q *wire.EnrolRequest) { q.Facts = many }, fleet.ErrBadRequest},
	} {
		q := request(t, c.token, c.key, "")
		c.change(q)
		if reply, err := r.Enrol(t.Context(), q); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, reply, err, c.want)
		}
	}
	r.now = r.now.Add(time.Hour)
	if _, err := r.Enrol(t.Context(), request(t, taken, key, "")); !errors.Is(err, fleet.ErrTokenExpired) {
		t.Errorf("expired token: %v", err)
	}
	// Nothing of all that changed anything.
	ds, err := r.db.Devices(t.Context(), fleet.DeviceFilter{})
	if err != nil || len(ds) != 2 {
		t.Errorf("%d devices, %v", len(ds), err)
	}
	tk, err := r.db.EnrolToken(t.Context(), taken.ID)
	if err != nil || tk.Used != 1 {
		t.Errorf("%+v, %v", tk, err)
	}
}

// A batch token lets in as many devices as it says, however many ask at once.
func TestBatchToken(t *testing.T) {
	r := newRig(t).withRoots(t)
	token := r.token(t, 5)
	results := make(chan error, 12)
	for range cap(results) {
		q := request(t, token, newKey(t, elliptic.P256()), "")
		go func() {
			_, err := r.Enrol(context.Background(), q)
			results <- err
		}()
	}
	in := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			in++
		case !errors.Is(err, fleet.ErrTokenSpent):
			t.Error(err)
		}
	}
	if in != 5 {
		t.Errorf("%d devices were let in", in)
	}
}

func TestNewTokenBounds(t *testing.T) {
	r := newRig(t)
	ask := func(max int, expires time.Duration) error {
		_, _, err := r.NewToken(t.Context(), fleet.TokenRequest{Channel: "dev", Max: max, Expires: expires}, "anna")
		return err
	}
	if err := ask(1, time.Hour); !errors.Is(err, fleet.ErrCatalogEmpty) {
		t.Errorf("without roots: %v", err)
	}
	r.withRoots(t)
	for _, c := range []struct {
		max     int
		expires time.Duration
		want    error
	}{
		{1, time.Hour, nil}, {100_000, 366 * 24 * time.Hour, nil}, {0, time.Hour, fleet.ErrBadRequest}, {100_001, time.Hour, fleet.ErrBadRequest},
		{1, 0, fleet.ErrBadRequest}, {1, -time.Hour, fleet.ErrBadRequest}, {1, 367 * 24 * time.Hour, fleet.ErrBadRequest},
	} {
		if err := ask(c.max, c.expires); !errors.Is(err, c.want) {
			t.Errorf("%d devices, %v: %v", c.max, c.expires, err)
		}
	}
	list, err := r.db.EnrolTokens(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

func TestAdmit(t *testing.T) {
	r := newRig(t).withRoots(t)
	key := newKey(t, elliptic.P256())
	reply, err := r.Enrol(t.Context(), request(t, r.token(t, 1), key, "pump-7"))
	if err != nil {
		t.Fatal(err)
	}
	own := certificate(t, reply.Certificate)
	issue := func(id string, k *ecdsa.PrivateKey) *x509.Certificate {
		b, _, err := r.standing.CAs[0].Device(id, &k.PublicKey, r.now)
		if err != nil {
			t.Fatal(err)
		}
		return certificate(t, b)
	}
	admit := func(what string, c *x509.Certificate, want error) {
		t.Helper()
		if err := r.Admit(t.Context(), c); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	admit("its own", own, nil)
	admit("renewed with the same key", issue("pump-7", key), nil)
	admit("with another key", issue("pump-7", newKey(t, elliptic.P256())), fleet.ErrDeviceRevoked)
	admit("of nobody", issue("pump-8", key), fleet.ErrDeviceUnknown)
	if err := r.db.Revoke(t.Context(), "pump-7", fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	admit("revoked", own, fleet.ErrDeviceRevoked)
}

// TestARevokedNameIsTakenAgain gives the name of a revoked device to a new key: the
// old key and its certificate stay out, and the history says what happened.
func TestARevokedNameIsTakenAgain(t *testing.T) {
	r := newRig(t).withRoots(t)
	enrol := func(key *ecdsa.PrivateKey, token *wire.EnrolToken) (*x509.Certificate, error) {
		t.Helper()
		reply, err := r.Enrol(t.Context(), request(t, token, key, "pump-7"))
		if err != nil {
			return nil, err
		}
		return certificate(t, reply.Certificate), nil
	}
	oldKey, freshKey, oldToken := newKey(t, elliptic.P256()), newKey(t, elliptic.P256()), r.token(t, 2)
	old, err := enrol(oldKey, oldToken)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.Revoke(t.Context(), "pump-7", fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, start), At: start, Actor: "anna", Act: "device.revoke", Object: "pump-7"}); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Minute)
	replaced, err := enrol(freshKey, r.token(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(t.Context(), replaced); err != nil {
		t.Error("the new certificate:", err)
	}
	if err := r.Admit(t.Context(), old); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error("the old certificate:", err)
	}
	for name, token := range map[string]*wire.EnrolToken{"its own": oldToken, "a new": r.token(t, 1)} {
		if _, err := enrol(oldKey, token); !errors.Is(err, fleet.ErrDeviceRevoked) && !errors.Is(err, fleet.ErrDeviceExists) {
			t.Errorf("the old key with %s token: %v", name, err)
		}
	}
	if _, err := enrol(freshKey, r.token(t, 1)); !errors.Is(err, fleet.ErrDeviceExists) {
		t.Error("a name in use:", err)
	}
	as, err := r.db.Audit(t.Context(), "pump-7", "", 9)
	if err != nil {
		t.Fatal(err)
	}
	var acts []string
	for _, a := range slices.Backward(as) {
		acts = append(acts, a.Act)
	}
	if !slices.Equal(acts, []string{"device.enrol", "device.revoke", "device.enrol"}) || !strings.Contains(as[0].Detail, "revoked") {
		t.Errorf("the audit says %v, %q", acts, as[0].Detail)
	}
}

// Certificates do what they are for and nothing else.
func TestCertificates(t *testing.T) {
	ca, err := enroll.NewCA("test", start)
	if err != nil {
		t.Fatal(err)
	}
	devicePEM, serial, err := ca.Device("pump-7", &newKey(t, elliptic.P256()).PublicKey, start)
	if err != nil {
		t.Fatal(err)
	}
	chain, keyPEM, err := ca.Server([]string{"fleet.example", "127.0.0.1"}, start)
	if err != nil {
		t.Fatal(err)
	}
	device, server := certificate(t, devicePEM), certificate(t, chain)
	if device.Subject.CommonName != "pump-7" || device.SerialNumber.Text(16) != serial || device.NotAfter.Sub(start) != enroll.DeviceLife {
		t.Errorf("%v, serial %s, until %v", device.Subject, serial, device.NotAfter)
	}
	if !slices.Equal(server.DNSNames, []string{"fleet.example"}) || len(server.IPAddresses) != 1 {
		t.Errorf("%v %v", server.DNSNames, server.IPAddresses)
	}
	verify := func(c *x509.Certificate, use x509.ExtKeyUsage, at time.Time) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: at})
		return err
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		what string
		cert *x509.Certificate
		use  x509.ExtKeyUsage
		at   time.Time
		ok   bool
	}{
		{"device as client", device, x509.ExtKeyUsageClientAuth, start.Add(89 * day), true},
		{"device as server", device, x509.ExtKeyUsageServerAuth, start, false},
		{"device expired", device, x509.ExtKeyUsageClientAuth, start.Add(91 * day), false},
		{"server as server", server, x509.ExtKeyUsageServerAuth, start.Add(700 * day), true},
		{"server as client", server, x509.ExtKeyUsageClientAuth, start, false},
	} {
		if err := verify(c.cert, c.use, c.at); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	// A device cannot issue certificates.
	if device.IsCA || server.IsCA {
		t.Error("a leaf is a CA")
	}

	caKey, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	same, err := enroll.LoadCA(ca.Cert(), caKey)
	if err != nil || !bytes.Equal(same.Fingerprint(), ca.Fingerprint()) {
		t.Errorf("load: %v", err)
	}
	for name, c := range map[string]struct{ cert, key []byte }{
		"no certificate": {nil, caKey}, "no key": {ca.Cert(), nil}, "key of another": {ca.Cert(), keyPEM}, "swapped": {caKey, ca.Cert()},
	} {
		if _, err := enroll.LoadCA(c.cert, c.key); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

// TestEnrolFacts bounds what a device may have stored and shown by one request.
func TestEnrolFacts(t *testing.T) {
	r := newRig(t).withRoots(t)
	long := strings.Repeat("v", 500_000)
	for what, facts := range map[string]map[string]string{
		"a long value": {"a": long}, "a long name": {long: "a"}, "an escape": {"class": "\x1b[2J"}, "a line": {"class": "rpi4\nkey 00"},
	} {
		q := request(t, r.token(t, 1), newKey(t, elliptic.P256()), "meter-1")
		q.Facts = facts
		r.refused(t, what, q, fleet.ErrBadRequest)
	}
}
