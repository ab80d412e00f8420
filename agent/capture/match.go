package capture

import (
	"bytes"
	"crypto/rand"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/where"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Reasons for which a sample that matched was dropped.
const (
	dropLarge   = "too_large"   // the inputs of one sample are over 16 MB
	dropRate    = "rate"        // more than one a second
	dropBusy    = "busy"        // others waited to be written
	dropBytes   = "bytes"       // the order's bytes for this device are used
	dropQuota   = "quota"       // the queue is full
	dropRedact  = "redaction"   // the program failed
	dropWrite   = "write"       // the disk failed
	dropWaiting = "feedback"    // too many others waited for feedback
	maxDropped  = math.MaxInt64 // of a count
)

// answerKey names an answer among those of all models.
type answerKey struct {
	model string
	id    truth.ID
}

// sample is an answer with copies of its inputs.
type sample struct {
	id      [16]byte // drawn here: requests' ids may come again, and say who asked
	at      time.Time
	path    string
	answer  where.Answer
	tensors []bundle.Tensor
	inputs  [][]byte
	coded   []string // encoding of each input; empty: it is the tensor
	files   [][]byte // pictures as they came, until copy
	label   string
	size    int64
}

// job is a sample that an order wants.
type job struct {
	capture string
	s       *sample
}

const (
	maxHeld      = 8 << 20 // bytes of inputs that wait for feedback
	maxHeldCount = 4096
	maxSent      = 4096
)

// held are samples that wait for feedback, the oldest first.
type held struct {
	byKey map[answerKey]*sample
	order []answerKey
	bytes int64
}

func newHeld() held { return held{byKey: map[answerKey]*sample{}} }

// add keeps a sample and returns how many had to go for it.
func (h *held) add(k answerKey, s *sample) (gone int) {
	h.remove(k)
	h.byKey[k], h.order, h.bytes = s, append(h.order, k), h.bytes+s.size
	for len(h.order) > 1 && (h.bytes > maxHeld || len(h.order) > maxHeldCount) {
		h.remove(h.order[0])
		gone++
	}
	return gone
}

func (h *held) remove(k answerKey) {
	if s := h.byKey[k]; s != nil {
		h.bytes -= s.size
		delete(h.byKey, k)
		h.order = slices.DeleteFunc(h.order, func(x answerKey) bool { return x == k })
	}
}

// sent remembers which captures have the sample of an answer: what is said of it
// later is told to them.
type sent struct {
	byKey map[answerKey]*told
	order []answerKey
}

type told struct {
	id       [16]byte
	captures []string
}

func newSent() sent { return sent{byKey: map[answerKey]*told{}} }

func (s *sent) add(k answerKey, id [16]byte, capture string) {
	t := s.byKey[k]
	if t == nil || t.id != id {
		if t == nil {
			s.order = append(s.order, k)
		}
		t = &told{id: id}
		s.byKey[k] = t
	}
	t.captures = append(t.captures, capture)
	for len(s.order) > maxSent {
		delete(s.byKey, s.order[0])
		s.order = s.order[1:]
	}
}

// Answered takes in an answer. Its inputs are copied only if an order wants them or
// may want them after feedback.
func (k *Keeper) Answered(a *oip.Answered, seen truth.Seen) {
	if !k.active.Load() {
		return
	}
	now, key := k.c.Now(), answerKey{a.Slot.Key.Model, truth.IDOf(a.ID)}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held.remove(key) // the newest answer of an id counts
	delete(k.sent.byKey, key)
	var s *sample
	wait := false
	for _, o := range k.orders {
		if !o.wants(a.Slot.Key.Model, now) {
			continue
		}
		if s == nil {
			s = newSample(a, seen, now)
		}
		switch {
		case s.size > wire.MaxCaptureBytes:
			if o.expr.Match(s.answer) {
				k.drop(o, dropLarge)
			}
		case o.expr.Match(s.answer):
			k.want(o, key, s, a)
		case o.expr.Feedback():
			wait = true
		}
	}
	if wait {
		s.copy(a)
		if gone := k.held.add(key, s); gone > 0 {
			k.dropWaiting(uint64(gone))
		}
	}
}

// dropWaiting counts samples that could not wait for every order that waits.
func (k *Keeper) dropWaiting(n uint64) {
	for _, o := range k.orders {
		if o.expr.Feedback() && !o.Stopped {
			o.count(dropWaiting, n)
		}
	}
}

func (o *order) wants(model string, now time.Time) bool {
	return !o.Stopped && o.Model == model && now.Unix() < o.Expires && o.Kept < o.Max
}

func newSample(a *oip.Answered, seen truth.Seen, now time.Time) *sample {
	s := &sample{at: now, path: a.Slot.Key.Path, answer: where.Answer{
		Feedback: where.None, Class: seen.Best, Score: seen.Score, Entropy: seen.Entropy, Latency: float64(a.Took) / float64(time.Millisecond),
	}}
	rand.Read(s.id[:]) // never fails
	if seen.Best < 0 {
		s.answer.Score = math.NaN()
	} else if names := a.Labels(); seen.Best < len(names) {
		s.answer.ClassName = names[seen.Best]
	}
	if !seen.OK {
		s.answer.Entropy = math.NaN()
	}
	if s.files = make([][]byte, len(a.Inputs)); a.Files != nil {
		s.files = a.Files()
	}
	s.coded = make([]string, len(a.Inputs))
	for i, in := range a.Inputs {
		if s.coded[i] = encoding(s.files[i]); s.coded[i] != "" {
			in = s.files[i]
		}
		s.size += int64(len(in))
	}
	return s
}

// encoding is that of a picture, empty: it is none.
func encoding(b []byte) string {
	switch http.DetectContentType(b) {
	case "image/jpeg":
		return "jpeg"
	case "image/png":
		return "png"
	}
	return ""
}

// copy takes the inputs over; later calls do nothing.
func (s *sample) copy(a *oip.Answered) {
	if s.inputs != nil {
		return
	}
	s.tensors = a.Slot.Contract.Inputs
	for i, in := range a.Inputs {
		if s.coded[i] != "" {
			in = s.files[i]
		}
		s.inputs = append(s.inputs, bytes.Clone(in))
	}
	s.files = nil
}

// want hands a sample to be written for an order; a is nil when its inputs were
// copied before. The caller holds the lock.
func (k *Keeper) want(o *order, key answerKey, s *sample, a *oip.Answered) {
	switch {
	case o.Used+s.size > o.Bytes:
		k.drop(o, dropBytes)
		return
	case !k.limit.Allow():
		k.drop(o, dropRate)
		return
	}
	if a != nil {
		s.copy(a)
	}
	select {
	case k.jobs <- job{o.ID, s.fixed()}:
		k.sent.add(key, s.id, o.ID)
	default:
		k.drop(o, dropBusy)
	}
}

// fixed is the sample as it is now: feedback that comes later changes the original.
func (s *sample) fixed() *sample {
	c := *s
	return &c
}

// drop counts a sample that an order wanted; the caller holds the lock.
func (k *Keeper) drop(o *order, reason string) {
	k.lost++
	o.count(reason, 1)
}

func (o *order) count(reason string, n uint64) {
	if o.Dropped == nil {
		o.Dropped = map[string]uint64{}
	}
	o.Dropped[reason] = min(o.Dropped[reason]+n, maxDropped)
}

// Judged takes in what was said of an answer.
func (k *Keeper) Judged(j truth.Judged) {
	if !k.active.Load() {
		return
	}
	now, key := k.c.Now(), answerKey{j.Key.Model, j.ID}
	word, label := where.Wrong, j.Name
	if j.Right {
		word = where.Right
	}
	if label == "" && j.Label >= 0 {
		label = strconv.Itoa(j.Label)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.sent.byKey[key]; t != nil {
		for _, capture := range t.captures {
			s := &sample{id: t.id, at: now, answer: where.Answer{Feedback: word}, label: label}
			select {
			case k.jobs <- job{capture, s}:
			default:
				k.lost++
			}
		}
	}
	s := k.held.byKey[key]
	if s == nil {
		return
	}
	k.held.remove(key)
	s.answer.Feedback, s.label = word, label
	already := k.sent.byKey[key]
	for _, o := range k.orders {
		if o.wants(key.model, now) && (already == nil || !slices.Contains(already.captures, o.ID)) && o.expr.Match(s.answer) {
			k.want(o, key, s, nil)
		}
	}
}
