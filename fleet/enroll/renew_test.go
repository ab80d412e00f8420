package enroll_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// member is a device that the rig enrolled.
type member struct {
	t    *testing.T
	r    *rig
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func (r *rig) member(t *testing.T, id string) *member {
	t.Helper()
	m := &member{t: t, r: r, key: newKey(t, elliptic.P256())}
	reply, err := r.Enrol(t.Context(), request(t, r.token(t, 1), m.key, id))
	if err != nil {
		t.Fatal(err)
	}
	m.cert = certificate(t, reply.Certificate)
	return m
}

// asks is the request of a renewal with a next key.
func (m *member) asks(next *ecdsa.PrivateKey) *wire.RenewRequest {
	m.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&next.PublicKey)
	if err != nil {
		m.t.Fatal(err)
	}
	sum := sha256.Sum256(m.cert.Raw)
	r := &wire.RenewRequest{Device: m.cert.Subject.CommonName, Certificate: sum[:], PublicKey: spki}
	m.signs(r, m.key, next)
	return r
}

func (m *member) signs(r *wire.RenewRequest, old, next crypto.Signer) {
	m.t.Helper()
	proof := sha256.Sum256(wire.RenewProof(r.Device, r.Certificate, r.PublicKey))
	var err error
	if r.Old, err = old.Sign(rand.Reader, proof[:], crypto.SHA256); err != nil {
		m.t.Fatal(err)
	}
	if r.New, err = next.Sign(rand.Reader, proof[:], crypto.SHA256); err != nil {
		m.t.Fatal(err)
	}
}

// admitted tells whether a session begins with a certificate, and begins it.
func (m *member) admitted(c *x509.Certificate) bool {
	m.t.Helper()
	err := m.r.Admit(m.t.Context(), c)
	if err != nil {
		if !errors.Is(err, fleet.ErrDeviceRevoked) {
			m.t.Error(err)
		}
		return false
	}
	return true
}

func (m *member) acts() map[string]int {
	m.t.Helper()
	rows, err := m.r.db.Audit(m.t.Context(), m.cert.Subject.CommonName, "", 100)
	if err != nil {
		m.t.Fatal(err)
	}
	n := map[string]int{}
	for _, a := range rows {
		n[a.Act]++
	}
	return n
}

