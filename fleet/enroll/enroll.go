// Package enroll gives devices their identity: the fleet's CA, the tokens that
// let devices in, and the admission of what already has a certificate.
package enroll

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is what enrolment needs kept.
type Store interface {
	CreateEnrolToken(ctx context.Context, t *fleet.EnrolToken, a fleet.Audit) error
	// Enrol uses a token and makes the device in one transaction. The first use
	// by a key counts against the token and stores d with its certificate; a
	// repeated use by the same key returns what was stored. A token that replaces a
	// device ends that one's identity; what waits for an operator waits anew by
	// another token of the same key. Refusals are ErrTokenUnknown (also for a wrong
	// secret), ErrTokenExpired, ErrTokenSpent, ErrDeviceExists, ErrDeviceRetired,
	// ErrSerialUnlisted, ErrSerialUsed, and for a key whose identity has ended
	// ErrDeviceRevoked or ErrDeviceRejected.
	Enrol(ctx context.Context, token string, secretHash [32]byte, d *fleet.Device, certPEM []byte, now time.Time) (stored *fleet.Device, storedCert []byte, err error)
	// EnrolToken returns ErrTokenUnknown.
	EnrolToken(ctx context.Context, id string) (*fleet.EnrolToken, error)
	// Roots returns every root of a repository, oldest first.
	Roots(ctx context.Context, repo string) ([][]byte, error)
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Identities
	Renewals
	Signposts
}

// Service enrols devices.
type Service struct {
	// Standing is what the server is known by now.
	Standing func() *Standing
	Store    Store
	// Life of a device's certificate; 0: DeviceLife.
	Life time.Duration
	// Ended is told that an identity of a device has ended, after that is stored: its
	// sessions are to end; nil: nobody is.
	Ended func(device string)
	// Copied is told that a key which a device has renewed asks again; nil: nobody is.
	Copied func(ctx context.Context, device, detail string)
	Now    func() time.Time
}

func (s *Service) life() time.Duration {
	if s.Life == 0 {
		return DeviceLife
	}
	return s.Life
}

// NewToken makes an enrolment token. Its secret is in the text that is returned
// and nowhere else.
func (s *Service) NewToken(ctx context.Context, r fleet.TokenRequest, actor string) (*fleet.EnrolToken, string, error) {
	if err := s.complete(ctx, &r); err != nil {
		return nil, "", err
	}
	if r.Max < 1 || r.Max > 100_000 || r.Expires <= 0 || r.Expires > 366*24*time.Hour {
		return nil, "", fleet.ErrBadRequest.With("a token is for 1 to 100,000 devices and at most a year, not %d and %v", r.Max, r.Expires)
	}
	catalog, err := s.root(ctx, wire.RepoCatalog)
	if err != nil {
		return nil, "", err
	}
	director, err := s.root(ctx, wire.RepoDirector)
	if err != nil {
		return nil, "", err
	}
	now := s.Now()
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	t := &fleet.EnrolToken{
		ID: fleet.NewID(fleet.PrefixToken, now), Hash: sha256.Sum256(secret), Channel: r.Channel, Labels: r.Labels,
		Max: r.Max, Expires: now.Add(r.Expires), Created: now, By: actor, Hold: r.Hold, Serials: r.Serials, Replaces: r.Replaces,
	}
	st := s.Standing()
	t.CA = st.CAs[0].Fingerprint()
	act, object, detail := "token.create", t.ID, fmt.Sprintf("channel %s, %d devices", t.Channel, t.Max)
	if t.Replaces != "" {
		act, object, detail = "device.replace", t.Replaces, "with "+t.ID
	}
	if err := s.Store.CreateEnrolToken(ctx, t, s.audit(actor, act, object, detail)); err != nil {
		return nil, "", err
	}
	text := &wire.EnrolToken{Server: st.Addresses[0].Server, ID: t.ID, Secret: secret, CA: st.CAs[0].Fingerprint(), CatalogRoot: catalog, DirectorRoot: director, Channel: t.Channel}
	return t, text.String(), nil
}

// root is the fingerprint of a repository's first root.
func (s *Service) root(ctx context.Context, repo string) ([]byte, error) {
	roots, err := s.Store.Roots(ctx, repo)
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, fleet.ErrCatalogEmpty
	}
	sum := sha256.Sum256(roots[0])
	return sum[:], nil
}

