// Package queue keeps what a device has to tell until the server has committed
// it: one bounded queue on disk for each of reports, samples and events.
//
// A record that Append has returned for survives a power cut. It leaves the queue
// when it is acknowledged, or, oldest first, when the queue is full; what is
// dropped is counted, and the count is durable. Records are numbered (epoch,
// sequence): within an epoch the sequence only rises, and a new epoch is drawn
// when any queue was lost, so a number never names two records.
//
// A Queue is safe for concurrent use.
package queue

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// MaxRecord is the longest payload in bytes: it must fit into one message.
const MaxRecord = 96 << 10

// ErrTooLong is returned for a payload over MaxRecord.
var ErrTooLong = errors.New("record is too long")

// ErrAhead is returned when the server knows more of this epoch than the queue
// does: the device was set back to an older disk. Numbers would come twice, so a
// new epoch is to be drawn, see Set.Renew.
var ErrAhead = errors.New("the server knows more than this device has said")

// Config of one queue.
type Config struct {
	FS       durable.FS
	Dir      string
	Kind     wire.Kind
	Epoch    uint64
	MaxBytes int64 // of all segments; at least one segment stays
}

// Queue is one kind's records on disk, oldest first.
type Queue struct {
	c Config

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written to
	acked    mark
	dropped  uint64
	damaged  bool // records were lost that may have been sent

	life time.Duration // of what is kept; 0: nothing is
	now  func() time.Time
	kept []kept // oldest first
}

// mark is a position: everything of Epoch up to Sequence.
type mark struct{ epoch, sequence uint64 }

// Open reads what is there. A torn tail, left by a power cut in Append, is cut
// off; damage elsewhere loses the rest of its segment and is counted as dropped.
func Open(c Config) (*Queue, error) {
	q := &Queue{c: c}
	if err := durable.MkdirAll(c.FS, "queue.dir", c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", c.Kind, err)
	}
	if err := durable.Sweep(c.FS, "queue.sweep", c.Dir); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", c.Kind, err)
	}
	if err := q.readDropped(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", c.Kind, err)
	}
	if err := q.readSegments(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", c.Kind, err)
	}
	if len(q.segments) == 0 || q.last().epoch != c.Epoch {
		if err := q.rotate(); err != nil {
			return nil, fmt.Errorf("open queue %s: %w", c.Kind, err)
		}
	}
	return q, nil
}

func (q *Queue) last() *segment { return q.segments[len(q.segments)-1] }

// readSegments opens the segments in order and drops those that cannot be read.
func (q *Queue) readSegments() error {
	entries, err := q.c.FS.ReadDir(q.c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), segmentSuffix) {
			continue
		}
		s, lost, err := openSegment(q.c.FS, filepath.Join(q.c.Dir, e.Name()))
		if err != nil {
			return err
		}
		if lost > 0 {
			q.damaged = true
			if err := q.countDropped(lost); err != nil {
				return err
			}
		}
		if s != nil {
			q.segments = append(q.segments, s)
		}
	}
	slices.SortFunc(q.segments, func(a, b *segment) int { return cmp.Compare(a.order, b.order) })
	q.overlaps()
	return nil
}

// overlaps leaves out numbers that come twice.
func (q *Queue) overlaps() {
	for i, s := range q.segments[:max(0, len(q.segments)-1)] {
		// An append that failed may have left its record behind; the number
		// went to the next segment's first.
		if n := q.segments[i+1]; n.epoch == s.epoch && n.first >= s.first {
			s.count = min(s.count, n.first-s.first)
		}
	}
}

// renew goes on in a new epoch.
func (q *Queue) renew(epoch uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.c.Epoch == epoch {
		return nil
	}
	q.c.Epoch = epoch
	return q.rotate()
}

// rotate begins a new segment that goes on with the sequence, or begins it anew
// in a new epoch.
func (q *Queue) rotate() error {
	var order, first uint64 = 1, 1
	if len(q.segments) > 0 {
		l := q.last()
		order = l.order + 1
		if l.epoch == q.c.Epoch {
			first = l.next()
		}
	}
	s, err := createSegment(q.c.FS, q.c.Dir, order, q.c.Epoch, first)
	if err != nil {
		return err
	}
	q.segments = append(q.segments, s)
	return nil
}

func (q *Queue) segmentSize() int64 { return max(q.c.MaxBytes/16, 4<<10) }

// Append makes a record durable and returns its sequence.
func (q *Queue) Append(payload []byte) (uint64, error) {
	return q.AppendOf(func(_, _ uint64) ([]byte, error) { return payload, nil })
}

// AppendOf is Append for a payload that names the epoch and the sequence that it is
// recorded under; payload must not use the queue.
func (q *Queue) AppendOf(payload func(epoch, sequence uint64) ([]byte, error)) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, err := payload(q.c.Epoch, q.last().next())
	if err != nil {
		return 0, err
	}
	if len(b) == 0 || len(b) > MaxRecord {
		return 0, fmt.Errorf("append %d bytes to %s: %w", len(b), q.c.Kind, ErrTooLong)
	}
	return q.append(b)
}

func (q *Queue) append(payload []byte) (uint64, error) {
	if q.last().broken || q.last().size+int64(len(payload)) > q.segmentSize() && q.last().count > 0 {
		if err := q.rotate(); err != nil {
			return 0, fmt.Errorf("append to %s: %w", q.c.Kind, err)
		}
	}
	if err := q.trim(int64(len(payload))); err != nil {
		return 0, fmt.Errorf("append to %s: %w", q.c.Kind, err)
	}
	seq, err := q.last().append(q.c.FS, payload)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", q.c.Kind, err)
	}
	return seq, nil
}