func TestRenew(t *testing.T) {
	r := newRig(t).withRoots(t)
	m, next := r.member(t, "meter-1"), newKey(t, elliptic.P256())
	r.now = start.Add(60 * 24 * time.Hour)
	req := m.asks(next)
	reply, err := r.Renew(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate(t, reply.Certificate)
	if c.Subject.CommonName != "meter-1" || !next.PublicKey.Equal(c.PublicKey) || c.NotAfter.Sub(r.now) != enroll.DeviceLife {
		t.Errorf("%v until %v", c.Subject, c.NotAfter)
	}
	// The answer was lost: the same comes again, and nothing is written.
	r.now = r.now.Add(time.Hour)
	again, err := r.Renew(t.Context(), m.asks(next))
	if err != nil || !bytes.Equal(again.Certificate, reply.Certificate) || m.acts()["device.renew"] != 1 {
		t.Errorf("asked again: %v, %v", err, m.acts())
	}
	// Both are good until the device has come with the next.
	if !m.admitted(m.cert) || !m.admitted(c) {
		t.Error("in the overlap not both are admitted")
	}
	if replaced, err := r.Came(t.Context(), "meter-1", m.cert.RawSubjectPublicKeyInfo); replaced || err != nil || !m.admitted(c) {
		t.Error("the current one came", err)
	}
	if replaced, err := r.Came(t.Context(), "meter-1", c.RawSubjectPublicKeyInfo); !replaced || err != nil {
		t.Error("the next one came", err)
	}
	if replaced, err := r.Came(t.Context(), "meter-1", c.RawSubjectPublicKeyInfo); replaced || err != nil || m.acts()["device.renewed"] != 1 {
		t.Error("it came twice", err, m.acts())
	}
	if m.admitted(m.cert) || !m.admitted(c) {
		t.Error("after the first session of the next not it alone is admitted")
	}
	if _, err := r.Came(t.Context(), "meter-1", m.cert.RawSubjectPublicKeyInfo); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error("the key before came", err)
	}
	if _, err := r.Renew(t.Context(), req); !errors.Is(err, fleet.ErrRenewRefused) {
		t.Error("the key before renews", err)
	}
	d, err := r.db.Device(t.Context(), "meter-1")
	if err != nil || !d.Expires.Equal(c.NotAfter) || d.Serial != c.SerialNumber.Text(16) || d.Renewal != nil {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestRenewRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*testing.T, *rig, *member, *wire.RenewRequest)
		want  error
	}{
		"unknown device": {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) {
			k := newKey(t, elliptic.P256())
			*q = *m.asks(k)
			q.Device = "meter-9"
			m.signs(q, m.key, k)
		}, fleet.ErrRenewRefused},
		"signed by another key": {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) {
			k := newKey(t, elliptic.P256())
			*q = *m.asks(k)
			m.signs(q, newKey(t, elliptic.P256()), k)
		}, fleet.ErrRenewRefused},
		"next key not held":     {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) { q.New = q.Old }, fleet.ErrBadRequest},
		"the same key":          {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) { *q = *m.asks(m.key) }, fleet.ErrBadRequest},
		"signature of a device": {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) { q.Device = "meter-2" }, fleet.ErrBadRequest},
		"P-384": {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) {
			*q = *m.asks(newKey(t, elliptic.P384()))
		}, fleet.ErrBadRequest},
		"revoked": {func(t *testing.T, r *rig, m *member, q *wire.RenewRequest) {
			if err := r.db.Revoke(t.Context(), "meter-1", fleet.Audit{}); err != nil {
				t.Fatal(err)
			}
		}, fleet.ErrDeviceRevoked},
		"a second next key at once": {func(t *testing.T, r *rig, m *member, q *wire.RenewRequest) {
			if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); err != nil {
				t.Fatal(err)
			}
		}, fleet.ErrBusy},
		"malformed": {func(t *testing.T, _ *rig, m *member, q *wire.RenewRequest) { q.Device = "../" }, fleet.ErrBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withRoots(t)
			m := r.member(t, "meter-1")
			q := m.asks(newKey(t, elliptic.P256()))
			tc.spoil(t, r, m, q)
			if _, err := r.Renew(t.Context(), q); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// A next pair that the device lost is replaced by another one.
func TestRenewWithAnotherNextKey(t *testing.T) {
	r := newRig(t).withRoots(t)
	m := r.member(t, "meter-1")
	first, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256())))
	if err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * time.Minute)
	second, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256())))
	if err != nil {
		t.Fatal(err)
	}
	if m.admitted(certificate(t, first.Certificate)) || !m.admitted(certificate(t, second.Certificate)) || !m.admitted(m.cert) {
		t.Error("not the second next pair and the current one are admitted")
	}
}

// An expired certificate renews by its key alone for 30 days, then by an operator's
// one act, as does a next certificate that has expired unused.
func TestRenewLate(t *testing.T) {
	r := newRig(t).withRoots(t)
	m, next := r.member(t, "meter-1"), newKey(t, elliptic.P256())
	r.now = m.cert.NotAfter.Add(29 * 24 * time.Hour)
	soon, err := r.Renew(t.Context(), m.asks(next))
	if err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(91 * 24 * time.Hour) // the next one has expired, the current one is long gone
	for range 3 {
		if _, err := r.Renew(t.Context(), m.asks(next)); !errors.Is(err, fleet.ErrRenewPending) {
			t.Fatal(err)
		}
	}
	fingerprint := fleet.Fingerprint(m.asks(next).PublicKey)
	d, err := r.db.Device(t.Context(), "meter-1")
	if err != nil || !d.Renewal.Waits() {
		t.Fatalf("%+v, %v", d.Renewal, err)
	}
	if err := r.Accept(t.Context(), "meter-1", fleet.Fingerprint([]byte("another")), "anna"); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Error("accepted by another fingerprint", err)
	}
	if err := r.Accept(t.Context(), "meter-1", fingerprint, "anna"); err != nil {
		t.Fatal(err)
	}
	if err := r.Accept(t.Context(), "meter-1", "", "anna"); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Error("accepted twice", err)
	}
	reply, err := r.Renew(t.Context(), m.asks(next))
	if err != nil || bytes.Equal(reply.Certificate, soon.Certificate) {
		t.Fatal(err)
	}
	if c := certificate(t, reply.Certificate); !m.admitted(c) || c.NotAfter.Before(r.now) {
		t.Errorf("until %v", c.NotAfter)
	}
	if acts := m.acts(); acts["device.renew_wait"] != 1 || acts["device.accept"] != 1 {
		t.Errorf("%v", acts)
	}
}

