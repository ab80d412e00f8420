package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// openedFile says that the queue of captures was opened in this folder: where it is
// missing after that, it was lost, and numbers must not come again.
const openedFile = "capture.opened"

// OpenCapture opens a fourth queue beside the others, for inputs that are on their
// way to the server, with a bound of its own. It is called once, before the queues
// are used. What it holds is never kept after it was acknowledged.
func (s *Set) OpenCapture(maxBytes int64) error {
	dir, marker := filepath.Join(s.dir, string(wire.KindCapture)), filepath.Join(s.dir, openedFile)
	_, err := durable.ReadFile(s.fsys, marker, 16)
	opened := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open queue %s: %w", wire.KindCapture, err)
	}
	lost := opened && !hasSegment(s.fsys, dir)
	if s.Capture, err = Open(Config{FS: s.fsys, Dir: dir, Kind: wire.KindCapture, Epoch: s.epoch, MaxBytes: maxBytes}); err != nil {
		return err
	}
	if !opened {
		if err := durable.WriteFile(s.fsys, "queue.opened", marker, []byte("1\n"), 0o600); err != nil {
			return fmt.Errorf("open queue %s: %w", wire.KindCapture, err)
		}
	}
	if lost || s.Capture.damaged {
		return s.Renew()
	}
	return nil
}

// Size is how many bytes the queue takes on disk.
func (q *Queue) Size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes()
}

// Clear removes every record, sent or not, from the disk; numbers go on. It tells
// how many had not been acknowledged.
func (q *Queue) Clear() (unsent uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.segments) == 1 && q.last().count == 0 {
		return 0, nil
	}
	if q.last().count > 0 {
		if err := q.rotate(); err != nil {
			return 0, fmt.Errorf("clear %s: %w", q.c.Kind, err)
		}
	}
	for len(q.segments) > 1 {
		n := q.segments[0].after(q.acked)
		if err := q.segments[0].close(); err != nil {
			return unsent, fmt.Errorf("clear %s: %w", q.c.Kind, err)
		}
		if err := q.removeFirst(); err != nil {
			return unsent, fmt.Errorf("clear %s: %w", q.c.Kind, err)
		}
		unsent += n
	}
	return unsent, nil
}
