package queue

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Set is the three queues of a device with their common epoch. It is safe for
// concurrent use.
type Set struct {
	Report, Sample, Event *Queue
	Capture               *Queue // nil until OpenCapture

	fsys durable.FS
	dir  string

	mu    sync.Mutex
	epoch uint64
}

// Epoch is that of what is said from now on. A record's own, which may be older,
// is known when it is appended: see Queue.AppendOf.
func (s *Set) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

const epochFile = "epoch"

// OpenSet opens the queues below dir, each bounded by maxBytes. When the epoch or
// any queue is not there, a new epoch is drawn: sequences may begin anew then.
func OpenSet(fsys durable.FS, dir string, maxBytes int64) (*Set, error) {
	kinds := []wire.Kind{wire.KindReport, wire.KindSample, wire.KindEvent}
	if err := durable.MkdirAll(fsys, "queue.dir", dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queues: %w", err)
	}
	if err := durable.Sweep(fsys, "queue.sweep", dir); err != nil {
		return nil, fmt.Errorf("open queues: %w", err)
	}
	epoch, err := readEpoch(fsys, dir, kinds)
	if err != nil {
		return nil, fmt.Errorf("open queues: %w", err)
	}
	s := &Set{epoch: epoch, fsys: fsys, dir: dir}
	for i, q := range []**Queue{&s.Report, &s.Sample, &s.Event} {
		c := Config{FS: fsys, Dir: filepath.Join(dir, string(kinds[i])), Kind: kinds[i], Epoch: epoch, MaxBytes: maxBytes}
		if *q, err = Open(c); err != nil {
			return nil, err
		}
	}
	return s, s.renewAfterDamage()
}

// renewAfterDamage draws a new epoch when records were lost that the server may
// know: their numbers must not come again.
func (s *Set) renewAfterDamage() error {
	if !s.Report.damaged && !s.Sample.damaged && !s.Event.damaged {
		return nil
	}
	return s.Renew()
}

// Renew draws a new epoch for all queues. What is waiting keeps its old one.
func (s *Set) Renew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, err := drawEpoch(s.fsys, s.dir)
	if err != nil {
		return fmt.Errorf("renew queues: %w", err)
	}
	s.epoch = epoch
	for _, q := range s.all() {
		if err := q.renew(epoch); err != nil {
			return fmt.Errorf("renew queues: %w", err)
		}
	}
	return nil
}

// readEpoch returns the stored epoch, or stores a new one.
func readEpoch(fsys durable.FS, dir string, kinds []wire.Kind) (uint64, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, epochFile), 64)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	epoch, parseErr := strconv.ParseUint(strings.TrimSpace(string(b)), 16, 64)
	whole := err == nil && parseErr == nil && epoch != 0
	for _, k := range kinds {
		if !hasSegment(fsys, filepath.Join(dir, string(k))) {
			whole = false
		}
	}
	if whole {
		return epoch, nil
	}
	return drawEpoch(fsys, dir)
}

func drawEpoch(fsys durable.FS, dir string) (uint64, error) {
	var r [8]byte
	rand.Read(r[:])                // never fails
	epoch := uint64At(r[:], 0) | 1 // never 0
	return epoch, durable.WriteFile(fsys, "queue.epoch", filepath.Join(dir, epochFile), []byte(strconv.FormatUint(epoch, 16)+"\n"), 0o600)
}

func hasSegment(fsys durable.FS, dir string) bool {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentSuffix) {
			return true
		}
	}
	return false
}

// Close closes every queue.
func (s *Set) Close() error {
	var errs []error
	for _, q := range s.all() {
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}

func (s *Set) all() []*Queue {
	out := []*Queue{s.Report, s.Sample, s.Event}
	if s.Capture != nil {
		out = append(out, s.Capture)
	}
	return out
}
