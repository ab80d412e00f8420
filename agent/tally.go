package agent

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
	// tallyEvery is how often a refusal that goes on is told again.
	tallyEvery = time.Hour
	// maxTally bounds the different refusals that are counted at a time.
	maxTally = 64
)

// tallied are the types of events that an attacker, or a server that is set up
// wrongly, makes a device raise without end.
var tallied = []string{update.EventRefused, update.EventBelieved, eventStick, eventStickBlob}

// told is an event with how often it happened since it was last told.
type told struct {
	update.Event
	times int
}

// attrs are what travels beside the event's own fields.
func (e told) attrs() map[string]string {
	attrs := map[string]string{}
	if e.Next != "" {
		attrs[wire.AttrNext] = e.Next
	}
	if e.times > 1 {
		attrs[wire.AttrTimes] = strconv.Itoa(e.times)
	}
	if len(attrs) == 0 {
		return nil
	}
	return attrs
}

// tally keeps refusals that repeat from filling the queue, which would drop what
// else happened: the first of a kind is told at once, those that follow are counted
// and told as one with their number: once an hour, when metadata is believed again
// for the first time in an hour, and at the end.
type tally struct {
	mu    sync.Mutex
	taken uint64 // events so far: their order when the clock does not tell
	runs  map[tallyKey]*tallyRun
}

type tallyKey struct{ typ, model, path, code string }

// tallyRun is what happened of a kind since it was last told.
type tallyRun struct {
	since time.Time
	last  uint64 // event that was counted
	told
}

func newTally() tally { return tally{runs: map[tallyKey]*tallyRun{}} }

// take returns what is to be told now of an event, the oldest first.
func (t *tally) take(e update.Event, now time.Time) []told {
	if !slices.Contains(tallied, e.Type) {
		return []told{{e, 1}}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken++
	key := tallyKey{e.Type, e.Model, e.Path, e.Code}
	if run := t.runs[key]; run != nil {
		run.Event, run.last = e, t.taken
		run.times++
		return nil
	}
	var out []told
	if e.Type == update.EventBelieved || len(t.runs) >= maxTally {
		out = t.counted(now, 0)
	}
	if len(t.runs) >= maxTally {
		clear(t.runs)
	}
	t.runs[key] = &tallyRun{since: now}
	return append(out, told{e, 1})
}

// due returns what was counted for an hour. What did not happen again for as long
// is forgotten: its next time is a first one.
func (t *tally) due(now time.Time) []told {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.counted(now, tallyEvery)
	maps.DeleteFunc(t.runs, func(_ tallyKey, run *tallyRun) bool { return now.Sub(run.since) >= tallyEvery })
	return out
}

// rest returns all that was counted.
func (t *tally) rest(now time.Time) []told {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counted(now, 0)
}

// counted takes out what was counted for that long, in the order in which it
// happened last.
func (t *tally) counted(now time.Time, age time.Duration) (out []told) {
	var runs []*tallyRun
	for _, run := range t.runs {
		if run.times > 0 && now.Sub(run.since) >= age {
			runs = append(runs, run)
		}
	}
	slices.SortFunc(runs, func(a, b *tallyRun) int { return cmp.Compare(a.last, b.last) })
	for _, run := range runs {
		out = append(out, run.told)
		*run = tallyRun{since: now}
	}
	return out
}
