// Package tally keeps refusals that repeat from filling the queue of events.
package tally

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

const (
	// every is how often a refusal that goes on is told again.
	every = time.Hour
	// maxRuns bounds the different refusals that are counted at a time.
	maxRuns = 64
)

// Told is an event with how often it happened since it was last told.
type Told struct {
	update.Event
	Times int
}

// Attrs are what travels beside the event's own fields.
func (e Told) Attrs() map[string]string {
	attrs := map[string]string{}
	if e.Next != "" {
		attrs[wire.AttrNext] = e.Next
	}
	if e.Times > 1 {
		attrs[wire.AttrTimes] = strconv.Itoa(e.Times)
	}
	if len(attrs) == 0 {
		return nil
	}
	return attrs
}

// Tally keeps refusals that repeat from filling the queue, which would drop what
// else happened: the first of a kind is told at once, those that follow are counted
// and told as one with their number: once an hour, when metadata is believed again
// for the first time in an hour, and at the end.
//
// It is safe for concurrent use.
type Tally struct {
	types []string
	mu    sync.Mutex
	taken uint64 // events so far: their order when the clock does not tell
	runs  map[key]*run
}

// key is a kind of event; code is its detail where it has none.
type key struct{ typ, model, path, code string }

// run is what happened of a kind since it was last told.
type run struct {
	since time.Time
	last  uint64 // event that was counted
	Told
}

// New counts events of these types: those that an attacker, a server that is set up
// wrongly or a loose contact makes a device raise without end. Others are told each.
func New(types ...string) *Tally { return &Tally{types: types, runs: map[key]*run{}} }

// Take returns what is to be told now of an event, the oldest first.
func (t *Tally) Take(e update.Event, now time.Time) []Told {
	if !slices.Contains(t.types, e.Type) {
		return []Told{{e, 1}}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken++
	k := key{e.Type, e.Model, e.Path, cmp.Or(e.Code, e.Detail)}
	if r := t.runs[k]; r != nil {
		r.Event, r.last = e, t.taken
		r.Times++
		return nil
	}
	var out []Told
	if e.Type == update.EventBelieved || len(t.runs) >= maxRuns {
		out = t.counted(now, 0)
	}
	if len(t.runs) >= maxRuns {
		clear(t.runs)
	}
	t.runs[k] = &run{since: now}
	return append(out, Told{e, 1})
}

// Due returns what was counted for an hour. What did not happen again for as long
// is forgotten: its next time is a first one.
func (t *Tally) Due(now time.Time) []Told {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.counted(now, every)
	maps.DeleteFunc(t.runs, func(_ key, r *run) bool { return now.Sub(r.since) >= every })
	return out
}

// Rest returns all that was counted.
func (t *Tally) Rest(now time.Time) []Told {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counted(now, 0)
}

// counted takes out what was counted for that long, in the order in which it
// happened last.
func (t *Tally) counted(now time.Time, age time.Duration) (out []Told) {
	var runs []*run
	for _, r := range t.runs {
		if r.Times > 0 && now.Sub(r.since) >= age {
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b *run) int { return cmp.Compare(a.last, b.last) })
	for _, r := range runs {
		out = append(out, r.Told)
		*r = run{since: now}
	}
	return out
}
