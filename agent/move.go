package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// moving is an identity that can be told where its server is, see
// identity.Identity.
type moving interface {
	Learn(env *wire.Envelope, now time.Time) (changed bool, err error)
	Way() identity.Way
	Probe(ctx context.Context, trusted func() bool) error
}

// mover follows the server: it takes in signposts, and while the device is not at
// the first address that the newest names, it looks whether that one answers. Only
// when it does, the session begins anew there; so an address that is wrong costs
// nothing but these looks.
type mover struct {
	id        moving
	now       func() time.Time // trusted
	trusted   func() bool
	reconnect func()
	hello     func()
	renew     func()
	happened  func(update.Event)
	log       *slog.Logger
	told      chan struct{}

	mu    sync.Mutex
	asked bool   // a session was begun anew for a signpost that was refused
	said  string // trouble that the fleet has heard of
}

func newMover(a *Agent) *mover {
	return &mover{
		id: a.id, now: func() time.Time { t, _ := a.clock.Now(); return t }, trusted: a.clock.Trusted, reconnect: a.link.Reconnect, hello: a.link.Poke,
		renew: a.renew.look, happened: a.report.Happened, log: a.log.With("part", "identity"), told: make(chan struct{}, 1),
	}
}

// welcomed takes in what came with a welcome: a signpost or nil, and the address
// that worked before when it was another.
func (m *mover) welcomed(env *wire.Envelope, from string) {
	if from != "" {
		at := m.id.Way()
		m.log.Info("the server is reached at another address", "from", from, "to", at.MQTT)
		m.happened(update.Event{Type: "server.moved", Detail: "from " + from + " to " + at.MQTT})
	}
	if env != nil {
		m.learn(env)
	}
	select { // also without a signpost: this session may be on the fallback
	case m.told <- struct{}{}:
	default:
	}
}

func (m *mover) learn(env *wire.Envelope) {
	changed, err := m.id.Learn(env, m.now())
	m.mu.Lock()
	again := errors.Is(err, identity.ErrNotThisServer) && !m.asked
	m.asked = m.asked && !changed || again
	m.mu.Unlock()
	switch {
	case again: // the server has become another since this session began
		m.reconnect()
	case err != nil:
		m.log.Error("signpost", "err", err)
		m.happened(update.Event{Type: "server.signpost", Code: "signpost.refused", Detail: err.Error()})
	case changed:
		m.log.Info("a signpost was taken in", "first", m.id.Way().First)
		m.hello()
		m.renew()
	}
}

// Pauses between looks at an address that does not answer.
const (
	firstLook    = 15 * time.Second
	lastLook     = time.Hour
	probeTimeout = 20 * time.Second
)

// run looks until ctx ends.
func (m *mover) run(ctx context.Context) error {
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
func (m *mover) look(ctx context.Context) bool {
	if !m.id.Way().Fallback {
		m.say("")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := m.id.Probe(ctx, m.trusted); err != nil {
		m.say(err.Error())
		return true
	}
	m.reconnect()
	return false
}

// say tells the fleet once of an address that does not answer.
func (m *mover) say(trouble string) {
	m.mu.Lock()
	news := trouble != m.said && trouble != ""
	m.said = trouble
	m.mu.Unlock()
	if !news {
		return
	}
	w := m.id.Way()
	m.log.Warn("the server does not answer at its new address", "address", w.First, "err", trouble, "stays", w.MQTT)
	m.happened(update.Event{Type: "server.unreachable", Code: "server.unreachable", Detail: "it stays at " + w.MQTT + ": " + trouble})
	m.hello()
}

// trouble is why the server is not reached where it shall be, for people.
func (m *mover) trouble() string {
	w := m.id.Way()
	if !w.Fallback || w.Trouble == "" {
		return ""
	}
	return w.First + " is to be used: " + w.Trouble
}
