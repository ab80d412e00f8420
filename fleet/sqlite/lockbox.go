package sqlite

import (
	"context"
	"database/sql"

	"github.com/dunlin-edge/dunlin/fleet"
)

// ExportLockbox signs a device's wish under its next version for a lockbox and
// remembers the lockbox, in one transaction. What is signed goes into the lockbox
// only: in the network the device is given files of a shorter life. It returns
// ErrDeviceRevoked for a device that is.
func (db *DB) ExportLockbox(ctx context.Context, l fleet.Lockbox, a fleet.Audit, sign Signer) (rows []fleet.MetaRow, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, l.Device)
		if err != nil {
			return err
		}
		if d.Status != fleet.DeviceActive {
			return fleet.ErrDeviceRevoked.With("%s is not exported: its status is %s", d.ID, d.Status)
		}
		w, err := getWish(ctx, tx, l.Device)
		if err != nil {
			return err
		}
		w.Version++
		if rows, err = sign(w); err != nil {
			return err
		}
		if err := putWish(ctx, tx, w); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM lockboxes WHERE device = ? AND expires < ?`, l.Device, millis(l.Created.Add(-fleet.LockboxHome))); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO lockboxes (device, id, nonce, created, expires) VALUES (?, ?, ?, ?, ?)`, l.Device, l.ID, l.Nonce, millis(l.Created), millis(l.Expires)); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
	return rows, err
}

// Lockboxes lists what was exported for a device, oldest first.
func (db *DB) Lockboxes(ctx context.Context, device string) ([]fleet.Lockbox, error) {
	return list(ctx, db.r, func(s scanner) (l fleet.Lockbox, err error) {
		var created, expires int64
		err = s.Scan(&l.Device, &l.ID, &l.Nonce, &created, &expires)
		l.Created, l.Expires = fromMillis(created), fromMillis(expires)
		return l, err
	}, `SELECT device, id, nonce, created, expires FROM lockboxes WHERE device = ? ORDER BY created, id`, device)
}
