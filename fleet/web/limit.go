package web

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/fleet"
)

// How often requests that need no token may change something. They cost a
// signature each; a fleet that is set up at once comes through one address.
const (
	eachRate, eachBurst = 5, 60 // of one address, per second
	allRate, allBurst   = 50, 500
	maxAddresses        = 10_000 // that are remembered
)

// limiter bounds requests without a token.
type limiter struct {
	mu   sync.Mutex
	all  *rate.Limiter
	each map[string]*rate.Limiter
}

func newLimiter() *limiter {
	return &limiter{all: rate.NewLimiter(allRate, allBurst), each: map[string]*rate.Limiter{}}
}

// admit takes one request of an address, or refuses it.
func (l *limiter) admit(remote string, now time.Time) error {
	host := network(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.each[host]
	if one == nil {
		if len(l.each) >= maxAddresses {
			l.forget(now)
		}
		one = rate.NewLimiter(eachRate, eachBurst)
		l.each[host] = one
	}
	if !one.AllowN(now, 1) || !l.all.AllowN(now, 1) {
		return fleet.ErrBusy
	}
	return nil
}

// network is what of a remote address counts as one: an IPv4 address, or the /64
// that one host of IPv6 may take any address of.
func network(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return remote
	}
	return p.String()
}

// forget drops addresses that have been quiet, or, under a flood from everywhere,
// all of them: the common limit holds.
func (l *limiter) forget(now time.Time) {
	for host, one := range l.each {
		if one.TokensAt(now) >= eachBurst {
			delete(l.each, host)
		}
	}
	if len(l.each) >= maxAddresses {
		clear(l.each)
	}
}