// Enrol checks token and key and returns the device's identity. ErrEnrolPending is
// returned while the token's devices wait to be accepted and this one does.
func (s *Service) Enrol(ctx context.Context, r *wire.EnrolRequest) (*wire.EnrolReply, error) {
	key, err := checkKey(r)
	if err != nil {
		return nil, err
	}
	t, err := s.Store.EnrolToken(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	st := s.Standing()
	ca := st.CAs[0]
	if len(r.CA) > 0 {
		if ca = st.by(r.CA); ca == nil {
			return nil, fleet.ErrTokenCA
		}
	}
	id, err := nameFor(t, r)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: t.Channel, Labels: t.Labels, Facts: r.Facts, PublicKey: r.PublicKey, Enrolled: now}
	var cert []byte
	if t.Hold {
		d.Status, cert = fleet.DevicePending, []byte{}
	} else {
		if cert, d.Serial, err = ca.deviceFor(s.life(), id, key, now); err != nil {
			return nil, err
		}
		d.Expires = now.Add(s.life())
	}
	if d, cert, err = s.enter(ctx, t, r, d, cert); err != nil {
		return nil, err
	}
	if d.Status == fleet.DevicePending {
		return nil, fleet.ErrEnrolPending.With("%s waits for an operator to accept its key %s", d.ID, fleet.Fingerprint(r.PublicKey))
	}
	reply := &wire.EnrolReply{Device: d.ID, Channel: d.Channel, Certificate: cert, CA: ca.Cert(), MQTT: st.Addresses[0].MQTT}
	if reply.CatalogRoots, err = s.Store.Roots(ctx, wire.RepoCatalog); err != nil {
		return nil, err
	}
	reply.DirectorRoots, err = s.Store.Roots(ctx, wire.RepoDirector)
	return reply, err
}

// nameFor is the id that a request gets with a token.
func nameFor(t *fleet.EnrolToken, r *wire.EnrolRequest) (string, error) {
	id := cmp.Or(r.Device, t.Replaces, defaultID(r.PublicKey))
	if !wire.ValidDevice(id) {
		return "", fleet.ErrBadRequest.With("device id %q: 1 to 64 of a-z, 0-9 and - wanted", id)
	}
	if t.Replaces != "" && id != t.Replaces {
		return "", fleet.ErrDeviceExists.With("the token gives the place of %s, not a device %s", t.Replaces, id)
	}
	return id, nil
}

// enter stores the device, and says what came of it to who has to know.
func (s *Service) enter(ctx context.Context, t *fleet.EnrolToken, r *wire.EnrolRequest, d *fleet.Device, cert []byte) (*fleet.Device, []byte, error) {
	ends := false
	if t.Replaces != "" {
		old, err := s.Store.Device(ctx, t.Replaces)
		if err != nil {
			return nil, nil, err
		}
		ends = !bytes.Equal(old.PublicKey, r.PublicKey)
	}
	stored, storedCert, err := s.Store.Enrol(ctx, r.Token, sha256.Sum256(r.Secret), d, cert, d.Enrolled)
	if errors.Is(err, fleet.ErrSerialUsed) {
		serial := r.Facts[fleet.FactSerial]
		a := s.audit("device:"+d.ID, "device.enrol_refused", t.ID, fmt.Sprintf("serial %q was used by another key than %s", serial, fleet.Fingerprint(r.PublicKey)))
		if err := s.Store.RefusedSerial(ctx, t.ID, serial, a); err != nil {
			return nil, nil, err
		}
	}
	if err == nil && ends && s.Ended != nil {
		s.Ended(t.Replaces)
	}
	return stored, storedCert, err
}

// checkKey reads the public key and the proof that the device holds it.
func checkKey(r *wire.EnrolRequest) (*ecdsa.PublicKey, error) {
	if len(r.Secret) != 32 || len(r.PublicKey) > 512 {
		return nil, fleet.ErrBadRequest.With("enrolment: a secret of 32 bytes and a key wanted")
	}
	if err := wire.CheckFacts(r.Facts); err != nil {
		return nil, fleet.ErrBadRequest.With("enrolment: %v", err)
	}
	pub, err := parseKey(r.PublicKey)
	if err != nil {
		return nil, fleet.ErrBadRequest.With("enrolment: %v", err)
	}
	sum := sha256.Sum256(wire.EnrolProof(r.Token, r.PublicKey))
	if !ecdsa.VerifyASN1(pub, sum[:], r.Signature) {
		return nil, fleet.ErrBadRequest.With("enrolment: the request is not signed with the key that it names")
	}
	return pub, nil
}

func parseKey(spki []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("an ECDSA P-256 key wanted")
	}
	return pub, nil
}

func defaultID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return "d-" + hex.EncodeToString(sum[:5])
}

// Admit says whether a device with this certificate may have a session now: its
// key is the device's key or its next one, or one that a restore may have
// forgotten, and the identity is not revoked. Chain and dates were checked by TLS.
func (s *Service) Admit(ctx context.Context, c *x509.Certificate) error {
	d, err := s.Store.Device(ctx, c.Subject.CommonName)
	if err != nil {
		return err
	}
	if d.Status != fleet.DeviceActive {
		return fleet.ErrDeviceRevoked
	}
	if holds(d, c) {
		return nil
	}
	known, err := s.forgotten(ctx, d, c)
	if err == nil && known == nil {
		err = fleet.ErrDeviceRevoked.With("the certificate is not the device's own")
	}
	return err
}
