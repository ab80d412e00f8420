package telemetry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// odd takes in which run of the agent says hello, and tells what in it one device
// alone would not say; empty: nothing. A device that merely connects again, from
// wherever, goes on with its run; one that starts anew has a run that was not heard
// before; one that lost its state draws another epoch.
func odd(d *fleet.Device, h *wire.Hello, now time.Time) string {
	if d.Heard(h.Run, now) {
		return fmt.Sprintf("run %x of its agent speaks again, after another run spoke", h.Run)
	}
	if h.Epoch != d.Epoch {
		return ""
	}
	for _, q := range h.Queues {
		for _, before := range d.Queues {
			if q.Kind == before.Kind && q.Last < before.Last {
				return fmt.Sprintf("its %ss end at number %d, and had ended at %d before", q.Kind, q.Last, before.Last)
			}
		}
	}
	return ""
}

// Limits of what sessions tell: so many turns between two places within so long are
// two devices that push each other out.
const (
	placeTurns  = 6
	placeWindow = 10 * time.Minute
	placeLast   = 16 // sessions that are remembered of a device
)

// places remembers where the sessions of devices came from lately. It is for devices
// that do not tell their runs, and for whoever only uses a certificate.
type places struct {
	mu   sync.Mutex
	last map[string][]place
}

type place struct {
	from string
	at   time.Time
	run  uint64 // 0: no hello came, or it does not tell
}

// began takes in a session and tells whether two places take turns. Two networks of
// one device do that as well: the run that says hello in both tells them apart.
func (p *places) began(device, from string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string][]place{}
	}
	ps := append(p.last[device], place{from: from, at: now})
	ps = ps[max(0, len(ps)-placeLast):]
	for len(ps) > 0 && now.Sub(ps[0].at) > placeWindow {
		ps = ps[1:]
	}
	p.last[device] = ps
	turns := 0
	for i := 2; i < len(ps); i++ {
		a, b, c := ps[i-2], ps[i-1], ps[i]
		if a.from == c.from && a.from != b.from && (a.run == 0 || a.run != b.run) {
			turns++
		}
	}
	return turns >= placeTurns
}

// ran takes in the run that said hello in the newest session.
func (p *places) ran(device string, run uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ps := p.last[device]; len(ps) > 0 {
		ps[len(ps)-1].run = run
	}
}

// Forget takes in that a device's identity has ended: sessions so far say nothing
// about the next one.
func (i *Ingest) Forget(device string) {
	i.places.mu.Lock()
	defer i.places.mu.Unlock()
	delete(i.places.last, device)
}

// Session takes in that a device was let in, and the host that it came from.
func (i *Ingest) Session(ctx context.Context, device, from string) {
	if i.places.began(device, from, i.Now()) && i.Copied != nil {
		i.Copied(ctx, device, "sessions from two places push each other out, one of them "+from)
	}
}
