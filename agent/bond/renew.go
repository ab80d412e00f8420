package bond

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
)

// renewing is an identity that can be renewed, see identity.Identity.
type renewing interface {
	Renewal() identity.Renewal
	Renew(ctx context.Context, trusted func() bool) error
	UseNext()
	Settle() (renewed bool, err error)
}

// Renewer gets the next certificate when two thirds of the present one's life are
// over, when the server has taken no session for a while (a clock that is not
// trusted may not know that the certificate has expired), and again until the
// device is known by it.
type Renewer struct {
	id   renewing
	s    Surroundings
	wake chan struct{}

	serial  string    // of the current certificate
	first   time.Time // when this process saw it first
	session time.Time // when there was a session last, or the next pair was got
	ready   time.Time // when the next pair was got
	pause   time.Duration

	mu    sync.Mutex
	trial error // of the last try
}

// NewRenewer returns one that Run starts.
func NewRenewer(id *identity.Identity, s Surroundings) *Renewer { return newRenewer(id, s) }

func newRenewer(id renewing, s Surroundings) *Renewer {
	return &Renewer{id: id, s: s, wake: make(chan struct{}, 1)}
}

// Look has the renewer look soon.
func (r *Renewer) Look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Pauses of a renewal. Those that depend on the certificate's life are shorter
// when that is: see scaled.
const (
	lookAtLeast = time.Hour        // clocks jump
	silence     = 15 * time.Minute // without a session, until it is asked
	firstPause  = time.Minute      // after the first failed try; doubles
	lastPause   = time.Hour
	drainTime   = 10 * time.Minute // for reports that the current key has signed
	drainLook   = time.Second
)

// scaled is d, or a hundredth of the certificate's life if that is less.
func scaled(d time.Duration, st identity.Renewal) time.Duration {
	return max(min(d, st.Expires.Sub(st.From)/100), 10*time.Millisecond)
}

// Run renews until ctx ends.
func (r *Renewer) Run(ctx context.Context) error {
	r.session = time.Now()
	for {
		timer := time.NewTimer(r.step(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// step does what is to be done now and returns when to look again.
func (r *Renewer) step(ctx context.Context) time.Duration {
	r.settle()
	st := r.id.Renewal()
	if st.Serial != r.serial {
		r.serial, r.first = st.Serial, time.Now()
	}
	if r.s.Connected() {
		r.session = time.Now()
	}
	silent := time.Since(r.session) >= scaled(silence, st) && (st.Ready || !r.s.Trusted())
	now := r.now(st)
	switch {
	case st.Ready && !st.Refused && !silent:
		return r.begin(st)
	case st.Refused && time.Since(r.ready) < r.pause:
		return r.pause - time.Since(r.ready)
	case st.Refused || silent || !now.Before(st.Due):
		return r.ask(ctx, st)
	}
	return min(max(st.Due.Sub(now), scaled(firstPause, st)), scaled(silence, st), lookAtLeast)
}

// now is the trusted time. It is at least that of the certificate, which the server
// has signed, and what has elapsed since.
func (r *Renewer) now(st identity.Renewal) time.Time {
	now, least := r.s.Now(), st.From.Add(time.Since(r.first))
	if now.Before(least) {
		return least
	}
	return now
}

// settle makes a pair that was welcomed the device's own.
func (r *Renewer) settle() {
	renewed, err := r.id.Settle()
	if err != nil {
		r.s.Log.Error("the new certificate is not kept yet", "err", err)
		r.tried(err)
	}
	if renewed {
		r.pause = 0
		st := r.id.Renewal()
		r.s.Log.Info("certificate renewed", "serial", st.Serial, "expires", st.Expires)
		r.s.Happened("identity.renewed", "", "certificate "+st.Serial+" until "+st.Expires.UTC().Format(time.RFC3339))
	}
}

// begin has the next pair begin a session, when the server has what the current
// one signed: from then on it believes the next one only.
func (r *Renewer) begin(st identity.Renewal) time.Duration {
	if !r.s.Connected() {
		return scaled(silence, st) // the link tries both
	}
	if !r.s.Drained() && time.Since(r.ready) < drainTime {
		return drainLook
	}
	r.id.UseNext()
	r.s.Reconnect()
	return scaled(firstPause, st)
}

// ask gets the next pair.
func (r *Renewer) ask(ctx context.Context, st identity.Renewal) time.Duration {
	err := r.id.Renew(ctx, r.s.Trusted)
	if ctx.Err() != nil {
		return lookAtLeast
	}
	if err == nil {
		r.tried(nil)
		r.session, r.ready = time.Now(), time.Now()
		if st.Refused { // it should not have been; perhaps it will be again
			r.pause = min(2*max(r.pause, scaled(firstPause, st)), lastPause)
		}
		r.s.Log.Info("the next certificate is here", "refused_before", st.Refused)
		return 0
	}
	first := scaled(firstPause, st)
	wait := max(r.pause, first)
	r.pause = min(2*wait, lastPause)
	r.s.Log.Warn("renewing is put off", "again", wait, "err", err)
	var refused *identity.ServerError
	if r.tried(err) && errors.As(err, &refused) {
		r.s.Happened("identity.renewal", refused.Code, refused.Detail)
	}
	return wait/2 + rand.N(wait)
}

// tried remembers how a try ended and tells whether that is news.
func (r *Renewer) tried(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := err != nil && (r.trial == nil || r.trial.Error() != err.Error())
	r.trial = err
	return news
}

// CertificateStatus is the certificate that the device is known by.
type CertificateStatus struct {
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
	Days    int       `json:"days"`   // left, negative: since it expired
	Renews  time.Time `json:"renews"` // when the next one is to be got
	// Renewal says how a renewal that has begun stands, empty: none has.
	Renewal string `json:"renewal,omitempty"`
	Next    string `json:"next,omitempty"` // what to do about it
}

// Status is the certificate as people at the device see it.
func (r *Renewer) Status() CertificateStatus {
	st := r.id.Renewal()
	s := CertificateStatus{Serial: st.Serial, Expires: st.Expires, Days: DaysLeft(st.Expires, r.s.Now()), Renews: st.Due}
	r.mu.Lock()
	err := r.trial
	r.mu.Unlock()
	var refused *identity.ServerError
	switch {
	case errors.As(err, &refused):
		s.Renewal, s.Next = refused.Error(), refused.Next
	case err != nil:
		s.Renewal, s.Next = err.Error(), "make sure that the server's API can be reached; it is tried again"
	case st.Ready:
		s.Renewal = "the next certificate waits for its first session"
	}
	return s
}

// DaysLeft counts whole days, rounded down.
func DaysLeft(expires, now time.Time) int {
	d := expires.Sub(now)
	days := int(d / (24 * time.Hour))
	if d < 0 && d%(24*time.Hour) != 0 {
		days--
	}
	return days
}
