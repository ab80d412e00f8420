package trust

import (
	"context"
	"sync"
)

// downloads lets one at a time work on a blob: two would write to one file.
type downloads struct {
	mu   sync.Mutex
	busy map[[32]byte]chan struct{} // closed when the work ends
}

// begin waits until nobody works on the blob; done ends the work.
func (d *downloads) begin(ctx context.Context, digest [32]byte) (done func(), err error) {
	for {
		done, ok := d.try(digest)
		if ok {
			return done, nil
		}
		d.mu.Lock()
		other := d.busy[digest]
		d.mu.Unlock()
		if other == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-other:
		}
	}
}

// try begins unless somebody works on the blob.
func (d *downloads) try(digest [32]byte) (done func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[digest] != nil {
		return nil, false
	}
	if d.busy == nil {
		d.busy = map[[32]byte]chan struct{}{}
	}
	mine := make(chan struct{})
	d.busy[digest] = mine
	return func() {
		d.mu.Lock()
		delete(d.busy, digest)
		d.mu.Unlock()
		close(mine)
	}, true
}
