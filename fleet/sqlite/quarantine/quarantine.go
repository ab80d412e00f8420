// Package quarantine keeps in the server's database which releases are kept from
// devices.
package quarantine

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// List is the table of quarantines. It is safe for concurrent use; W is nil
// where nothing is written.
type List struct {
	W, R *sql.DB
}

// Insert stores a quarantine in a transaction, unless it is nil or the same one holds
// already.
func Insert(ctx context.Context, tx *sql.Tx, q *fleet.Quarantine) error {
	if q == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO quarantines (id, path, class, rollout, code, reason, since)
 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM quarantines WHERE path = ?2 AND class = ?3 AND released = 0)`,
		q.ID, q.Path, q.Class, q.Rollout, q.Code, q.Reason, q.Since.UnixMilli())
	if err != nil {
		return fmt.Errorf("store quarantine of %s: %w", q.Path, err)
	}
	return nil
}

// Quarantines lists them, the newest first: of one release, or of all for an empty
// path; those that were let go only on request.
func (t List) Quarantines(ctx context.Context, path string, released bool) ([]fleet.Quarantine, error) {
	rows, err := t.R.QueryContext(ctx, `SELECT id, path, class, rollout, code, reason, since, released, by, why FROM quarantines WHERE (?1 = '' OR path = ?1) AND (?2 OR released = 0) ORDER BY id DESC`, path, released)
	if err != nil {
		return nil, fmt.Errorf("list quarantines: %w", err)
	}
	defer rows.Close()
	var out []fleet.Quarantine
	for rows.Next() {
		var q fleet.Quarantine
		var since, ended int64
		if err := rows.Scan(&q.ID, &q.Path, &q.Class, &q.Rollout, &q.Code, &q.Reason, &since, &ended, &q.By, &q.Why); err != nil {
			return nil, fmt.Errorf("list quarantines: %w", err)
		}
		q.Since = time.UnixMilli(since).UTC()
		if ended != 0 {
			q.Released = time.UnixMilli(ended).UTC()
		}
		out = append(out, q)
	}
	return out, rows.Err()
}

// ReleaseQuarantine ends one that holds, with the audit's actor, time and detail as
// who, when and why; ErrQuarantineUnknown when there is none.
func (t List) ReleaseQuarantine(ctx context.Context, id string, a fleet.Audit) error {
	tx, err := t.W.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	res, err := tx.ExecContext(ctx, `UPDATE quarantines SET released = ?, by = ?, why = ? WHERE id = ? AND released = 0`, a.At.UnixMilli(), a.Actor, a.Detail, id)
	if err != nil {
		return fmt.Errorf("release quarantine %s: %w", id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fleet.ErrQuarantineUnknown.With("no quarantine %q holds", id)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO audit (id, at, actor, act, object, detail) VALUES (?, ?, ?, ?, ?, ?)`, a.ID, a.At.UnixMilli(), a.Actor, a.Act, a.Object, a.Detail); err != nil {
		return fmt.Errorf("release quarantine %s: %w", id, err)
	}
	return tx.Commit()
}
