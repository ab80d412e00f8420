package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// route is where metadata and blobs come from: the sticks that are in, then the
// link. What waits for the link is woken when a stick comes or goes.
type route struct {
	mu     sync.Mutex
	turn   context.Context // ends when anything below changes
	end    context.CancelFunc
	sticks []*usb.Stick // that were believed
	taking int          // sticks that are being verified
	fresh  bool         // a stick brought a wish that the update has not seen
}

func newRoute() *route {
	r := &route{}
	r.turn, r.end = context.WithCancel(context.Background())
	return r
}

// change alters the route and ends the turn.
func (r *route) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.end()
	r.turn, r.end = context.WithCancel(context.Background())
}

// take has a stick verified while nobody waits for the link, and keeps it when it
// is believed.
func (r *route) take(s *usb.Stick, verify func() error) error {
	r.change(func() { r.taking++ })
	err := verify()
	r.change(func() {
		r.taking--
		if err == nil {
			r.sticks, r.fresh = append(r.sticks, s), true
		}
	})
	return err
}

// drop takes a stick out.
func (r *route) drop(s *usb.Stick) {
	r.change(func() { r.sticks = slices.DeleteFunc(r.sticks, func(x *usb.Stick) bool { return x == s }) })
}

// next tells what a refresh is to do: wait, take the wish that is held, or ask
// the link.
func (r *route) next() (turn context.Context, wait, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taking > 0 {
		return r.turn, true, false
	}
	fresh, r.fresh = r.fresh, false
	return r.turn, false, fresh
}

func (r *route) now() (turn context.Context, sticks []*usb.Stick) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.turn, slices.Clone(r.sticks)
}

// during runs f until ctx or the turn ends; again tells that the turn ended it.
func during(ctx, turn context.Context, f func(context.Context) error) (again bool, err error) {
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(turn, cancel)()
	err = f(c)
	return err != nil && c.Err() != nil && ctx.Err() == nil, err
}

// Refresh implements update.Repository.
func (r repository) Refresh(ctx context.Context) (trust.Wish, error) {
	for {
		turn, wait, fresh := r.a.route.next()
		if fresh {
			return r.a.trust.Wish(), nil
		}
		if wait {
			select {
			case <-ctx.Done():
				return trust.Wish{}, ctx.Err()
			case <-turn.Done():
			}
			continue
		}
		var w trust.Wish
		again, err := during(ctx, turn, func(ctx context.Context) (err error) {
			w, err = r.a.trust.Refresh(ctx, link.Source{Link: r.a.link})
			return err
		})
		if again {
			continue
		}
		if err == nil {
			err = r.a.learn()
		}
		return w, err
	}
}

// learn takes the time that is signed in the newest wish.
func (a *Agent) learn() error { return a.clock.Raise(identity.Evidence(a.trust.Evidence())) }

// Download implements update.Repository.
func (r repository) Download(ctx context.Context, digest string, length int64) (string, error) {
	for {
		turn, sticks := r.a.route.now()
		var p string
		again, err := during(ctx, turn, func(ctx context.Context) (err error) {
			p, err = r.a.trust.Download(ctx, sources{sticks, link.Source{Link: r.a.link}}, digest, length)
			return err
		})
		if again || err != nil && r.distrust(sticks, digest, length, err) {
			continue
		}
		return p, err
	}
}

// distrust blames the stick that a blob came from when its bytes were wrong or did
// not come, and tells whether another attempt has a chance.
func (r repository) distrust(sticks []*usb.Stick, digest string, length int64, err error) bool {
	var refused *trust.Refusal
	wrong := errors.As(err, &refused) && refused.Code == trust.CodeBlob
	if usb.Code(err) == "" && !wrong {
		return false
	}
	b := trust.Blob{Length: length}
	if _, err := hex.Decode(b.Digest[:], []byte(strings.TrimPrefix(digest, "sha256:"))); err != nil {
		return false
	}
	for _, s := range sticks {
		if !s.Has(b) {
			continue
		}
		if s.Distrust(b.Digest); !s.Has(b) {
			r.a.report.Happened(update.Event{Type: eventStickBlob, Code: "usb.blob", Detail: err.Error(), Next: trust.Next(trust.CodeBlob)})
		}
		return true
	}
	return usb.Code(err) != "" // it is gone
}

// sources are the sticks first, then the link.
type sources struct {
	sticks []*usb.Stick
	link.Source
}

// Fetch implements trust.Source.
func (s sources) Fetch(ctx context.Context, b trust.Blob, missing []trust.Range, w io.WriterAt) error {
	for _, stick := range s.sticks {
		if stick.Has(b) {
			return stick.Fetch(ctx, b, missing, w)
		}
	}
	return s.Source.Fetch(ctx, b, missing, w)
}
