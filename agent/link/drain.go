package link

import (
	"context"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// maxBatchBytes keeps a batch below the broker's limit of a message.
const maxBatchBytes = 100 << 10

// drain sends one queue: one batch at a time, the oldest first, the next after
// the acknowledgement. So an acknowledged batch acknowledges all before it.
type drain struct {
	s     *session
	kind  wire.Kind
	queue Queue
	last  uint64    // sequence that ends the batch under way; 0: none
	epoch uint64    // of it
	sent  time.Time // of it
}

// step sends what is due.
func (d *drain) step(ctx context.Context, now time.Time) {
	if d.last != 0 && now.Sub(d.sent) < resend {
		return
	}
	records, err := d.queue.Next(wire.MaxBatch, maxBatchBytes)
	if err != nil {
		d.s.l.c.Log.Error("queue is not readable", "queue", string(d.kind), "err", err)
		return
	}
	d.last = 0
	if len(records) == 0 {
		return
	}
	if err := d.s.publish(ctx, d.kind, &wire.Batch{Records: records}); err != nil {
		d.s.l.c.Log.Info("records put off", "queue", string(d.kind), "err", err)
		return
	}
	end := records[len(records)-1]
	d.last, d.epoch, d.sent = end.Sequence, end.Epoch, now
}

// rewind takes in everything that the server has committed of the present epoch.
func (d *drain) rewind(all []wire.Ack) {
	known := wire.Ack{}
	for _, a := range all {
		if a.Kind == d.kind {
			known = a
		}
	}
	if err := d.queue.Rewind(known.Epoch, known.Sequence); err != nil {
		d.s.l.c.Log.Error("queue is not writable", "queue", string(d.kind), "err", err)
	}
}

func (d *drain) acked(a wire.Ack) {
	if err := d.queue.Ack(a.Epoch, a.Sequence); err != nil {
		d.s.l.c.Log.Error("queue is not writable", "queue", string(d.kind), "err", err)
	}
	if a.Epoch == d.epoch && a.Sequence >= d.last {
		d.last = 0
	}
}
