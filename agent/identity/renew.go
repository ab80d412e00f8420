package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Codes of a server's answer to a renewal.
const (
	codeRefused = "renew.refused" // not signed by the key that the server knows
	// CodePending: an operator has to accept the renewal first.
	CodePending = "renew.pending"
)

// Renewal is how far the device is with its next pair.
type Renewal struct {
	From    time.Time // the current certificate is valid from
	Expires time.Time
	Due     time.Time // when the next one is to be got
	Serial  string    // of the current certificate, hex
	// Ready: the next certificate is on disk and waits for its first session.
	Ready bool
	// Refused: it had its session, and the server took the current one instead.
	Refused bool
}

// Renewal tells it.
func (id *Identity) Renewal() Renewal {
	id.mu.Lock()
	defer id.mu.Unlock()
	c := id.current.cert
	return Renewal{From: c.NotBefore, Expires: c.NotAfter, Due: id.due(c), Serial: c.SerialNumber.Text(16), Ready: id.ready(), Refused: id.ready() && id.refused && id.shown == id.current && id.welcomed}
}

// due is when a certificate is to be renewed: earlier than usual when another CA
// issues by now, at most a day after that was learnt, but not at once again. The
// lock is held.
func (id *Identity) due(c *x509.Certificate) time.Time {
	usual := due(c)
	if id.post == nil || c.CheckSignatureFrom(id.trusted[0]) == nil {
		return usual
	}
	life := c.NotAfter.Sub(c.NotBefore)
	moves, least := time.Unix(id.post.Since, 0).Add(time.Duration(jitter(c)*float64(min(life/90, 24*time.Hour)))), c.NotBefore.Add(life/30)
	if moves.Before(least) {
		moves = least
	}
	if moves.Before(usual) {
		return moves
	}
	return usual
}

// due is two thirds of a certificate's life, and up to a fifteenth more: devices
// that were enrolled at once do not renew at once.
func due(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life*2/3 + time.Duration(jitter(c)*float64(life/15)))
}

// jitter is the certificate's own number from 0 to 1.
func jitter(c *x509.Certificate) float64 {
	sum := sha256.Sum256(c.Raw)
	return float64(binary.BigEndian.Uint32(sum[:4])) / (1 << 32)
}

// Renew gets the next pair: its key is on disk before the server sees it, its
// certificate before it is used. The current pair stays. Killed or refused at any
// point it is called again, and goes on with the same key. trusted tells whether
// the server's dates may be judged. Only one call at a time.
func (id *Identity) Renew(ctx context.Context, trusted func() bool) error {
	next, err := id.nextKey()
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	reply, err := id.ask(ctx, next, trusted)
	var refused *ServerError
	if errors.As(err, &refused) && refused.Code == codeRefused && next.cert != nil {
		// The server knows the next key as the device's, and the certificate of
		// that has expired before its welcome came.
		if err := id.settle(next); err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		return id.Renew(ctx, trusted) // next has no certificate now: only once
	}
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	got, err := joined(next.key, reply.Certificate)
	if err == nil {
		err = got.check(id.cas(), id.Device)
	}
	if err != nil {
		return fmt.Errorf("renew: the server's answer: %w", err)
	}
	if err := got.write(id.fsys, "identity.renewed", filepath.Join(id.dir, fileNext)); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.next, id.refused = got, false
	if id.shown != id.current { // a former certificate of the same key
		id.shown = nil
	}
	return nil
}

// nextKey returns the pair that is being got; its key is on disk.
func (id *Identity) nextKey() (*pair, error) {
	id.mu.Lock()
	next := id.next
	id.mu.Unlock()
	if next != nil {
		return next, nil
	}
	next, err := newPair()
	if err != nil {
		return nil, err
	}
	if err := next.write(id.fsys, "identity.next", filepath.Join(id.dir, fileNext)); err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.next = next
	return next, nil
}

func (id *Identity) ask(ctx context.Context, next *pair, trusted func() bool) (*wire.RenewReply, error) {
	id.mu.Lock()
	current := id.current
	id.mu.Unlock()
	spki, err := x509.MarshalPKIXPublicKey(&next.key.PublicKey)
	if err != nil {
		return nil, err
	}
	cert := sha256.Sum256(current.cert.Raw)
	r := wire.RenewRequest{Device: id.Device, Certificate: cert[:], PublicKey: spki}
	proof := sha256.Sum256(wire.RenewProof(r.Device, r.Certificate, r.PublicKey))
	if r.Old, err = ecdsa.SignASN1(rand.Reader, current.key, proof[:]); err != nil {
		return nil, err
	}
	if r.New, err = ecdsa.SignASN1(rand.Reader, next.key, proof[:]); err != nil {
		return nil, err
	}
	body, err := json.Marshal(&r)
	if err != nil {
		return nil, err
	}
	for _, server := range id.servers() {
		var u *url.URL
		if u, err = url.Parse(server); err != nil {
			continue
		}
		reply := &wire.RenewReply{}
		var refused *ServerError
		if err = send(ctx, id.checked(u.Hostname(), trusted), server+"/v1/renew", body, reply); err == nil || errors.As(err, &refused) {
			return reply, err
		}
	}
	return nil, err
}

// cas are those that are trusted.
func (id *Identity) cas() []*x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.trusted
}

// Welcomed takes in that the server welcomed the device in the session of the last
// handshake. renewed tells whether Settle has something to do, from the MQTT
// address that worked last when it is another one now.
func (id *Identity) Welcomed() (renewed bool, from string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.welcome(), id.arrive()
}

// Settle makes the next pair the current one when the server has welcomed it, by
// one rename.
func (id *Identity) Settle() (renewed bool, err error) {
	id.mu.Lock()
	next := id.next
	done := next != nil && id.shown == next && id.welcomed
	id.mu.Unlock()
	if !done {
		return false, nil
	}
	if err := id.settle(next); err != nil {
		return false, fmt.Errorf("renew: %w", err)
	}
	return true, nil
}

func (id *Identity) settle(next *pair) error {
	if err := next.write(id.fsys, "identity.settle", filepath.Join(id.dir, fileKey)); err != nil {
		return err
	}
	id.mu.Lock()
	id.current, id.next, id.signer, id.refused = next, nil, next, false
	id.mu.Unlock()
	return durable.Remove(id.fsys, "identity.settled", filepath.Join(id.dir, fileNext))
}
