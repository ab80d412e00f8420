package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// refusal is a record that can never be taken in: it is not understood, or the
// device did not sign it.
type refusal struct {
	sequence uint64
	err      error
}

// Bounds of what is written down of one batch.
const (
	maxNamed  = 16
	maxDetail = 512
)

// refused writes down which records of a batch were not taken, with their codes.
// They are acknowledged with the others: the device would send them for ever, and
// nothing behind them would arrive. What was acknowledged before was written down
// then.
func (i *Ingest) refused(ctx context.Context, device string, k wire.Kind, b *wire.Batch, bad []refusal) error {
	if len(bad) == 0 {
		return nil
	}
	epoch := b.Records[0].Epoch
	acked, err := i.Store.Acked(ctx, device, epoch)
	if err != nil {
		return err
	}
	bad = slices.DeleteFunc(bad, func(r refusal) bool {
		return slices.ContainsFunc(acked, func(a wire.Ack) bool { return a.Kind == k && r.sequence <= a.Sequence })
	})
	if len(bad) == 0 {
		return nil
	}
	now := i.Now()
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: "record.refused", Object: device, Detail: describe(k, epoch, bad)}
	i.Log.Warn("records refused", "device", device, "kind", string(k), "count", len(bad), "code", wire.Code(bad[0].err), "detail", a.Detail)
	return i.Store.AddAudit(ctx, a)
}

// describe names the records and their codes, and says of the first one why.
func describe(k wire.Kind, epoch uint64, bad []refusal) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, epoch %x:", k, epoch)
	for _, r := range bad[:min(len(bad), maxNamed)] {
		fmt.Fprintf(&s, " %d %s,", r.sequence, wire.Code(r.err))
	}
	if n := len(bad) - maxNamed; n > 0 {
		fmt.Fprintf(&s, " and %d more, the last %d,", n, bad[len(bad)-1].sequence)
	}
	fmt.Fprintf(&s, " because: %v", bad[0].err)
	return strings.ToValidUTF8(s.String()[:min(s.Len(), maxDetail)], "")
}
