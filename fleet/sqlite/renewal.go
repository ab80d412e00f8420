package sqlite

import (
	"bytes"
	"context"
	"database/sql"

	"github.com/dunlin-edge/dunlin/fleet"
)

const renewalColumns = `(SELECT public_key FROM renewals WHERE device = devices.id), (SELECT serial FROM renewals WHERE device = devices.id),
 (SELECT certificate FROM renewals WHERE device = devices.id), (SELECT expires FROM renewals WHERE device = devices.id), (SELECT asked FROM renewals WHERE device = devices.id)`

// renewalRow is a renewal that may not be there.
type renewalRow struct {
	key, certificate []byte
	serial           sql.NullString
	expires, asked   sql.NullInt64
}

func (r *renewalRow) renewal() *fleet.Renewal {
	if !r.serial.Valid {
		return nil
	}
	return &fleet.Renewal{PublicKey: r.key, Serial: r.serial.String, Certificate: r.certificate, Expires: fromMillis(r.expires.Int64), Asked: fromMillis(r.asked.Int64)}
}

// Certificate returns a device's current certificate.
func (db *DB) Certificate(ctx context.Context, device string) (cert []byte, err error) {
	err = db.r.QueryRowContext(ctx, `SELECT certificate FROM devices WHERE id = ?`, device).Scan(&cert)
	return cert, notFound(err, fleet.ErrDeviceUnknown.With("no device %q", device))
}

// PutRenewal stores the next key of a device, and its certificate once there is
// one, beside the current key, which must still be the device's.
func (db *DB) PutRenewal(ctx context.Context, device string, current []byte, r *fleet.Renewal, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, device)
		if err != nil {
			return err
		}
		if d.Status != fleet.DeviceActive {
			return fleet.ErrDeviceRevoked
		}
		if !bytes.Equal(d.PublicKey, current) {
			return fleet.ErrRenewRefused
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO renewals (device, public_key, serial, certificate, expires, asked) VALUES (?, ?, ?, ?, ?, ?)
 ON CONFLICT (device) DO UPDATE SET public_key = excluded.public_key, serial = excluded.serial, certificate = excluded.certificate, expires = excluded.expires, asked = excluded.asked`,
			device, r.PublicKey, r.Serial, append([]byte{}, r.Certificate...), millis(r.Expires), millis(r.Asked))
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// Promote makes the next key the device's own, in place of the current one, and
// tells whether that changed something. A key that is neither is ErrDeviceRevoked.
func (db *DB) Promote(ctx context.Context, device string, key []byte, a fleet.Audit) (changed bool, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, device)
		switch {
		case err != nil:
			return err
		case d.Status != fleet.DeviceActive:
			return fleet.ErrDeviceRevoked
		case bytes.Equal(d.PublicKey, key):
			return nil
		case !d.Renewal.Issued() || !bytes.Equal(d.Renewal.PublicKey, key):
			return fleet.ErrDeviceRevoked.With("the key is not the device's own")
		}
		changed = true
		r := d.Renewal
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET public_key = ?, serial = ?, certificate = ?, expires = ? WHERE id = ?`, r.PublicKey, r.Serial, r.Certificate, millis(r.Expires), device); err != nil {
			return err
		}
		if err := dropRenewal(ctx, tx, device); err != nil {
			return err
		}
		if err := addFormer(ctx, tx, fleet.Former{Device: device, PublicKey: d.PublicKey, Since: d.Enrolled, Ended: a.At, How: fleet.EndedRenewed, By: r.PublicKey}); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
	return changed && err == nil, err
}

func dropRenewal(ctx context.Context, tx *sql.Tx, device string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM renewals WHERE device = ?`, device)
	return err
}
