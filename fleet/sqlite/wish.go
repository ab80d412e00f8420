package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Wish returns a device's wish; one that was never given any has generation 0.
func (db *DB) Wish(ctx context.Context, device string) (*fleet.Wish, error) {
	return getWish(ctx, db.r, device)
}

func getWish(ctx context.Context, q querier, device string) (*fleet.Wish, error) {
	w := &fleet.Wish{Device: device}
	var err error
	if w.Withheld, err = withheld(ctx, q, device); err != nil {
		return nil, err
	}
	var changed int64
	err = q.QueryRowContext(ctx, `SELECT generation, version, changed FROM wishes WHERE device = ?`, device).Scan(&w.Generation, &w.Version, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	w.Changed = fromMillis(changed)
	w.Items, err = list(ctx, q, func(s scanner) (it fleet.Item, err error) {
		return it, s.Scan(&it.Model, &it.Path, &it.Runtime, &it.Attempt, &it.Rollout, &it.Arm)
	}, `SELECT model, path, runtime, attempt, rollout, arm FROM assignments WHERE device = ? ORDER BY model`, device)
	return w, err
}

func putWish(ctx context.Context, tx *sql.Tx, w *fleet.Wish) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO wishes (device, generation, version, changed) VALUES (?, ?, ?, ?)
 ON CONFLICT (device) DO UPDATE SET generation = excluded.generation, version = excluded.version, changed = excluded.changed`, w.Device, w.Generation, w.Version, millis(w.Changed)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM assignments WHERE device = ?`, w.Device); err != nil {
		return err
	}
	for _, it := range w.Items {
		if _, err := tx.ExecContext(ctx, `INSERT INTO assignments (device, model, path, runtime, attempt, rollout, arm) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			w.Device, it.Model, it.Path, it.Runtime, it.Attempt, it.Rollout, it.Arm); err != nil {
			return err
		}
	}
	return nil
}

// Signer makes the director's metadata of a wish. It may read releases, not the
// wish being changed.
type Signer = func(*fleet.Wish) ([]fleet.MetaRow, error)

// Resign stores a wish's metadata anew under the next version; the generation
// stays.
func (db *DB) Resign(ctx context.Context, device string, sign Signer) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		w, err := getWish(ctx, tx, device)
		if err != nil {
			return err
		}
		w.Version++
		return signed(ctx, tx, w, sign)
	})
}

// signed stores a wish and the metadata that says it.
func signed(ctx context.Context, tx *sql.Tx, w *fleet.Wish, sign Signer) error {
	rows, err := sign(w)
	if err != nil {
		return fmt.Errorf("sign the wish of %s: %w", w.Device, err)
	}
	if err := putWish(ctx, tx, w); err != nil {
		return err
	}
	return putMetadata(ctx, tx, rows)
}
