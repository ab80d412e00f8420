package web

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

func TestLimiter(t *testing.T) {
	l, now := newLimiter(), time.Unix(0, 0)
	passed := func(remote string, n int) (ok int) {
		for range n {
			err := l.admit(remote, now)
			if err == nil {
				ok++
			} else if !errors.Is(err, fleet.ErrBusy) {
				t.Fatal(err)
			}
		}
		return ok
	}
	if n := passed("192.0.2.1:1", 100); n != eachBurst {
		t.Errorf("%d of one address at once", n)
	}
	if n := passed("192.0.2.1:2", 1); n != 0 {
		t.Error("another port is another address")
	}
	if n := passed("192.0.2.2:1", 1); n != 1 {
		t.Error("one address shuts others out")
	}
	if n := passed("[2001:db8::1]:1", 100); n != eachBurst {
		t.Errorf("%d of one IPv6 network at once", n)
	}
	if n := passed("[2001:db8::ffff:2]:1", 1); n != 0 {
		t.Error("another address of one host's network is another host")
	}
	now = now.Add(time.Second)
	if n := passed("192.0.2.1:1", 100); n != eachRate {
		t.Errorf("%d after a second", n)
	}
	now = now.Add(time.Hour)
	total := 0
	for i := range 3 * maxAddresses {
		total += passed(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff), 1)
	}
	if total != allBurst {
		t.Errorf("%d of everybody at once", total)
	}
	if len(l.each) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.each))
	}
}

// TestPublicRequestsAreBounded sends more enrolments than one address may.
func TestPublicRequestsAreBounded(t *testing.T) {
	s := newServer(t)
	const body = `{"token":"tok_x","secret":"","public_key":"","signature":""}`
	var last *answer
	for range eachBurst + 20 { // some come back while this runs
		if last = s.ask("", "POST", "/v1/enrol", body); last.status == 429 {
			break
		}
	}
	last.refused(429, "request.busy")
	if last.header.Get("Retry-After") == "" {
		t.Error("nothing says when to try again")
	}
	s.ask(fleet.RoleViewer, "GET", "/v1/devices", nil).ok(nil) // those with a token go on
}
