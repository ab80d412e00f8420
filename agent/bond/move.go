package bond

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// moving is an identity that can be told where its server is, see
// identity.Identity.
type moving interface {
	Learn(env *wire.Envelope, now time.Time) (changed bool, err error)
	Way() identity.Way
	Probe(ctx context.Context, trusted func() bool) error
}

// Mover follows the server: it takes in signposts, and while the device is not at
// the first address that the newest names, it looks whether that one answers. Only
// when it does, the session begins anew there; so an address that is wrong costs
// nothing but these looks.
type Mover struct {
	id    moving
	s     Surroundings
	renew func() // looks at the certificate, which may be of a CA that goes
	told  chan struct{}

	mu      sync.Mutex
	asked   bool   // a session was begun anew for a signpost that was refused
	refused string // why the last one was, that the fleet has heard of
	said    string // trouble that it has heard of
}

// NewMover returns one that Run starts.
func NewMover(id *identity.Identity, s Surroundings, renew func()) *Mover {
	return newMover(id, s, renew)
}

func newMover(id moving, s Surroundings, renew func()) *Mover {
	return &Mover{id: id, s: s, renew: renew, told: make(chan struct{}, 1)}
}

// Welcomed takes in what came with a welcome: a signpost or nil, and the address
// that worked before when it was another.
func (m *Mover) Welcomed(env *wire.Envelope, from string) {
	if from != "" {
		at := m.id.Way()
		m.s.Log.Info("the server is reached at another address", "from", from, "to", at.MQTT)
		m.s.Happened("server.moved", "", "from "+from+" to "+at.MQTT)
	}
	if env != nil {
		m.learn(env)
	}
	select { // also without a signpost: this session may be on the fallback
	case m.told <- struct{}{}:
	default:
	}
}

func (m *Mover) learn(env *wire.Envelope) {
	changed, err := m.id.Learn(env, m.s.Now())
	m.mu.Lock()
	again := errors.Is(err, identity.ErrNotThisServer) && !m.asked
	m.asked = m.asked && !changed || again
	news := err != nil && err.Error() != m.refused
	switch {
	case err == nil:
		m.refused = ""
	case !again:
		m.refused = err.Error()
	}
	m.mu.Unlock()
	switch {
	case again: // the server has become another since this session began
		m.s.Reconnect()
	case err != nil && news:
		m.s.Log.Error("signpost", "err", err)
		m.s.Happened("server.signpost", "signpost.refused", err.Error())
	case changed:
		m.s.Log.Info("a signpost was taken in", "first", m.id.Way().First)
		m.s.Hello()
		m.renew()
	}
}

// Pauses between looks at an address that does not answer.
const (
	firstLook    = 15 * time.Second
	lastLook     = time.Hour
	probeTimeout = 20 * time.Second
)

// Run looks until ctx ends.
func (m *Mover) Run(ctx context.Context) error {
	pause := firstLook
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-m.told:
			timer.Stop()
		case <-timer.C:
		}
		if m.look(ctx) {
			pause = min(2*pause, lastLook)
		} else {
			pause = firstLook
		}
	}
}

// look tries the first address when another is in use, and tells whether it is in
// vain.
func (m *Mover) look(ctx context.Context) bool {
	if !m.id.Way().Fallback {
		m.say("")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := m.id.Probe(ctx, m.s.Trusted); err != nil {
		m.say(err.Error())
		return true
	}
	m.s.Reconnect()
	return false
}

// say tells the fleet once of an address that does not answer.
func (m *Mover) say(trouble string) {
	m.mu.Lock()
	news := trouble != m.said && trouble != ""
	m.said = trouble
	m.mu.Unlock()
	if !news {
		return
	}
	w := m.id.Way()
	m.s.Log.Warn("the server does not answer at its new address", "address", w.First, "err", trouble, "stays", w.MQTT)
	m.s.Happened("server.unreachable", "server.unreachable", "it stays at "+w.MQTT+": "+trouble)
	m.s.Hello()
}

// Trouble is why the server is not reached where it shall be, for people.
func (m *Mover) Trouble() string {
	w := m.id.Way()
	if !w.Fallback || w.Trouble == "" {
		return ""
	}
	return w.First + " is to be used: " + w.Trouble
}
