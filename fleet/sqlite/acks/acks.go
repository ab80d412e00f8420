// Package acks keeps in the server's database how far each device's records are
// committed.
package acks

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Ledger is the table of acknowledgements. It is safe for concurrent use; W is nil
// where nothing is written.
type Ledger struct {
	W, R *sql.DB
}

// SetAcked remembers the newest committed sequence of a kind; it never falls.
func (l Ledger) SetAcked(ctx context.Context, device string, a wire.Ack) error {
	_, err := l.W.ExecContext(ctx, `INSERT INTO acks (device, epoch, kind, sequence) VALUES (?, ?, ?, ?) ON CONFLICT (device, epoch, kind) DO UPDATE SET sequence = max(sequence, excluded.sequence)`,
		device, int64(a.Epoch), string(a.Kind), int64(a.Sequence))
	return err
}

// Acked tells the newest committed sequence of each kind.
func (l Ledger) Acked(ctx context.Context, device string, epoch uint64) ([]wire.Ack, error) {
	rows, err := l.R.QueryContext(ctx, `SELECT kind, sequence FROM acks WHERE device = ? AND epoch = ? ORDER BY kind`, device, int64(epoch))
	if err != nil {
		return nil, fmt.Errorf("read acknowledgements: %w", err)
	}
	defer rows.Close()
	var out []wire.Ack
	for rows.Next() {
		a := wire.Ack{Epoch: epoch}
		var sequence int64
		if err := rows.Scan(&a.Kind, &sequence); err != nil {
			return nil, fmt.Errorf("read acknowledgements: %w", err)
		}
		a.Sequence = uint64(sequence)
		out = append(out, a)
	}
	return out, rows.Err()
}
