package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// tokenFor makes a token of what is asked for.
func (r *rig) tokenFor(t *testing.T, q fleet.TokenRequest) *wire.EnrolToken {
	t.Helper()
	q.Channel, q.Max, q.Expires = "production", max(q.Max, 1), time.Hour
	_, text, err := r.NewToken(t.Context(), q, "anna")
	if err != nil {
		t.Fatal(err)
	}
	token, err := wire.ParseEnrolToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// refused wants a request refused by code.
func (r *rig) refused(t *testing.T, what string, q *wire.EnrolRequest, want *fleet.Error) {
	t.Helper()
	if _, err := r.Enrol(t.Context(), q); !errors.Is(err, want) {
		t.Errorf("%s: %v, want %s", what, err, want.Code)
	}
}

func fingerprint(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Fingerprint(spki)
}

// TestReplace gives a device's place to another key: the one before, the next one
// that it was about to come with, and copies of both get nothing from then on.
func TestReplace(t *testing.T) {
	r := newRig(t).withRoots(t)
	var ended []string
	r.Ended = func(device string) { ended = append(ended, device) }
	old := r.member(t, "meter-1")
	next := newKey(t, elliptic.P256())
	r.now = r.now.Add(time.Minute)
	renewal, err := r.Renew(t.Context(), old.asks(next))
	if err != nil {
		t.Fatal(err)
	}
	token := r.tokenFor(t, fleet.TokenRequest{Replaces: "meter-1", Channel: "dev"})
	if !old.admitted(old.cert) {
		t.Error("a token alone ends nothing")
	}
	key := newKey(t, elliptic.P256())
	r.refused(t, "another name", request(t, token, key, "meter-2"), fleet.ErrDeviceExists)
	r.refused(t, "the old key", request(t, token, old.key, ""), fleet.ErrDeviceExists)
	if len(ended) != 0 || !old.admitted(old.cert) {
		t.Error("what was refused ended the identity")
	}
	var reply *wire.EnrolReply
	for range 2 { // the answer of the first is lost
		if reply, err = r.Enrol(t.Context(), request(t, token, key, "")); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(ended, []string{"meter-1"}) {
		t.Errorf("sessions ended of %v", ended)
	}
	if reply.Device != "meter-1" || reply.Channel != "production" {
		t.Errorf("%+v", reply)
	}
	now := &member{t, r, key, certificate(t, reply.Certificate)}
	if !now.admitted(now.cert) || old.admitted(old.cert) || old.admitted(certificate(t, renewal.Certificate)) {
		t.Error("the wrong certificate is admitted")
	}
	if _, err := r.Came(t.Context(), "meter-1", certificate(t, renewal.Certificate).RawSubjectPublicKeyInfo); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Errorf("the next key of the old identity: %v", err)
	}
	if _, err := r.Renew(t.Context(), old.asks(newKey(t, elliptic.P256()))); !errors.Is(err, fleet.ErrRenewRefused) {
		t.Errorf("a renewal by the old key: %v", err)
	}
	batch := r.tokenFor(t, fleet.TokenRequest{Max: 9})
	for what, k := range map[string]*ecdsa.PrivateKey{"the old key": old.key, "its next key": next} {
		r.refused(t, what+" under another name", request(t, batch, k, "meter-9"), fleet.ErrDeviceRevoked)
	}
	if d, err := r.db.Device(t.Context(), "meter-1"); err != nil || d.Labels["site"] != "harbour" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestReplaceRefusals(t *testing.T) {
	r := newRig(t).withRoots(t)
	r.member(t, "meter-1")
	held := r.tokenFor(t, fleet.TokenRequest{Hold: true})
	r.refused(t, "wait", request(t, held, newKey(t, elliptic.P256()), "meter-2"), fleet.ErrEnrolPending)
	for name, c := range map[string]struct {
		q    fleet.TokenRequest
		want *fleet.Error
	}{
		"nobody":             {fleet.TokenRequest{Replaces: "nobody"}, fleet.ErrDeviceUnknown},
		"one that waits":     {fleet.TokenRequest{Replaces: "meter-2"}, fleet.ErrDevicePending},
		"with hold":          {fleet.TokenRequest{Replaces: "meter-1", Hold: true}, fleet.ErrBadRequest},
		"a serial twice":     {fleet.TokenRequest{Max: 1, Serials: []string{"a", "a"}}, fleet.ErrBadRequest},
		"an empty serial":    {fleet.TokenRequest{Max: 1, Serials: []string{""}}, fleet.ErrBadRequest},
		"a serial of spaces": {fleet.TokenRequest{Max: 1, Serials: []string{" a"}}, fleet.ErrBadRequest},
		"a long serial":      {fleet.TokenRequest{Max: 1, Serials: []string{strings.Repeat("a", 129)}}, fleet.ErrBadRequest},
		"too many serials":   {fleet.TokenRequest{Max: 1, Serials: make([]string, fleet.MaxSerials+1)}, fleet.ErrBadRequest},
	} {
		c.q.Expires = time.Hour
		if _, _, err := r.NewToken(t.Context(), c.q, "anna"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHold wants nobody in before an operator has named the key.
func TestHold(t *testing.T) {
	r := newRig(t).withRoots(t)
	token := r.tokenFor(t, fleet.TokenRequest{Hold: true, Max: 3})
	key := newKey(t, elliptic.P256())
	ask := func() (*wire.EnrolReply, error) { return r.Enrol(t.Context(), request(t, token, key, "meter-1")) }
	waits := func() {
		t.Helper()
		if _, err := ask(); !errors.Is(err, fleet.ErrEnrolPending) || !strings.Contains(err.Error(), fingerprint(t, key)) {
			t.Errorf("%v", err)
		}
	}
	waits()
	waits()
	// A certificate that says so lets nobody in either.
	cert, _, err := r.standing.CAs[0].Device("meter-1", &key.PublicKey, r.now)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t, r, key, certificate(t, cert)}
	if m.admitted(m.cert) {
		t.Error("who waits was let in")
	}
	if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Errorf("who waits renews: %v", err)
	}
	for _, f := range []string{"", "00", fingerprint(t, newKey(t, elliptic.P256()))} {
		if err := r.Accept(t.Context(), "meter-1", f, "anna"); !errors.Is(err, fleet.ErrFingerprint) {
			t.Errorf("fingerprint %q: %v", f, err)
		}
	}
	waits()
	r.now = r.now.Add(2 * time.Hour) // the token has expired
	waits()
	if err := r.Accept(t.Context(), "meter-1", fingerprint(t, key), "anna"); err != nil {
		t.Fatal(err)
	}
	reply, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	if m.cert = certificate(t, reply.Certificate); !m.admitted(m.cert) {
		t.Error("who was accepted is not let in")
	}
	if got := m.cert.NotAfter.Sub(r.now); got < enroll.DeviceLife-time.Minute {
		t.Errorf("its certificate is good for %v", got)
	}
	r.refused(t, "another by the expired token", request(t, token, newKey(t, elliptic.P256()), "meter-2"), fleet.ErrTokenExpired)
	if got := m.acts(); got["device.enrol_wait"] != 1 || got["device.accept"] != 1 {
		t.Errorf("audited %v", got)
	}
}

// TestHoldOutlivesItsToken: who waits by a token that was deleted, or whose CA was
// retired, is let in by another token with the key that it has.
func TestHoldOutlivesItsToken(t *testing.T) {
	r := newRig(t).withRoots(t)
	key := newKey(t, elliptic.P256())
	r.refused(t, "by the first", request(t, r.tokenFor(t, fleet.TokenRequest{Hold: true}), key, "meter-1"), fleet.ErrEnrolPending)
	next, err := enroll.NewCA("test", r.now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	r.standing = &enroll.Standing{CAs: []*enroll.CA{next}, Addresses: r.standing.Addresses} // the first was retired by force
	err = r.Accept(t.Context(), "meter-1", fingerprint(t, key), "anna")
	var coded *fleet.Error
	if !errors.As(err, &coded) || coded.Code != fleet.ErrTokenCA.Code || !strings.Contains(coded.Next, "its key and its name stay") || strings.Contains(coded.Error(), "reject") {
		t.Fatalf("%+v", err)
	}
	token := r.tokenFor(t, fleet.TokenRequest{Hold: true})
	r.refused(t, "by the second", request(t, token, key, "meter-1"), fleet.ErrEnrolPending)
	if err := r.Accept(t.Context(), "meter-1", fingerprint(t, key), "anna"); err != nil {
		t.Fatal(err)
	}
	reply, err := r.Enrol(t.Context(), request(t, token, key, "meter-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(t.Context(), certificate(t, reply.Certificate)); err != nil {
		t.Error(err)
	}
}

func TestReject(t *testing.T) {
	r := newRig(t).withRoots(t)
	token := r.tokenFor(t, fleet.TokenRequest{Hold: true, Max: 3})
	key := newKey(t, elliptic.P256())
	r.refused(t, "first", request(t, token, key, "meter-1"), fleet.ErrEnrolPending)
	if err := r.Reject(t.Context(), "meter-1", "anna"); err != nil {
		t.Fatal(err)
	}
	r.refused(t, "again", request(t, token, key, "meter-1"), fleet.ErrDeviceRejected)
	r.refused(t, "another name and token", request(t, r.token(t, 1), key, "meter-2"), fleet.ErrDeviceRejected)
	if err := r.Accept(t.Context(), "meter-1", fingerprint(t, key), "anna"); !errors.Is(err, fleet.ErrDeviceUnknown) {
		t.Errorf("accepted after all: %v", err)
	}
}

// TestSerials: who has the token and knows a listed serial is the device that is
// expected, once.
func TestSerials(t *testing.T) {
	r := newRig(t).withRoots(t)
	token := r.tokenFor(t, fleet.TokenRequest{Max: 99, Serials: []string{"SN-1", "SN-2"}})
	as := func(serial string, key *ecdsa.PrivateKey) *wire.EnrolRequest {
		q := request(t, token, key, "")
		q.Facts = map[string]string{fleet.FactSerial: serial}
		return q
	}
	key := newKey(t, elliptic.P256())
	r.refused(t, "unlisted", as("SN-3", key), fleet.ErrSerialUnlisted)
	r.refused(t, "none", request(t, token, key, ""), fleet.ErrSerialUnlisted)
	if _, err := r.Enrol(t.Context(), as("SN-1", key)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Enrol(t.Context(), as("SN-1", key)); err != nil {
		t.Error("again:", err)
	}
	for range 50 {
		r.refused(t, "another key", as("SN-1", newKey(t, elliptic.P256())), fleet.ErrSerialUsed)
	}
	rows, err := r.db.Audit(t.Context(), token.ID, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	refusals := 0
	for _, a := range rows {
		if a.Act == "device.enrol_refused" && strings.Contains(a.Detail, "SN-1") {
			refusals++
		}
	}
	if refusals != 1 {
		t.Errorf("%d refusals are audited, 1 in a minute wanted", refusals)
	}
}

// TestCopyOfARenewedKey: a copy of an SD card that stayed with the key before the
// last renewal is noticed when it asks for a certificate.
func TestCopyOfARenewedKey(t *testing.T) {
	r := newRig(t).withRoots(t)
	var copied []string
	r.Copied = func(_ context.Context, device, _ string) { copied = append(copied, device) }
	m := r.member(t, "meter-1")
	stranger := r.member(t, "meter-2")
	next := newKey(t, elliptic.P256())
	r.now = r.now.Add(time.Hour)
	for range 2 { // the answer was lost: the device itself asks again
		if _, err := r.Renew(t.Context(), m.asks(next)); err != nil {
			t.Fatal(err)
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(&next.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Came(t.Context(), "meter-1", spki); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Renew(t.Context(), m.asks(next)); !errors.Is(err, fleet.ErrRenewRefused) || len(copied) != 0 {
		t.Errorf("a request that was long under way: %v, %v", err, copied)
	}
	q := m.asks(newKey(t, elliptic.P256()))
	m.signs(q, stranger.key, newKey(t, elliptic.P256()))
	if _, err := r.Renew(t.Context(), q); err == nil || len(copied) != 0 {
		t.Errorf("a stranger raises the alarm: %v, %v", err, copied)
	}
	if _, err := r.Renew(t.Context(), m.asks(newKey(t, elliptic.P256()))); !errors.Is(err, fleet.ErrRenewRefused) {
		t.Error(err)
	}
	if !slices.Equal(copied, []string{"meter-1"}) {
		t.Errorf("alarms about %v", copied)
	}
}
