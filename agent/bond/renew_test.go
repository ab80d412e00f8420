package bond

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
)

// renewals stands in for identity, link and server.
type renewals struct {
	st        identity.Renewal
	skew      time.Duration // of the device's clock
	sync      bool          // its clock
	connected bool
	drained   bool
	knows     bool  // the server knows the next pair when it comes
	err       error // of the server
	asked     []time.Time
	used      int
	events    [][3]string // type, code, detail
}

const life = 90 * 24 * time.Hour

// renewerOf is a renewer of a certificate that is new now.
func renewerOf(s *renewals) *Renewer {
	s.certificate("1")
	s.connected, s.drained, s.knows, s.sync = true, true, true, true
	return newRenewer(s, Surroundings{
		Now:       func() time.Time { return time.Now().Add(s.skew) },
		Trusted:   func() bool { return s.sync },
		Connected: func() bool { return s.connected },
		Drained:   func() bool { return s.drained },
		Reconnect: func() {},
		Happened:  func(t, c, d string) { s.events = append(s.events, [3]string{t, c, d}) },
		Log:       slog.New(slog.DiscardHandler),
	})
}

func (s *renewals) certificate(serial string) {
	now := time.Now()
	s.st = identity.Renewal{Serial: serial, From: now, Due: now.Add(life * 2 / 3), Expires: now.Add(life)}
}

func (s *renewals) Renewal() identity.Renewal { return s.st }

func (s *renewals) Renew(context.Context, func() bool) error {
	s.asked = append(s.asked, time.Now())
	if s.err == nil {
		s.st.Ready, s.st.Refused, s.used = true, false, 0
	}
	return s.err
}

func (s *renewals) UseNext() {
	s.used++
	s.st.Refused = !s.knows
}

func (s *renewals) Settle() (bool, error) {
	if !s.st.Ready || s.used == 0 || s.st.Refused {
		return false, nil
	}
	s.used = 0
	s.certificate(s.st.Serial + "1")
	return true, nil
}

// renewFor runs a renewer for some time.
func renewFor(t *testing.T, r *Renewer, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestRenewerRenewsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &renewals{}
		r := renewerOf(s)
		renewFor(t, r, life*2/3-time.Second)
		if len(s.asked) != 0 {
			t.Errorf("asked %v, two thirds are over at %v", s.asked, s.st.Due)
		}
		due := s.st.Due
		renewFor(t, r, 2*time.Hour)
		if len(s.asked) != 1 || s.asked[0].Sub(due) > time.Hour || s.st.Serial != "11" || len(s.events) != 1 || s.events[0][0] != "identity.renewed" {
			t.Errorf("asked %v for %v, events %v, %+v", s.asked, due, s.events, s.st)
		}
		renewFor(t, r, 10*life)
		if n := len(s.asked); n < 15 || n > 16 {
			t.Errorf("%d certificates in ten lives", n)
		}
	})
}

// A server that cannot be reached, or refuses, is asked again ever more seldom, not
// less than once in two hours, and one event says why.
func TestRenewerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &renewals{}
		r := renewerOf(s)
		s.err = &identity.ServerError{Code: identity.CodePending, Detail: "waits", Next: "accept it"}
		renewFor(t, r, life*2/3+24*time.Hour)
		if n := len(s.asked); n < 12 || n > 60 {
			t.Errorf("asked %d times in a day", n)
		}
		if len(s.events) != 1 || s.events[0][1] != identity.CodePending {
			t.Errorf("events %v", s.events)
		}
		if c := r.Status(); c.Renewal != "waits (renew.pending)" || c.Next != "accept it" || c.Days != 29 {
			t.Errorf("%+v", c)
		}
		s.err = nil
		renewFor(t, r, 3*time.Hour)
		if s.st.Serial != "11" || r.Status().Renewal != "" {
			t.Errorf("%+v, %+v", s.st, r.Status())
		}
	})
}

// Reports that the current key signed reach the server first, but are not waited
// for without end.
func TestRenewerWaitsForReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &renewals{}
		r := renewerOf(s)
		s.drained = false
		s.skew = life
		renewFor(t, r, drainTime-time.Minute)
		if len(s.asked) != 1 || s.st.Serial != "1" || s.used != 0 {
			t.Errorf("asked %v, used %d: %+v", s.asked, s.used, s.st)
		}
		renewFor(t, r, 3*time.Minute)
		if s.st.Serial != "11" {
			t.Errorf("%+v", s.st)
		}
	})
}

// A server that forgot the next pair is asked for it again.
func TestRenewerAsksAgainWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &renewals{}
		r := renewerOf(s)
		s.skew, s.knows = life, false
		renewFor(t, r, 24*time.Hour)
		if n := len(s.asked); n < 12 || n > 40 || s.st.Serial != "1" {
			t.Errorf("asked %d times in a day: %+v", n, s.st)
		}
		s.skew, s.knows = 0, true
		renewFor(t, r, 2*time.Hour)
		if s.st.Serial != "11" {
			t.Errorf("%+v", s.st)
		}
	})
}

// With a clock that nobody trusts the certificate's own date counts, and silence is
// a reason to ask; with one that is right it is none.
func TestRenewerWithoutClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &renewals{}
		r := renewerOf(s)
		s.sync, s.skew = false, -20*365*24*time.Hour
		renewFor(t, r, life*2/3-time.Hour)
		if len(s.asked) != 0 {
			t.Errorf("asked %v", s.asked)
		}
		renewFor(t, r, 3*time.Hour)
		if len(s.asked) != 1 {
			t.Errorf("asked %v, due %v", s.asked, s.st.Due)
		}
	})
	for _, sync := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := &renewals{}
			r := renewerOf(s)
			s.sync, s.connected, s.err = sync, false, errors.New("no route to host")
			renewFor(t, r, 24*time.Hour)
			if (len(s.asked) > 0) == sync || len(s.events) > 0 {
				t.Errorf("clock synchronised %v, a day of silence: asked %d times, events %v", sync, len(s.asked), s.events)
			}
		})
	}
}

func TestDaysLeft(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]int{0: 0, time.Hour: 0, 24 * time.Hour: 1, 47 * time.Hour: 1, -time.Hour: -1, -24 * time.Hour: -1, -25 * time.Hour: -2} {
		if got := DaysLeft(now.Add(d), now); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}
