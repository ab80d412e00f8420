package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Idempotency lets a client send a request again when the answer was lost: under
// the same key it gets the answer of the first, and nothing is made twice.
type Idempotency struct {
	Key string `header:"Idempotency-Key" maxLength:"128" doc:"fresh for each request of one token; remembered for a day, until the server restarts"`
}

func (i *Idempotency) key() string { return i.Key }

// Limits of what is remembered. The oldest answers go first; what is forgotten
// early would be made twice, not lost.
const (
	answerLife = 24 * time.Hour
	maxAnswers = 10_000
)

// answers are those of requests that came with a key. They may hold the text of
// tokens and are therefore kept in memory only.
type answers struct {
	mu    sync.Mutex
	byKey map[string]*answered
	order []string // keys, oldest first
}

type answered struct {
	sum  [sha256.Size]byte // of the request
	at   time.Time
	done chan struct{} // closed when out and err are set
	out  any
	err  error
}

// once makes h answer a repeated key with the first answer. A refusal is not
// remembered: the request may be mended or tried again. The same key with another
// request is refused.
func once[I, O any, P interface {
	*I
	key() string
}](a *api, h func(context.Context, P) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (out *O, err error) {
		if P(in).key() == "" {
			return h(ctx, in)
		}
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		key := actor(ctx) + "\x00" + P(in).key()
		first, mine := a.answers.claim(key, sha256.Sum256(text), a.Now())
		if !mine {
			return repeat[O](ctx, first, sha256.Sum256(text))
		}
		err = errUnfinished
		defer func() { a.answers.settle(key, first, out, err) }() // also when h panics
		return h(ctx, in)
	}
}

var errUnfinished = errors.New("the first request with this key did not end")

// repeat waits for the first answer.
func repeat[O any](ctx context.Context, first *answered, sum [sha256.Size]byte) (*O, error) {
	if first.sum != sum {
		return nil, fleet.ErrKeyReused
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-first.done:
	}
	if first.err != nil {
		return nil, first.err
	}
	out, ok := first.out.(*O)
	if !ok {
		return nil, errors.New("an answer of another kind is remembered")
	}
	return out, nil
}

// claim returns the entry of a key; mine when it was made now.
func (s *answers) claim(key string, sum [sha256.Size]byte, now time.Time) (entry *answered, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && (len(s.order) >= maxAnswers || now.Sub(s.byKey[s.order[0]].at) > answerLife) {
		delete(s.byKey, s.order[0])
		s.order = s.order[1:]
	}
	if e := s.byKey[key]; e != nil {
		return e, false
	}
	e := &answered{sum: sum, at: now, done: make(chan struct{})}
	s.byKey[key] = e
	s.order = append(s.order, key)
	return e, true
}

// settle keeps an answer, or forgets the key after a refusal.
func (s *answers) settle(key string, e *answered, out any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.out, e.err = out, err
	close(e.done)
	if err == nil || s.byKey[key] != e {
		return
	}
	delete(s.byKey, key)
	for i, k := range s.order {
		if k == key {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			return
		}
	}
}
