package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/dunlin-edge/dunlin/fleet"
)

// RaiseAlarm stores an alarm. One of its kind and subject that is there keeps its
// Since and gets the rest; fresh tells that there was none, and only then is the
// act written.
func (db *DB) RaiseAlarm(ctx context.Context, x fleet.Alarm, a fleet.Audit) (fresh bool, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT 0 FROM alarms WHERE kind = ? AND subject = ?`, x.Kind, x.Subject).Scan(&fresh)
		if fresh = errors.Is(err, sql.ErrNoRows); err != nil && !fresh {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO alarms (kind, subject, since, text, next, urgent) VALUES (?, ?, ?, ?, ?, ?)
 ON CONFLICT (kind, subject) DO UPDATE SET text = excluded.text, next = excluded.next, urgent = excluded.urgent`, x.Kind, x.Subject, millis(x.Since), x.Text, x.Next, x.Urgent)
		if err != nil || !fresh {
			return err
		}
		return addAudit(ctx, tx, a)
	})
	return fresh && err == nil, err
}

// ClearAlarm removes an alarm; there tells that there was one, and only then is
// the act written.
func (db *DB) ClearAlarm(ctx context.Context, kind, subject string, a fleet.Audit) (there bool, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM alarms WHERE kind = ? AND subject = ?`, kind, subject)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if there = n > 0; err != nil || !there {
			return err
		}
		return addAudit(ctx, tx, a)
	})
	return there && err == nil, err
}

// Alarms lists what is wrong, the oldest first.
func (db *DB) Alarms(ctx context.Context) ([]fleet.Alarm, error) {
	return list(ctx, db.r, func(s scanner) (x fleet.Alarm, err error) {
		var since int64
		err = s.Scan(&x.Kind, &x.Subject, &since, &x.Text, &x.Next, &x.Urgent)
		x.Since = fromMillis(since)
		return x, err
	}, `SELECT kind, subject, since, text, next, urgent FROM alarms ORDER BY since, kind, subject`)
}
