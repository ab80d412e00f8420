package enroll

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Signposts is what telling devices about the server needs kept.
type Signposts interface {
	Signpost(ctx context.Context, device string) (*fleet.Signpost, error)
	PutSignpost(ctx context.Context, s *fleet.Signpost) error
	// Withheld tells whether a device was not heard of since the server was restored.
	Withheld(ctx context.Context, device string) (bool, error)
	// Recovered makes a key the device's own that a restore has forgotten; known is
	// the certificate in the backup.
	Recovered(ctx context.Context, device string, known []byte, r *fleet.Renewal, a fleet.Audit) error
}

// Tell takes in what a device says of its signpost, and returns the next one when it
// does not hold what the server is known by now; nil otherwise, and for a device
// that takes none.
func (s *Service) Tell(ctx context.Context, device string, told *wire.SignpostHeld) (*wire.Envelope, error) {
	if told == nil {
		return nil, nil
	}
	row, err := s.Store.Signpost(ctx, device)
	if err != nil {
		return nil, err
	}
	st := s.Standing()
	if told.Number == 0 && row.At.IsZero() && len(st.CAs) == 1 && len(st.Addresses) == 1 {
		return nil, nil // what its enrolment said is all there is
	}
	was := *row
	row.Using, row.Trouble = fleet.Plain(told.Using), fleet.Plain(told.Trouble)
	if last := row.Last(); last != nil && last.Number == told.Number && bytes.Equal(wire.Mark(row.Offered), told.Mark) {
		row.Held = row.Offered
	}
	if row.Using == "" {
		row.Using = st.Addresses[0].MQTT
		if held := row.Holds(); held != nil {
			row.Using = held.Addresses[0].MQTT
		} else if told.Number == 0 { // as enrolled: the oldest name
			row.Using = st.Addresses[len(st.Addresses)-1].MQTT
		}
	}
	var env *wire.Envelope
	if held := row.Holds(); held == nil || held.Number != told.Number || !st.says(held) {
		if env, err = s.offer(ctx, st, row, told.Number); err != nil {
			return nil, err
		}
	}
	if bytes.Equal(was.Offered, row.Offered) && bytes.Equal(was.Held, row.Held) && was.Using == row.Using && was.Trouble == row.Trouble {
		return env, nil
	}
	row.At = s.Now()
	return env, s.Store.PutSignpost(ctx, row)
}

// offer signs the device's next signpost, or the one that it was offered again.
func (s *Service) offer(ctx context.Context, st *Standing, row *fleet.Signpost, holds int64) (*wire.Envelope, error) {
	next := row.Last()
	if next == nil || next.Number <= holds || !st.says(next) {
		number := holds + 1
		if next != nil && next.Number >= number {
			number = next.Number + 1
		}
		next = &wire.Signpost{Device: row.Device, Number: number, Addresses: st.Addresses}
		for _, c := range st.CAs {
			next.CAs = append(next.CAs, c.cert.Raw)
		}
	}
	ca, err := s.signer(ctx, st, row)
	if err != nil {
		return nil, err
	}
	env, err := wire.SignSignpost(ca.key, next)
	if err != nil {
		return nil, err
	}
	row.Offered = env.Payload
	return env, nil
}

// SignCaptures signs capture orders with the key of a CA that the device trusts.
func (s *Service) SignCaptures(ctx context.Context, device string, o *wire.CaptureOrders) (*wire.Envelope, error) {
	row, err := s.Store.Signpost(ctx, device)
	if err != nil {
		return nil, err
	}
	ca, err := s.signer(ctx, s.Standing(), row)
	if err != nil {
		return nil, err
	}
	return wire.SignCaptureOrders(ca.key, o)
}

// says tells whether a signpost says what the server is known by.
func (s *Standing) says(p *wire.Signpost) bool {
	same := slices.EqualFunc(s.CAs, p.CAs, func(c *CA, der []byte) bool { return bytes.Equal(c.cert.Raw, der) })
	return same && slices.Equal(s.Addresses, p.Addresses)
}

// signer is a CA that the device trusts.
func (s *Service) signer(ctx context.Context, st *Standing, row *fleet.Signpost) (*CA, error) {
	cert, err := s.Store.Certificate(ctx, row.Device)
	if err != nil {
		return nil, err
	}
	held, issuer := row.Holds(), st.of(cert)
	for _, c := range st.CAs {
		if knows(held, issuer, c) {
			return c, nil
		}
	}
	return st.CAs[0], nil // it believes this one or is lost
}

// knows tells whether a device trusts a CA: by its signpost or, without one, because
// it was enrolled by it, which its certificate tells.
func knows(held *wire.Signpost, issuer, c *CA) bool {
	if held != nil {
		return slices.ContainsFunc(held.CAs, func(der []byte) bool { return bytes.Equal(der, c.cert.Raw) })
	}
	return issuer == c
}

// known is the CA that issues for a device.
func (s *Service) known(ctx context.Context, device string) (*CA, error) {
	st := s.Standing()
	if len(st.CAs) == 1 {
		return st.CAs[0], nil
	}
	row, err := s.Store.Signpost(ctx, device)
	if err != nil {
		return nil, err
	}
	return s.signer(ctx, st, row)
}

// Followed says how far a device follows.
type Followed struct {
	Device   string    `json:"device"`
	LastSeen time.Time `json:"last_seen"`
	Knows    []string  `json:"knows"`   // fingerprints of CAs
	Hangs    []string  `json:"hangs"`   // of those that issued its certificate and its next one
	Address  string    `json:"address"` // MQTT address that it uses; empty: as enrolled
	Trouble  string    `json:"trouble,omitempty"`
}

// Follow judges what is known of a device.
func (s *Standing) Follow(f *fleet.Follower) Followed {
	out := Followed{Device: f.Device, LastSeen: f.LastSeen, Address: f.Signpost.Using, Trouble: f.Signpost.Trouble}
	held, issuer, next := f.Signpost.Holds(), s.of(f.Certificate), s.of(f.Next)
	for _, c := range s.CAs {
		if knows(held, issuer, c) {
			out.Knows = append(out.Knows, c.Name())
		}
		if c == issuer || c == next {
			out.Hangs = append(out.Hangs, c.Name())
		}
	}
	return out
}
