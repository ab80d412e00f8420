package queue

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// What is acknowledged may be asked for again: a server that comes back from a
// backup has forgotten it. A segment that is wholly acknowledged is renamed to
// ORDER-TIME.kept, TIME being when, in seconds and hex, and stays until it is too
// old or what is not acknowledged needs the room.
const keptSuffix = ".kept"

// kept is an acknowledged segment.
type kept struct {
	*segment
	at time.Time
}

// Keep has acknowledged records stay for life, within the queues' bounds. It is
// called once, before the queues are used. Without it they go when they are
// acknowledged.
func (s *Set) Keep(life time.Duration, now func() time.Time) error {
	for _, q := range []*Queue{s.Report, s.Sample, s.Event} {
		if err := q.keep(life, now); err != nil {
			return fmt.Errorf("keep %s: %w", q.c.Kind, err)
		}
	}
	return nil
}

func (q *Queue) keep(life time.Duration, now func() time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.life, q.now = life, now
	entries, err := q.c.FS.ReadDir(q.c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		stem, ours := strings.CutSuffix(e.Name(), keptSuffix)
		_, text, dated := strings.Cut(stem, "-")
		unix, err := strconv.ParseInt(text, 16, 64)
		if !ours || !dated || err != nil {
			continue
		}
		// Damage costs what it costs: these records are with the server.
		s, _, err := openSegment(q.c.FS, filepath.Join(q.c.Dir, e.Name()))
		if err != nil {
			return err
		}
		if s != nil {
			q.kept = append(q.kept, kept{s, time.Unix(unix, 0)})
		}
	}
	slices.SortFunc(q.kept, func(a, b kept) int { return cmp.Compare(a.order, b.order) })
	return q.expire(0)
}

// retire takes the oldest segment, which is wholly acknowledged, out of the queue.
func (q *Queue) retire() error {
	if q.life == 0 {
		return q.removeFirst()
	}
	s, now := q.segments[0], q.now()
	if err := s.close(); err != nil {
		return err
	}
	path := filepath.Join(q.c.Dir, fmt.Sprintf("%016x-%x%s", s.order, max(now.Unix(), 0), keptSuffix))
	if err := q.move(s, path); err != nil {
		return err
	}
	q.segments = q.segments[1:]
	q.kept = append(q.kept, kept{s, now})
	return q.expire(0)
}

// move renames a segment. After a power cut it has the old name or the new one,
// and is sent once more at most.
func (q *Queue) move(s *segment, path string) error {
	if err := q.c.FS.Rename("queue.keep", s.path, path); err != nil {
		return err
	}
	s.path = path
	return q.c.FS.SyncDir("queue.keep", q.c.Dir)
}

// expire removes what was kept for long enough, and the oldest of the rest while
// everything and extra bytes together are more than the queue may have.
func (q *Queue) expire(extra int64) error {
	for len(q.kept) > 0 {
		k := q.kept[0]
		size := q.bytes() + extra
		for _, x := range q.kept {
			size += x.size
		}
		// A time in the future was told by a clock that is mended by now.
		if age := q.now().Sub(k.at); size <= q.c.MaxBytes && age < q.life {
			return nil
		}
		if err := durable.Remove(q.c.FS, "queue.expire", k.path); err != nil {
			return err
		}
		q.kept = q.kept[1:]
	}
	return nil
}

// Rewind takes in how far the server knows this queue's present epoch: sequence 0
// when it knows none of it. If the server has acknowledged more before, it has
// forgotten; what is kept of that comes back into the queue and is sent again.
// Of a server that knows none of the epoch, everything that is kept comes back.
func (q *Queue) Rewind(epoch, sequence uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.life == 0 || sequence > 0 && epoch != q.c.Epoch {
		return nil
	}
	known := mark{q.c.Epoch, sequence}
	forgotten := func(k kept) bool { return k.epoch == known.epoch && k.after(known) > 0 }
	first := slices.IndexFunc(q.kept, forgotten)
	if first < 0 && (q.acked.epoch != known.epoch || q.acked.sequence <= sequence) {
		return nil
	}
	switch {
	case sequence == 0:
		first = 0
	case first < 0:
		first = len(q.kept)
	}
	for n := len(q.kept) - 1; n >= first; n-- {
		s := q.kept[n].segment
		if err := q.move(s, filepath.Join(q.c.Dir, fmt.Sprintf("%016x%s", s.order, segmentSuffix))); err != nil {
			return fmt.Errorf("rewind %s: %w", q.c.Kind, err)
		}
		q.segments = slices.Insert(q.segments, 0, s)
		q.kept = q.kept[:n]
	}
	q.overlaps()
	q.acked = known
	return nil
}
