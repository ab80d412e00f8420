package telemetry

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// said is one hello as far as copies show in it.
type said struct {
	run, epoch uint64
	last       uint64 // event
}

// TestOdd tells what one device says from what two say.
func TestOdd(t *testing.T) {
	for name, c := range map[string]struct {
		hellos []said
		want   int // index of the first odd one, -1: none
	}{
		"one device":                               {[]said{{1, 7, 1}, {1, 7, 2}, {1, 7, 2}, {1, 7, 9}}, -1},
		"it connects again from anywhere":          {[]said{{1, 7, 1}, {1, 7, 1}, {1, 7, 1}}, -1},
		"it starts often":                          {[]said{{1, 7, 1}, {2, 7, 1}, {3, 7, 2}, {4, 7, 2}, {5, 7, 3}, {6, 7, 3}, {7, 7, 3}, {8, 7, 3}, {9, 7, 3}, {10, 7, 3}}, -1},
		"it loses its state and draws an epoch":    {[]said{{1, 7, 50}, {2, 8, 0}, {2, 8, 1}}, -1},
		"a new epoch while it runs":                {[]said{{1, 7, 50}, {1, 8, 0}, {1, 8, 1}}, -1},
		"an agent that tells no run":               {[]said{{0, 7, 1}, {0, 7, 2}, {0, 7, 3}}, -1},
		"an agent is updated, then taken back":     {[]said{{0, 7, 1}, {1, 7, 2}, {0, 7, 3}}, -1},
		"two take turns":                           {[]said{{1, 7, 1}, {2, 7, 1}, {1, 7, 1}}, 2},
		"two take turns, and one draws an epoch":   {[]said{{1, 7, 5}, {2, 8, 0}, {1, 7, 5}}, 2},
		"the first comes back after six others":    {[]said{{1, 7, 1}, {2, 7, 1}, {3, 7, 1}, {4, 7, 1}, {5, 7, 1}, {6, 7, 1}, {7, 7, 1}, {1, 7, 1}}, 7},
		"a disk that was set back":                 {[]said{{1, 7, 50}, {2, 7, 40}}, 1},
		"two without runs, whose numbers differ":   {[]said{{0, 7, 50}, {0, 7, 60}, {0, 7, 51}}, 2},
		"a copy that has not said anything by now": {[]said{{1, 7, 50}, {2, 7, 50}, {2, 7, 51}}, -1},
	} {
		d, got := &fleet.Device{}, -1
		for n, s := range c.hellos {
			h := &wire.Hello{Run: s.run, Epoch: s.epoch, Queues: []wire.QueueState{{Kind: wire.KindEvent, Last: s.last}, {Kind: wire.KindReport}}}
			if odd(d, h, time.Unix(int64(n), 0)) != "" && got < 0 {
				got = n
			}
			d.Epoch, d.Queues = h.Epoch, h.Queues
		}
		if got != c.want {
			t.Errorf("%s: hello %d is odd, want %d", name, got, c.want)
		}
	}
}

// TestRuns: a device that starts anew as often as it likes is never taken for two;
// two that share an identity are, as soon as each was heard and the first speaks
// again, if not more than six runs came in between.
func TestRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, run := &fleet.Device{}, uint64(1)
		for range rapid.IntRange(1, 60).Draw(t, "hellos") {
			if rapid.Bool().Draw(t, "starts") {
				run++
			}
			if d.Heard(run, time.Time{}) {
				t.Fatalf("one device was taken for two: %v", d.Runs)
			}
			if len(d.Runs) > 8 {
				t.Fatalf("%d runs are remembered", len(d.Runs))
			}
		}
		copy := uint64(1 << 40)
		d.Heard(copy, time.Time{})
		if !d.Heard(run, time.Time{}) || !d.Heard(copy, time.Time{}) {
			t.Fatal("two devices were taken for one")
		}
	})
}

// session is one in the story of TestPlaces: who connects from where, after how
// long, and which run says hello, 0: none.
type session struct {
	from  string
	after time.Duration
	run   uint64
}

// turns repeats sessions.
func turns(n int, ss ...session) (out []session) {
	for range n {
		out = append(out, ss...)
	}
	return out
}

func TestPlaces(t *testing.T) {
	second := time.Second
	for name, c := range map[string]struct {
		sessions []session
		want     bool
	}{
		"one place, many drops":                        {turns(50, session{"a", second, 1}), false},
		"half-open sessions of an agent without runs":  {turns(50, session{"a", second, 0}), false},
		"a new address at each drop":                   {[]session{{"a", second, 0}, {"b", second, 0}, {"c", second, 0}, {"d", second, 0}, {"e", second, 0}, {"f", second, 0}, {"g", second, 0}, {"h", second, 0}, {"i", second, 0}, {"j", second, 0}}, false},
		"two networks of one device":                   {turns(30, session{"a", second, 1}, session{"b", second, 1}), false},
		"an address changed once and back":             {[]session{{"a", second, 0}, {"a", second, 0}, {"b", second, 0}, {"b", second, 0}, {"a", second, 0}}, false},
		"two networks in turns, slowly":                {turns(30, session{"a", 3 * time.Minute, 0}, session{"b", 3 * time.Minute, 0}), false},
		"a certificate used elsewhere, without a word": {turns(5, session{"a", second, 1}, session{"b", second, 0}), true},
		"two old agents push each other out":           {turns(5, session{"a", second, 0}, session{"b", second, 0}), true},
		"three places":                                 {turns(5, session{"a", second, 1}, session{"b", second, 2}, session{"a", second, 1}, session{"c", second, 3}), true},
	} {
		var p places
		got, now := false, time.Unix(0, 0)
		for _, s := range c.sessions {
			now = now.Add(s.after)
			got = p.began("meter-1", s.from, now) || got
			p.ran("meter-1", s.run)
		}
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if n := len(p.last["meter-1"]); n > placeLast {
			t.Errorf("%s: %d sessions are remembered", name, n)
		}
	}
}
