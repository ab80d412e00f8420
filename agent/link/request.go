package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// reply is one message that answers a request: exactly one field is set.
type reply struct {
	meta  *wire.Meta
	block *block
	busy  *wire.Busy
}

type block struct {
	header wire.BlockHeader
	data   []byte
}

// answer hands a message to the request that it answers and tells whether it was
// of such a kind. A block or reply that nobody waits for is dropped.
func (l *Link) answer(k wire.Kind, payload []byte) bool {
	var id uint32
	var r reply
	switch k {
	case wire.KindMeta:
		r.meta = new(wire.Meta)
		if err := wire.Decode(payload, r.meta); err != nil {
			l.c.Log.Warn("metadata refused", "err", err)
			return true
		}
		id = r.meta.Request
	case wire.KindBlock:
		h, data, err := wire.DecodeBlock(payload)
		if err != nil {
			l.c.Log.Warn("block refused", "err", err)
			return true
		}
		id, r.block = h.Request, &block{h, data}
	case wire.KindBusy:
		r.busy = new(wire.Busy)
		if err := wire.Decode(payload, r.busy); err != nil {
			l.c.Log.Warn("busy refused", "err", err)
			return true
		}
		id = r.busy.Request
	default:
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.waiting[id]; c != nil {
		select {
		case c <- r:
		default: // more than was asked for
		}
	}
	return true
}

// replyRoom is how many answers of one request may wait to be read.
const replyRoom = 64

// ask registers a request; done must be called at its end.
func (l *Link) ask() (id uint32, replies <-chan reply, done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return 0, nil, nil, ErrNoSession
	}
	l.next++
	id = l.next
	c := make(chan reply, replyRoom)
	l.waiting[id] = c
	return id, c, func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}, nil
}

func (l *Link) send(g *wire.Get) error {
	b, err := wire.Encode(g)
	if err != nil {
		return err
	}
	l.mu.Lock()
	client := l.client
	l.mu.Unlock()
	if client == nil {
		return ErrNoSession
	}
	t := client.Publish(wire.UpTopic(l.c.Device, wire.KindGet), 0, false, b)
	if !t.WaitTimeout(connectTimeout) || t.Error() != nil {
		return fmt.Errorf("publish get: %w: %w", ErrNoSession, orTimeout(t.Error()))
	}
	return nil
}

// ready waits until the server has welcomed the device.
func (l *Link) ready(ctx context.Context) error {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const replyTimeout = 30 * time.Second

// maxMetaBytes bounds what one refresh may bring together.
const maxMetaBytes = 32 << 20

var errTimeout = errors.New("the server did not answer in time")

// Metadata asks for every metadata file newer than held: one request, one reply
// in as many parts as it needs.
func (l *Link) Metadata(ctx context.Context, held *wire.Held) ([]wire.MetaFile, error) {
	if err := l.ready(ctx); err != nil {
		return nil, err
	}
	id, replies, done, err := l.ask()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := l.gets.Wait(ctx); err != nil {
		return nil, err
	}
	if err := l.send(&wire.Get{Request: id, Refresh: held}); err != nil {
		return nil, err
	}
	var out []wire.MetaFile
	total := 0
	for {
		r, err := await(ctx, replies)
		if err != nil {
			return nil, fmt.Errorf("refresh: %w", err)
		}
		switch {
		case r.busy != nil:
			return nil, &Busy{Code: r.busy.Code, After: time.Duration(r.busy.AfterMS) * time.Millisecond}
		case r.meta == nil:
			continue
		case r.meta.Error != "":
			return nil, fmt.Errorf("refresh: the server refused: %s", r.meta.Error)
		}
		for _, f := range r.meta.Files {
			if total += len(f.Bytes); total > maxMetaBytes {
				return nil, fmt.Errorf("refresh: more than %d bytes of metadata", maxMetaBytes)
			}
			if out, err = join(out, f); err != nil {
				return nil, fmt.Errorf("refresh: %w", err)
			}
		}
		if !r.meta.More {
			return whole(out)
		}
	}
}

// join puts a piece behind the piece of the same file before it.
func join(out []wire.MetaFile, f wire.MetaFile) ([]wire.MetaFile, error) {
	if f.Offset == 0 {
		return append(out, f), nil
	}
	if len(out) == 0 {
		return nil, errors.New("a metadata file begins in its middle")
	}
	last := &out[len(out)-1]
	if last.Repo != f.Repo || last.Role != f.Role || last.Version != f.Version || int64(len(last.Bytes)) != f.Offset {
		return nil, errors.New("the pieces of a metadata file do not fit")
	}
	last.Bytes = append(last.Bytes, f.Bytes...)
	return out, nil
}

func whole(files []wire.MetaFile) ([]wire.MetaFile, error) {
	for _, f := range files {
		if int64(len(f.Bytes)) != f.Total {
			return nil, fmt.Errorf("refresh: %s %s has %d of %d bytes", f.Repo, f.Role, len(f.Bytes), f.Total)
		}
	}
	return files, nil
}

// await returns the next reply.
func await(ctx context.Context, replies <-chan reply) (reply, error) {
	timer := time.NewTimer(replyTimeout)
	defer timer.Stop()
	select {
	case r, ok := <-replies:
		if !ok {
			return r, ErrNoSession
		}
		return r, nil
	case <-timer.C:
		return reply{}, errTimeout
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// Busy is returned when the server wants to be asked later, or will never answer.
type Busy struct {
	Code  string // set when asking again will not help
	After time.Duration
}

// Error implements error.
func (b *Busy) Error() string {
	if b.Code != "" {
		return "the server refused: " + b.Code
	}
	return fmt.Sprintf("the server is busy for %v", b.After)
}
