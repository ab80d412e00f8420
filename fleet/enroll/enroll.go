// Package enroll gives devices their identity: the fleet's CA, the tokens that
// let devices in, and the admission of what already has a certificate.
package enroll

import (
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
	// repeated use by the same key returns what was stored. Refusals are
	// ErrTokenUnknown (also for a wrong secret), ErrTokenExpired, ErrTokenSpent
	// and ErrDeviceExists.
	Enrol(ctx context.Context, token string, secretHash [32]byte, d *fleet.Device, certPEM []byte, now time.Time) (stored *fleet.Device, storedCert []byte, err error)
	// EnrolToken returns ErrTokenUnknown.
	EnrolToken(ctx context.Context, id string) (*fleet.EnrolToken, error)
	// Roots returns every root of a repository, oldest first.
	Roots(ctx context.Context, repo string) ([][]byte, error)
	Device(ctx context.Context, id string) (*fleet.Device, error)
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
	Now  func() time.Time
}

func (s *Service) life() time.Duration {
	if s.Life == 0 {
		return DeviceLife
	}
	return s.Life
}

// TokenRequest is what an operator asks for.
type TokenRequest struct {
	Channel string
	Labels  map[string]string
	Max     int           // devices, 1 to 100,000
	Expires time.Duration // up to a year
}

// NewToken makes an enrolment token. Its secret is in the text that is returned
// and nowhere else.
func (s *Service) NewToken(ctx context.Context, r TokenRequest, actor string) (*fleet.EnrolToken, string, error) {
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
		Max: r.Max, Expires: now.Add(r.Expires), Created: now, By: actor,
	}
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "token.create", Object: t.ID, Detail: fmt.Sprintf("channel %s, %d devices", t.Channel, t.Max)}
	if err := s.Store.CreateEnrolToken(ctx, t, a); err != nil {
		return nil, "", err
	}
	st := s.Standing()
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

// Enrol checks token and key and returns the device's identity.
func (s *Service) Enrol(ctx context.Context, r *wire.EnrolRequest) (*wire.EnrolReply, error) {
	key, err := checkKey(r)
	if err != nil {
		return nil, err
	}
	t, err := s.Store.EnrolToken(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	id := r.Device
	if id == "" {
		id = defaultID(r.PublicKey)
	}
	if !wire.ValidDevice(id) {
		return nil, fleet.ErrBadRequest.With("device id %q: 1 to 64 of a-z, 0-9 and - wanted", id)
	}
	st := s.Standing()
	ca := st.CAs[0]
	if len(r.CA) > 0 {
		if ca = st.by(r.CA); ca == nil {
			return nil, fleet.ErrTokenCA
		}
	}
	cert, serial, err := ca.deviceFor(s.life(), id, key, now)
	if err != nil {
		return nil, err
	}
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: t.Channel, Labels: t.Labels, Facts: r.Facts, PublicKey: r.PublicKey, Serial: serial, Expires: now.Add(s.life()), Enrolled: now}
	d, cert, err = s.Store.Enrol(ctx, r.Token, sha256.Sum256(r.Secret), d, cert, now)
	if err != nil {
		return nil, err
	}
	reply := &wire.EnrolReply{Device: d.ID, Channel: d.Channel, Certificate: cert, CA: ca.Cert(), MQTT: st.Addresses[0].MQTT}
	if reply.CatalogRoots, err = s.Store.Roots(ctx, wire.RepoCatalog); err != nil {
		return nil, err
	}
	reply.DirectorRoots, err = s.Store.Roots(ctx, wire.RepoDirector)
	return reply, err
}

// checkKey reads the public key and the proof that the device holds it.
func checkKey(r *wire.EnrolRequest) (*ecdsa.PublicKey, error) {
	if len(r.Secret) != 32 || len(r.PublicKey) > 512 || len(r.Facts) > 64 {
		return nil, fleet.ErrBadRequest.With("enrolment: a secret of 32 bytes and at most 64 facts wanted")
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
