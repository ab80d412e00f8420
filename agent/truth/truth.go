// Package truth takes in what applications learn later: whether an answer was
// right, and measures of their own. It remembers which release gave each recent
// answer, so that a word about it counts for that release, also after a switch.
//
// Memory is bounded: of each model the newest MaxAnswers answers of the last hour,
// at most 0.5 MB a model, and counts of the present window. No input, no output and
// no id as it was given is kept.
package truth

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// What is remembered of answers.
const (
	MaxAnswers = 4096 // of a model
	Life       = time.Hour
	maxModels  = 64
)

// Config of a Book.
type Config struct {
	Now    func() time.Time     // trusted
	Window func() time.Duration // of measurement
	// Active tells which release of a model serves.
	Active func(model string) (observe.Key, bool)
	// Judged is told of every word about an answer that counts; nil: nobody is.
	Judged func(Judged)
}

// Book is safe for concurrent use.
type Book struct {
	c Config

	mu      sync.Mutex
	models  map[string]*ring
	windows map[observe.Key]*window
	done    []wire.Sample
}

// New returns an empty Book.
func New(c Config) *Book {
	return &Book{c: c, models: map[string]*ring{}, windows: map[observe.Key]*window{}}
}

// ID is how a request's id is remembered: whatever its length, it takes no more
// room.
type ID [16]byte

// IDOf is the beginning of the SHA-256 of a request's id.
func IDOf(request string) ID {
	sum := sha256.Sum256([]byte(request))
	return ID(sum[:16])
}

// ring is the recent answers of one model, the oldest overwritten first.
type ring struct {
	answers []answer
	next    int
	at      map[ID]int
	release *release // that answered last
}

// release is what answers of one release have in common.
type release struct {
	key     observe.Key
	labels  []string
	classes int // that it tells apart; 0: it tells none
}

type answer struct {
	id      ID
	at      int64 // Unix, nanoseconds
	release *release
	class   int32 // -1: none
	said    said
	label   int32 // that was said; -1: none was
}

// said is what was said of an answer.
type said uint8

const (
	nothing said = iota
	right
	wrong
)

// Seen is what an answer's watched output says.
type Seen struct {
	sketch.Certainty
	Classes int // values of the watched output; 0: none is watched
}

// See looks at the watched output of an answer.
func See(a *oip.Answered) Seen {
	c := a.Slot.Contract
	if c.Watch != nil {
		for i := range c.Outputs {
			t := &c.Outputs[i]
			if t.Name == c.Watch.Output && i < len(a.Outputs) {
				values := t.Quant.Real(bundle.Values(t.DType, a.Outputs[i]), t.Shape)
				return Seen{sketch.CertaintyOf(values, t.ScoreKind()), len(values)}
			}
		}
	}
	return Seen{Certainty: sketch.Certainty{Best: -1}}
}

// Answered remembers an answer. The newest of an id that comes again counts.
func (b *Book) Answered(a *oip.Answered, s Seen) {
	now, id := b.c.Now(), IDOf(a.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.models[a.Slot.Key.Model]
	if r == nil {
		if len(b.models) >= maxModels {
			return
		}
		r = &ring{at: map[ID]int{}}
		b.models[a.Slot.Key.Model] = r
	}
	if r.release == nil || r.release.key != a.Slot.Key {
		r.release = &release{a.Slot.Key, slices.Clone(a.Labels()), s.Classes}
	}
	r.add(answer{id: id, at: now.UnixNano(), release: r.release, class: int32(s.Best), label: -1})
}

func (r *ring) add(x answer) {
	if at, again := r.at[x.id]; again {
		r.answers[at].id = ID{} // forgotten: the map leads to the new one
	}
	if len(r.answers) < MaxAnswers {
		r.next = len(r.answers)
		r.answers = append(r.answers, x)
	} else {
		if old := r.answers[r.next].id; r.at[old] == r.next {
			delete(r.at, old)
		}
		r.answers[r.next] = x
	}
	r.at[x.id] = r.next
	r.next = (r.next + 1) % MaxAnswers
}

// find returns an answer; late tells that it was given too long ago.
func (r *ring) find(id ID, now time.Time) (x *answer, late bool) {
	at, ok := r.at[id]
	if !ok {
		return nil, false
	}
	x = &r.answers[at]
	return x, now.Sub(time.Unix(0, x.at)) > Life
}
