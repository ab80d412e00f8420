package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Signpost returns what a device was told; of one that was told nothing only the
// name is set.
func (db *DB) Signpost(ctx context.Context, device string) (*fleet.Signpost, error) {
	s := &fleet.Signpost{Device: device}
	var at int64
	err := db.r.QueryRowContext(ctx, `SELECT offered, held, used, trouble, at FROM signposts WHERE device = ?`, device).Scan(&s.Offered, &s.Held, &s.Using, &s.Trouble, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return s, nil
	}
	s.At = fromMillis(at)
	return s, err
}

// PutSignpost stores it.
func (db *DB) PutSignpost(ctx context.Context, s *fleet.Signpost) error {
	_, err := db.w.ExecContext(ctx, `INSERT INTO signposts (device, offered, held, used, trouble, at) VALUES (?, ?, ?, ?, ?, ?)
 ON CONFLICT (device) DO UPDATE SET offered = excluded.offered, held = excluded.held, used = excluded.used, trouble = excluded.trouble, at = excluded.at`,
		s.Device, append([]byte{}, s.Offered...), append([]byte{}, s.Held...), s.Using, s.Trouble, millis(s.At))
	if err != nil {
		return fmt.Errorf("store the signpost of %s: %w", s.Device, err)
	}
	return nil
}

// Followers lists every active device with what says how far it follows its server.
func (db *DB) Followers(ctx context.Context) ([]fleet.Follower, error) {
	out, err := list(ctx, db.r, func(s scanner) (f fleet.Follower, err error) {
		var seen, at int64
		p := &f.Signpost
		err = s.Scan(&f.Device, &seen, &f.Certificate, &f.Next, &p.Offered, &p.Held, &p.Using, &p.Trouble, &at)
		f.LastSeen, p.Device, p.At = fromMillis(seen), f.Device, fromMillis(at)
		return f, err
	}, `SELECT d.id, d.last_seen, d.certificate, r.certificate, s.offered, s.held, coalesce(s.used, ''), coalesce(s.trouble, ''), coalesce(s.at, 0)
 FROM devices d LEFT JOIN signposts s ON s.device = d.id LEFT JOIN renewals r ON r.device = d.id WHERE d.status = ? ORDER BY d.id`, fleet.DeviceActive)
	if err != nil {
		return nil, fmt.Errorf("list devices and their signposts: %w", err)
	}
	return out, nil
}

// Recovered makes a key the device's own that a restore has forgotten, when the
// device was not heard of since and its certificate is still the one that the
// backup knew. Any other is ErrDeviceRevoked.
func (db *DB) Recovered(ctx context.Context, device string, known []byte, d *fleet.Renewal, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		was, err := getDevice(ctx, tx, device)
		if err != nil {
			return err
		}
		var cert []byte
		var open bool
		err = tx.QueryRowContext(ctx, `SELECT certificate, EXISTS (SELECT 1 FROM restored WHERE device = id AND reconciled = 0) FROM devices WHERE id = ?`, device).Scan(&cert, &open)
		if err != nil {
			return err
		}
		if was.Status != fleet.DeviceActive || !open || !bytes.Equal(cert, known) {
			return fleet.ErrDeviceRevoked.With("the certificate is not the device's own")
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET public_key = ?, serial = ?, certificate = ?, expires = ? WHERE id = ?`, d.PublicKey, d.Serial, d.Certificate, millis(d.Expires), device); err != nil {
			return err
		}
		if err := dropRenewal(ctx, tx, device); err != nil {
			return err
		}
		if err := addFormer(ctx, tx, fleet.Former{Device: device, PublicKey: was.PublicKey, Since: was.Enrolled, Ended: a.At, How: fleet.EndedRenewed, By: d.PublicKey}); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// Withheld tells whether a device was not heard of since the server was restored.
func (db *DB) Withheld(ctx context.Context, device string) (bool, error) {
	return withheld(ctx, db.r, device)
}