// trim makes room by dropping whole segments, what is kept first, then the oldest.
func (q *Queue) trim(extra int64) error {
	if err := q.expire(extra); err != nil {
		return err
	}
	for len(q.segments) > 1 && q.bytes()+extra > q.c.MaxBytes {
		s := q.segments[0]
		if lost := s.after(q.acked); lost > 0 {
			if err := q.countDropped(lost); err != nil {
				return err
			}
		}
		if err := q.removeFirst(); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) bytes() int64 {
	var n int64
	for _, s := range q.segments {
		n += s.size
	}
	return n
}

func (q *Queue) removeFirst() error {
	if err := durable.Remove(q.c.FS, "queue.drop", q.segments[0].path); err != nil {
		return err
	}
	q.segments = q.segments[1:]
	return nil
}

// Next returns the oldest records that are not acknowledged: at most max, of one
// epoch, together at most maxBytes but at least one; none when there are none.
func (q *Queue) Next(max int, maxBytes int) ([]wire.Record, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := 0; i < len(q.segments); i++ {
		s := q.segments[i]
		if s.after(q.acked) == 0 {
			continue
		}
		out, err := s.read(q.c.FS, q.acked, max, maxBytes)
		if errors.Is(err, errDamaged) {
			if err = q.lose(i); err == nil {
				i--
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read queue %s: %w", q.c.Kind, err)
		}
		return out, nil
	}
	return nil, nil
}

// lose gives up a segment whose next record can no longer be read, so that what
// came after it is told: what it held is counted as dropped. Its numbers are not
// used again.
func (q *Queue) lose(i int) error {
	s := q.segments[i]
	if s == q.last() {
		if err := q.rotate(); err != nil {
			return err
		}
	}
	if err := q.countDropped(s.after(q.acked)); err != nil {
		return err
	}
	if err := errors.Join(s.close(), durable.Remove(q.c.FS, "queue.damaged", s.path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	q.segments = slices.Delete(q.segments, i, i+1)
	return nil
}

// Waiting returns what is not acknowledged, oldest first, as far as it fits into
// maxBytes of payload, in batches that a link would send.
func (q *Queue) Waiting(maxBytes int) ([]wire.Batch, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []wire.Batch
	at := q.acked
	for _, s := range q.segments {
		for s.after(at) > 0 {
			records, err := s.read(q.c.FS, at, wire.MaxBatch, maxBytes)
			if errors.Is(err, errDamaged) {
				break // Next gives it up and counts it
			}
			if err != nil {
				return nil, fmt.Errorf("read queue %s: %w", q.c.Kind, err)
			}
			for _, r := range records {
				maxBytes -= len(r.Payload)
			}
			if maxBytes < 0 {
				return out, nil // one record alone may be too long
			}
			out = append(out, wire.Batch{Records: records})
			at = mark{s.epoch, records[len(records)-1].Sequence}
		}
	}
	return out, nil
}

// Ack forgets every record of the epoch up to sequence. Segments that are wholly
// acknowledged are deleted, or kept for a while, see Set.Keep; the mark itself is
// kept in memory, so after a restart a few records may be sent again, which the
// server knows.
func (q *Queue) Ack(epoch, sequence uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if epoch == q.acked.epoch && sequence <= q.acked.sequence {
		return nil
	}
	if epoch == q.c.Epoch && sequence >= q.last().next() {
		return fmt.Errorf("acknowledge %s %d of %d: %w", q.c.Kind, sequence, q.last().next()-1, ErrAhead)
	}
	if !slices.ContainsFunc(q.segments, func(s *segment) bool { return s.epoch == epoch }) {
		return nil // told again; the mark of another epoch must not go for it
	}
	// There is one mark: what the former one covers goes first.
	if err := q.forget(); err != nil {
		return err
	}
	q.acked = mark{epoch, sequence}
	return q.forget()
}

// forget retires the oldest segments that hold nothing unacknowledged; the one
// that is written to stays.
func (q *Queue) forget() error {
	for len(q.segments) > 1 && q.segments[0].after(q.acked) == 0 {
		if err := q.retire(); err != nil {
			return fmt.Errorf("acknowledge %s: %w", q.c.Kind, err)
		}
	}
	return nil
}

// State tells the newest sequence and what was dropped.
func (q *Queue) State() wire.QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return wire.QueueState{Kind: q.c.Kind, Last: q.last().next() - 1, Dropped: q.dropped}
}

// Acked is the newest acknowledged sequence that is known.
func (q *Queue) Acked() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acked.sequence
}

// Close closes the files. Nothing is lost without it.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last().close()
}

const droppedFile = "dropped"

func (q *Queue) readDropped() error {
	b, err := durable.ReadFile(q.c.FS, filepath.Join(q.c.Dir, droppedFile), 64)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	// A damaged count is begun anew: it must not keep the device from starting.
	q.dropped, _ = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return nil
}

// countDropped is durable before the records go, so a power cut between the two
// counts them and still has them: said too much, never too little.
func (q *Queue) countDropped(n uint64) error {
	q.dropped += n
	return durable.WriteFile(q.c.FS, "queue.dropped", filepath.Join(q.c.Dir, droppedFile), []byte(strconv.FormatUint(q.dropped, 10)+"\n"), 0o600)
}

func uint64At(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
