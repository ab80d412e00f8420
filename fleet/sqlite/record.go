package sqlite

import (
	"context"
	"database/sql"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// InsertReports stores reports; repeats change nothing.
func (db *DB) InsertReports(ctx context.Context, rs []fleet.Report) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		for _, r := range rs {
			body, err := wire.Encode(&r.Report)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO reports (device, epoch, sequence, at, proof, body) VALUES (?, ?, ?, ?, ?, ?)`, r.Device, int64(r.Epoch), int64(r.Sequence), millis(r.At), r.Proof, body); err != nil {
				return err
			}
		}
		return nil
	})
}

// InsertEvents stores events; repeats change nothing.
func (db *DB) InsertEvents(ctx context.Context, es []fleet.Event) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		for _, e := range es {
			body, err := wire.Encode(&e.Event)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO events (device, epoch, sequence, id, at, type, body) VALUES (?, ?, ?, ?, ?, ?, ?)`, e.Device, int64(e.Epoch), int64(e.Sequence), e.ID, millis(e.At), e.Event.Type, body); err != nil {
				return err
			}
		}
		return nil
	})
}

// Reports lists a device's newest reports, the newest first.
func (db *DB) Reports(ctx context.Context, device string, limit int) ([]fleet.Report, error) {
	return list(ctx, db.r, func(s scanner) (r fleet.Report, err error) {
		var epoch, seq, at int64
		var body []byte
		if err := s.Scan(&r.Device, &epoch, &seq, &at, &r.Proof, &body); err != nil {
			return r, err
		}
		r.Epoch, r.Sequence, r.At = uint64(epoch), uint64(seq), fromMillis(at)
		return r, wire.Decode(body, &r.Report)
	}, `SELECT device, epoch, sequence, at, proof, body FROM reports WHERE device = ? ORDER BY at DESC, sequence DESC LIMIT ?`, device, limit)
}

// Events lists events, the newest first; an empty device does not restrict.
func (db *DB) Events(ctx context.Context, device, after string, limit int) ([]fleet.Event, error) {
	return list(ctx, db.r, func(s scanner) (e fleet.Event, err error) {
		var epoch, seq, at int64
		var body []byte
		if err := s.Scan(&e.ID, &e.Device, &epoch, &seq, &at, &body); err != nil {
			return e, err
		}
		e.Epoch, e.Sequence, e.At = uint64(epoch), uint64(seq), fromMillis(at)
		return e, wire.Decode(body, &e.Event)
	}, `SELECT id, device, epoch, sequence, at, body FROM events WHERE (? = '' OR device = ?) AND (? = '' OR id < ?) ORDER BY id DESC LIMIT ?`, device, device, after, after, limit)
}

// Audit lists acts, the newest first; an empty object does not restrict.
func (db *DB) Audit(ctx context.Context, object, after string, limit int) ([]fleet.Audit, error) {
	return list(ctx, db.r, func(s scanner) (a fleet.Audit, err error) {
		var at int64
		err = s.Scan(&a.ID, &at, &a.Actor, &a.Act, &a.Object, &a.Detail)
		a.At = fromMillis(at)
		return a, err
	}, `SELECT id, at, actor, act, object, detail FROM audit WHERE (? = '' OR object = ?) AND (? = '' OR id < ?) ORDER BY id DESC LIMIT ?`, object, object, after, after, limit)
}

// AddAudit writes an act that changes nothing else here.
func (db *DB) AddAudit(ctx context.Context, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error { return addAudit(ctx, tx, a) })
}
