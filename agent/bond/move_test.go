package bond

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// place stands in for identity, link and server.
type place struct {
	way     identity.Way
	learns  error
	silent  error // why the first address does not answer
	probes  []time.Time
	resets  int // sessions begun anew
	hellos  int
	renewal int
	events  []string
}

func (p *place) Learn(*wire.Envelope, time.Time) (bool, error) { return p.learns == nil, p.learns }
func (p *place) Way() identity.Way                             { return p.way }

func (p *place) Probe(context.Context, func() bool) error {
	p.probes = append(p.probes, time.Now())
	return p.silent
}

func moverOf(p *place) *Mover {
	return newMover(p, Surroundings{
		Now: time.Now, Trusted: func() bool { return true },
		Reconnect: func() { p.resets++; p.way.Fallback = p.silent != nil },
		Hello:     func() { p.hellos++ },
		Happened:  func(typ, code, _ string) { p.events = append(p.events, typ+" "+code) },
		Log:       slog.New(slog.DiscardHandler),
	}, func() { p.renewal++ })
}

// moveFor runs a mover for some time.
func moveFor(t *testing.T, m *Mover, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// An address that does not answer costs looks that become rare, one event, and no
// session; when it answers, the session begins anew there.
func TestMoverFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{silent: errors.New("no such host"), way: identity.Way{Fallback: true, First: "new:8883", Trouble: "no such host"}}
		m := moverOf(p)
		m.Welcomed(&wire.Envelope{}, "")
		if p.hellos != 1 || p.renewal != 1 {
			t.Errorf("%d hellos, %d looks at the certificate after a signpost", p.hellos, p.renewal)
		}
		began := time.Now()
		moveFor(t, m, 24*time.Hour)
		if n := len(p.probes); n < 24 || n > 40 || p.probes[0].Sub(began) > time.Second || p.resets != 0 {
			t.Errorf("%d looks in a day, %d sessions begun anew", n, p.resets)
		}
		if !slices.Equal(p.events, []string{"server.unreachable server.unreachable"}) || m.Trouble() != "new:8883 is to be used: no such host" {
			t.Errorf("events %v, trouble %q", p.events, m.Trouble())
		}
		p.silent = nil
		moveFor(t, m, 2*time.Hour)
		if p.resets != 1 || m.Trouble() != "" {
			t.Errorf("%d sessions begun anew, trouble %q", p.resets, m.Trouble())
		}
		n := len(p.probes)
		moveFor(t, m, 24*time.Hour)
		if len(p.probes) != n || p.resets != 1 {
			t.Error("it goes on looking where it is")
		}
		m.Welcomed(nil, "old:8883")
		if !slices.Contains(p.events, "server.moved ") {
			t.Errorf("events %v", p.events)
		}
	})
}

// A signpost that the server of this session contradicts is tried again in another
// one, once; any other that is refused is told.
func TestMoverRefusals(t *testing.T) {
	p := &place{learns: identity.ErrNotThisServer}
	m := moverOf(p)
	for range 3 {
		m.Welcomed(&wire.Envelope{}, "")
	}
	if p.resets != 1 || len(p.events) != 1 {
		t.Errorf("%d sessions begun anew, events %v", p.resets, p.events)
	}
	p.learns = nil
	m.Welcomed(&wire.Envelope{}, "")
	p.learns = identity.ErrNotThisServer
	m.Welcomed(&wire.Envelope{}, "")
	if p.resets != 2 {
		t.Errorf("%d sessions begun anew", p.resets)
	}
	p.learns = identity.ErrSignpost
	m.Welcomed(&wire.Envelope{}, "")
	if p.resets != 2 || p.events[len(p.events)-1] != "server.signpost signpost.refused" {
		t.Errorf("%d sessions begun anew, events %v", p.resets, p.events)
	}
}
