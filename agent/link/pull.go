package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

const (
	startBlock = 64 << 10
	window     = 4 // ranges under way
	// slowBlock is the longest that a window may take before ranges are halved;
	// in a quarter of it they are doubled.
	slowBlock = 5 * time.Second
)

// Range is Length bytes from Offset.
type Range = wire.Range

// Pull brings ranges of a blob in blocks, a window of them under way, and writes
// each at its offset through w. When the session is lost it goes on in the next
// one. What was written before an error stays.
func (l *Link) Pull(ctx context.Context, digest [32]byte, total int64, missing []Range, w io.WriterAt) error {
	rest := append([]Range(nil), missing...)
	for len(rest) > 0 {
		if err := l.ready(ctx); err != nil {
			return err
		}
		var ask []Range
		ask, rest = take(rest, l.blockSize())
		left, err := l.window(ctx, digest, total, ask, w)
		rest = append(left, rest...)
		var busy *Busy
		switch {
		case errors.As(err, &busy) && busy.Code == "":
			if err := sleep(ctx, busy.After); err != nil {
				return err
			}
		case errors.Is(err, ErrNoSession):
			if err := sleep(ctx, lostPause); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// take cuts up to a window of ranges of at most size bytes off the front.
func take(rest []Range, size int64) (ask, left []Range) {
	left = rest
	for len(ask) < window && len(left) > 0 {
		r := left[0]
		n := min(r.Length, size)
		ask = append(ask, Range{Offset: r.Offset, Length: n})
		if n == r.Length {
			left = left[1:]
			continue
		}
		left = append([]Range{{Offset: r.Offset + n, Length: r.Length - n}}, left[1:]...)
	}
	return ask, left
}

// window asks for ranges and returns those that did not come.
func (l *Link) window(ctx context.Context, digest [32]byte, total int64, ask []Range, w io.WriterAt) ([]Range, error) {
	id, replies, done, err := l.ask()
	if err != nil {
		return ask, err
	}
	defer done()
	if err := l.gets.Wait(ctx); err != nil {
		return ask, err
	}
	began := time.Now()
	if err := l.send(&wire.Get{Request: id, Blob: &wire.BlobGet{Digest: digest, Ranges: ask}}); err != nil {
		return ask, err
	}
	open := append([]Range(nil), ask...)
	for len(open) > 0 {
		r, err := await(ctx, replies)
		if err != nil {
			l.adapt(slowBlock * 2)
			return open, fmt.Errorf("blob %x: %w", digest[:6], err)
		}
		if r.busy != nil {
			return open, &Busy{Code: r.busy.Code, After: time.Duration(r.busy.AfterMS) * time.Millisecond}
		}
		if r.block == nil {
			continue
		}
		i := find(open, r.block, digest, total)
		if i < 0 {
			continue // asked for by nobody
		}
		if _, err := w.WriteAt(r.block.data, r.block.header.Offset); err != nil {
			return open, err
		}
		open = append(open[:i], open[i+1:]...)
	}
	l.adapt(time.Since(began))
	return nil, nil
}

func find(open []Range, b *block, digest [32]byte, total int64) int {
	for i, r := range open {
		if r.Offset == b.header.Offset && r.Length == int64(b.header.Length) && b.header.Total == total && [16]byte(digest[:16]) == b.header.Digest {
			return i
		}
	}
	return -1
}

func (l *Link) blockSize() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.block)
}

// adapt changes the length of ranges by how long a window took.
func (l *Link) adapt(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case took > slowBlock:
		l.block = max(l.block/2, wire.MinBlock)
	case took < slowBlock/4:
		l.block = min(l.block*2, wire.MaxBlock)
	}
}

// lostPause keeps a lost session from being tried over and over until the loss is
// noticed everywhere.
const lostPause = 100 * time.Millisecond

// maxBusy bounds how long a server can put a device off.
const maxBusy = 5 * time.Minute

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(max(d, 10*time.Millisecond), maxBusy))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