// A next certificate that was issued in time stays good when the current one is long
// gone: it takes neither an operator nor another key's request away.
func TestIssuedStaysGoodWhenLate(t *testing.T) {
	r := newRig(t).withRoots(t)
	m, next := r.member(t, "meter-1"), newKey(t, elliptic.P256())
	r.now = start.Add(63 * 24 * time.Hour)
	first, err := r.Renew(t.Context(), m.asks(next))
	if err != nil {
		t.Fatal(err)
	}
	n1 := certificate(t, first.Certificate) // until day 153
	r.now = start.Add(124 * 24 * time.Hour) // MQTT was blocked all the time, the API was not
	if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); !errors.Is(err, fleet.ErrRenewPending) {
		t.Error("another next key:", err)
	}
	again, err := r.Renew(t.Context(), m.asks(next))
	if err != nil || !bytes.Equal(again.Certificate, first.Certificate) {
		t.Fatal("asked again:", err)
	}
	if !m.admitted(n1) {
		t.Error("a next certificate with 29 days left is not admitted")
	}
	if replaced, err := r.Came(t.Context(), "meter-1", n1.RawSubjectPublicKeyInfo); !replaced || err != nil {
		t.Error(err)
	}
	m.cert, m.key = n1, next
	if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); err != nil {
		t.Error("renews from there:", err)
	}
}

// A renewal whose answer was lost leaves the server with a later certificate of the
// next key than the device has: that key goes on renewing, in time and late.
func TestRenewWithAnotherCertificateOfTheKey(t *testing.T) {
	r := newRig(t).withRoots(t)
	m, next := r.member(t, "meter-1"), newKey(t, elliptic.P256())
	r.now = start.Add(55 * 24 * time.Hour) // until day 145
	first, err := r.Renew(t.Context(), m.asks(next))
	if err != nil {
		t.Fatal(err)
	}
	r.now = start.Add(119 * 24 * time.Hour) // the first has aged, the current one is not yet late
	lost, err := r.Renew(t.Context(), m.asks(next))
	if err != nil || bytes.Equal(lost.Certificate, first.Certificate) {
		t.Fatal("no later certificate:", err)
	}
	n1 := certificate(t, first.Certificate)
	if _, err := r.Came(t.Context(), "meter-1", n1.RawSubjectPublicKeyInfo); err != nil {
		t.Fatal(err)
	}
	m.cert, m.key = n1, next
	if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); err != nil {
		t.Error("in time:", err)
	}
	r.now = start.Add(400 * 24 * time.Hour)
	last := newKey(t, elliptic.P256())
	if _, err := r.Renew(t.Context(), m.asks(last)); !errors.Is(err, fleet.ErrRenewPending) {
		t.Error("late:", err)
	}
	if err := r.Accept(t.Context(), "meter-1", "", "anna"); err != nil {
		t.Error(err)
	}
	if _, err := r.Renew(t.Context(), m.asks(last)); err != nil {
		t.Error("accepted:", err)
	}
}

// What waits for an operator gets nobody in.
func TestPendingKeyIsNotAdmitted(t *testing.T) {
	r := newRig(t).withRoots(t)
	m, next := r.member(t, "meter-1"), newKey(t, elliptic.P256())
	r.now = m.cert.NotAfter.Add(fleet.RenewLate + time.Hour)
	q := m.asks(next)
	if _, err := r.Renew(t.Context(), q); !errors.Is(err, fleet.ErrRenewPending) {
		t.Fatal(err)
	}
	if _, err := r.Came(t.Context(), "meter-1", q.PublicKey); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error(err)
	}
	if err := r.db.Revoke(t.Context(), "meter-1", fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Accept(t.Context(), "meter-1", "", "anna"); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error("accepted after it was revoked", err)
	}
}
