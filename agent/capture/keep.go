package capture

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/where"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// tidyEvery is how soon inputs that were sent are gone from the disk.
const tidyEvery = 5 * time.Second

// Run writes what is wanted until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := k.tidy(); err != nil {
				k.c.Log.Error("captured inputs are not erased", "err", err)
			}
		case j := <-k.jobs:
			if err := k.keep(ctx, j); err != nil && ctx.Err() == nil {
				k.c.Log.Warn("an input is not captured", "capture", j.capture, "err", err)
			}
		}
	}
}

// refusal is an error with the reason under which it is counted.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }

// keep brings one sample into the queue.
func (k *Keeper) keep(ctx context.Context, j job) error {
	err := k.write(ctx, j)
	k.mu.Lock()
	defer k.mu.Unlock()
	var r *refusal
	if errors.As(err, &r) {
		if o := k.find(j.capture); o != nil {
			k.drop(o, r.reason)
		}
		return err
	}
	if err == nil {
		k.kept++
	}
	return err
}

// find returns an order; the caller holds the lock.
func (k *Keeper) find(id string) *order {
	at := slices.IndexFunc(k.orders, func(o *order) bool { return o.ID == id })
	if at < 0 {
		return nil
	}
	return k.orders[at]
}

func (k *Keeper) write(ctx context.Context, j job) error {
	s := j.s
	c := wire.Captured{Capture: j.capture, Sample: s.id[:], Unix: s.at.Unix(), Label: clip(s.label)}
	if s.answer.Feedback != where.None {
		c.Feedback = s.answer.Feedback
	}
	if s.inputs == nil { // only a word about what was sent
		return k.append(&c)
	}
	c.Path = clip(s.path)
	if c.Answered = s.answer.ClassName; c.Answered == "" && s.answer.Class >= 0 {
		c.Answered = strconv.Itoa(s.answer.Class)
	}
	c.Answered = clip(c.Answered)
	if c.Score = s.answer.Score; math.IsNaN(c.Score) || math.IsInf(c.Score, 0) {
		c.Score = 0
	}
	inputs := s.inputs
	if k.c.Redact != "" {
		var err error
		if inputs, err = k.redact(ctx, s); err != nil {
			return &refusal{dropRedact, fmt.Errorf("redact: %w", err)}
		}
		c.Redacted = true
	}
	var all []byte
	for i, in := range inputs {
		t, err := json.Marshal(s.tensors[i])
		if err != nil {
			return err
		}
		c.Inputs = append(c.Inputs, wire.CapturedInput{Tensor: t, Shape: s.shape(i, in), Size: int64(len(in)), Encoding: s.coded[i]})
		all = append(all, in...)
	}
	if err := k.count(j.capture, int64(len(all))); err != nil {
		return err
	}
	sum := sha256.Sum256(all)
	c.Digest, c.Parts = sum[:], uint32((len(all)+wire.MaxCapturePart-1)/wire.MaxCapturePart)
	for part := range slices.Chunk(all, wire.MaxCapturePart) {
		c.Bytes = part
		if err := k.append(&c); err != nil {
			return &refusal{dropWrite, err}
		}
		c.Part++
	}
	return nil
}

// count takes room for a sample, durably, before it is written: bounds hold over a
// power cut.
func (k *Keeper) count(id string, size int64) error {
	const perPart = 1 << 10 // around the bytes of a record
	room := size + (size/wire.MaxCapturePart+1)*perPart
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.find(id)
	switch {
	case o == nil || !o.wants(o.Model, k.c.Now()):
		return errors.New("the order is over")
	case o.Used+size > o.Bytes:
		return &refusal{dropBytes, errors.New("the order's bytes are used")}
	case k.c.Queue.Size()+room > k.c.Quota:
		return &refusal{dropQuota, errors.New("the queue is full")}
	}
	o.Kept++
	o.Used += size
	if err := k.save(); err != nil {
		return &refusal{dropWrite, err}
	}
	return nil
}

func (k *Keeper) append(c *wire.Captured) error {
	if err := c.Check(); err != nil {
		return err
	}
	b, err := wire.Encode(c)
	if err == nil {
		_, err = k.c.Queue.Append(b)
	}
	if err == nil && k.c.Queued != nil {
		k.c.Queued()
	}
	return err
}

// shape is that of an input; a picture as it came has none.
func (s *sample) shape(i int, b []byte) []int {
	if s.coded[i] != "" {
		return nil
	}
	return shape(&s.tensors[i], b)
}

// shape fills a dynamic dimension from the number of bytes.
func shape(t *bundle.Tensor, b []byte) []int {
	out := slices.Clone(t.Shape)
	n, dynamic := len(b)/max(bundle.DTypeSize(t.DType), 1), -1
	for i, d := range out {
		if d < 0 {
			dynamic = i
		} else {
			n /= max(d, 1)
		}
	}
	if dynamic >= 0 {
		out[dynamic] = n
	}
	return out
}

// maxText bounds a name that travels, in bytes.
const maxText = 256

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// Queue is what the link drains.
type Queue interface {
	Next(max, maxBytes int) ([]wire.Record, error)
	Ack(epoch, sequence uint64) error
	Rewind(epoch, sequence uint64) error
}

// Uploads is the queue of captures at a bounded rate: inputs never crowd out what
// else a device has to say.
type Uploads struct {
	Queue
	limit *rate.Limiter
}

const (
	uploadRate  = 32 << 10 // bytes a second
	uploadBurst = 256 << 10
)

// Slowly returns a queue at that rate.
func Slowly(q Queue) Uploads { return Uploads{q, rate.NewLimiter(uploadRate, uploadBurst)} }

// Next returns nothing while the rate is used up.
func (u Uploads) Next(max, maxBytes int) ([]wire.Record, error) {
	records, err := u.Queue.Next(max, maxBytes)
	n := 0
	for _, r := range records {
		n += len(r.Payload)
	}
	if err != nil || !u.limit.AllowN(time.Now(), min(n, uploadBurst)) {
		return nil, err
	}
	return records, nil
}
