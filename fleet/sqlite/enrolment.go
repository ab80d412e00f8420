package sqlite

import (
	"bytes"
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Enrol uses a token and makes the device, or returns what the same key got
// before.
func (db *DB) Enrol(ctx context.Context, token string, secretHash [32]byte, d *fleet.Device, cert []byte, now time.Time) (*fleet.Device, []byte, error) {
	var stored *fleet.Device
	var storedCert []byte
	err := db.update(ctx, func(tx *sql.Tx) error {
		t, err := getToken(ctx, tx, token)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(t.Hash[:], secretHash[:]) != 1 {
			return fleet.ErrTokenUnknown
		}
		stored, storedCert, err = enrolled(ctx, tx, token, d.PublicKey)
		switch {
		case err != nil:
			return err
		case stored != nil && t.Hold: // whoever was accepted may come for it later
			return nil
		case !now.Before(t.Expires):
			return fleet.ErrTokenExpired
		case stored != nil:
			return nil
		}
		if err := everEnded(ctx, tx, d.PublicKey); err != nil {
			return err
		}
		if err := useSerial(ctx, tx, t, d); err != nil {
			return err
		}
		if t.Used >= t.Max {
			return fleet.ErrTokenSpent
		}
		stored, storedCert = d, cert
		return firstUse(ctx, tx, t, d, cert, now)
	})
	if err != nil {
		return nil, nil, err
	}
	return stored, storedCert, nil
}

// enrolled returns the device that a key became with this token, nil if none.
func enrolled(ctx context.Context, tx *sql.Tx, token string, key []byte) (*fleet.Device, []byte, error) {
	var id string
	var cert []byte
	err := tx.QueryRowContext(ctx, `SELECT e.device, d.certificate FROM enrolments e JOIN devices d ON d.id = e.device WHERE e.token = ? AND e.public_key = ?`, token, key).Scan(&id, &cert)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := getDevice(ctx, tx, id)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(d.PublicKey, key) || d.Status != fleet.DeviceActive && d.Status != fleet.DevicePending {
		return nil, nil, fleet.ErrDeviceRevoked
	}
	return d, cert, nil
}

// everEnded refuses a key whose identity has ended: it never comes back, under no
// name and with no token.
func everEnded(ctx context.Context, tx *sql.Tx, key []byte) error {
	var id, how string
	err := tx.QueryRowContext(ctx, `SELECT device, how FROM former_keys WHERE public_key = ?1
 UNION ALL SELECT id, status FROM devices WHERE public_key = ?1 AND status IN (?2, ?3) LIMIT 1`, key, fleet.DeviceRevoked, fleet.DeviceRetired).Scan(&id, &how)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case how == fleet.EndedRejected:
		return fleet.ErrDeviceRejected
	}
	ended := fleet.ErrDeviceRevoked.With("the key was of device %s and is not let in again: a new one is needed", id)
	ended.Next = "make one with 'dunlin-agent reset', then enrol again"
	return ended
}

// useSerial compares the serial that the device tells with the token's list.
func useSerial(ctx context.Context, tx *sql.Tx, t *fleet.EnrolToken, d *fleet.Device) error {
	if len(t.Serials) == 0 {
		return nil
	}
	serial := d.Facts[fleet.FactSerial]
	if serial == "" {
		return fleet.ErrSerialUnlisted.With("the device tells no serial, and the token is for listed ones only")
	}
	if !slices.Contains(t.Serials, serial) {
		return fleet.ErrSerialUnlisted.With("the token does not list serial %q", serial)
	}
	return hit(ctx, tx, fleet.ErrSerialUsed.With("serial %q has enrolled with another key", serial),
		`UPDATE token_serials SET public_key = ? WHERE token = ? AND serial = ? AND public_key IS NULL`, d.PublicKey, t.ID, serial)
}

// refusalPause is the least time between two audit rows about one serial: whoever
// has the token can cause them.
const refusalPause = time.Minute

// RefusedSerial writes that another key came with a used serial, not more often than
// once a minute for each.
func (db *DB) RefusedSerial(ctx context.Context, token, serial string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE token_serials SET refused = ? WHERE token = ? AND serial = ? AND refused <= ?`, millis(a.At), token, serial, millis(a.At.Add(-refusalPause)))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// firstUse stores the device that a token lets in, or lets wait. A name whose
// identity was revoked may be taken by another key, in the same channel. The history
// stays, and so does the wish: its generation and the director's versions only ever
// rise, so metadata of the old identity is never new to anybody. What the old
// identity said counts no more.
func firstUse(ctx context.Context, tx *sql.Tx, t *fleet.EnrolToken, d *fleet.Device, cert []byte, now time.Time) error {
	act, how := "device.enrol", "with "+t.ID
	have, err := getDevice(ctx, tx, d.ID)
	switch {
	case t.Replaces != "":
		act = "device.replaced"
		if err == nil {
			err = takePlace(ctx, tx, t, have, d, cert, now)
		}
	case errors.Is(err, fleet.ErrDeviceUnknown):
		err = insertDevice(ctx, tx, d, cert)
	case err == nil && have.Status == fleet.DevicePending && bytes.Equal(have.PublicKey, d.PublicKey):
		// The former may be deleted, or name a CA that has been retired.
		how += ", after it waited with another token"
		if err = forget(ctx, tx, d.ID); err == nil {
			err = insertDevice(ctx, tx, d, cert)
		}
	case err == nil:
		how += ", after the identity before was revoked"
		if err = mayTake(t, have, d); err == nil {
			err = succeed(ctx, tx, have, d, cert, fleet.EndedRevoked, now)
		}
	}
	if err != nil {
		return err
	}
	if d.Status == fleet.DevicePending {
		act, how = "device.enrol_wait", "with "+t.ID+", key "+fleet.Fingerprint(d.PublicKey)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO enrolments (token, public_key, device) VALUES (?, ?, ?)`, t.ID, d.PublicKey, d.ID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE enrol_tokens SET used = used + 1 WHERE id = ?`, t.ID); err != nil {
		return err
	}
	return addAudit(ctx, tx, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "device:" + d.ID, Act: act, Object: d.ID, Detail: how})
}

// mayTake tells why an ordinary token does not give this name.
func mayTake(t *fleet.EnrolToken, have, d *fleet.Device) error {
	switch {
	case have.Status == fleet.DeviceActive:
		return fleet.ErrDeviceExists.With("device %s is enrolled already", d.ID)
	case have.Status == fleet.DevicePending:
		return fleet.ErrDeviceExists.With("another key waits for the name %s", d.ID)
	case have.Status == fleet.DeviceRetired:
		return fleet.ErrDeviceRetired.With("device %s is retired: its name is not given again", d.ID)
	case t.Hold: // the former identity's history is not for somebody who waits
		other := fleet.ErrDeviceExists.With("device %s was revoked: a token that holds does not give its name", d.ID)
		other.Next = fmt.Sprintf("use 'dunlin device replace %s', or choose another --name", d.ID)
		return other
	case have.Channel != d.Channel:
		other := fleet.ErrDeviceExists.With("device %s was of channel %s, the token is for %s", d.ID, have.Channel, d.Channel)
		other.Next = fmt.Sprintf("use a token of channel %s, or choose another --name", have.Channel)
		return other
	}
	return nil
}

// takePlace gives the place of a device to the key that its replacement token let
// in; the identity before ends in this transaction.
func takePlace(ctx context.Context, tx *sql.Tx, t *fleet.EnrolToken, have, d *fleet.Device, cert []byte, now time.Time) error {
	if have.Status == fleet.DevicePending || have.Channel != t.Channel {
		return fleet.ErrDeviceExists.With("device %s is not the one that the token was made for", have.ID)
	}
	if slices.ContainsFunc(have.Keys(), func(k []byte) bool { return bytes.Equal(k, d.PublicKey) }) {
		own := fleet.ErrDeviceExists.With("the key is that of %s itself, which is to be replaced", have.ID)
		own.Next = "make a new key with 'dunlin-agent reset', then enrol again"
		return own
	}
	return succeed(ctx, tx, have, d, cert, fleet.EndedReplaced, now)
}

// succeed ends the identity that a name has and gives the name to the next.
func succeed(ctx context.Context, tx *sql.Tx, have, d *fleet.Device, cert []byte, how string, now time.Time) error {
	if err := addFormer(ctx, tx, fleet.Former{Device: have.ID, PublicKey: have.PublicKey, Since: have.Enrolled, Ended: now, How: how, By: d.PublicKey}); err != nil {
		return err
	}
	if have.Renewal != nil { // its next key ends with it
		if err := addFormer(ctx, tx, fleet.Former{Device: have.ID, PublicKey: have.Renewal.PublicKey, Since: have.Renewal.Asked, Ended: now, How: how, By: d.PublicKey}); err != nil {
			return err
		}
	}
	return replaceIdentity(ctx, tx, d, cert)
}

func addFormer(ctx context.Context, tx *sql.Tx, f fleet.Former) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO former_keys (device, public_key, since, ended, how, successor) VALUES (?, ?, ?, ?, ?, ?)
 ON CONFLICT (device, public_key) DO UPDATE SET ended = excluded.ended, how = excluded.how, successor = excluded.successor`,
		f.Device, f.PublicKey, millis(f.Since), millis(f.Ended), f.How, append([]byte{}, f.By...))
	return err
}

// Formers lists the keys that a device was known by, the newest first.
func (db *DB) Formers(ctx context.Context, device string) ([]fleet.Former, error) {
	return list(ctx, db.r, func(s scanner) (f fleet.Former, err error) {
		var since, ended int64
		err = s.Scan(&f.Device, &f.PublicKey, &since, &ended, &f.How, &f.By)
		f.Since, f.Ended = fromMillis(since), fromMillis(ended)
		return f, err
	}, `SELECT device, public_key, since, ended, how, successor FROM former_keys WHERE device = ? ORDER BY ended DESC, since DESC`, device)
}

// presentToken is the rows of devices d and enrolments e where e is what the device's
// present key came with last.
const presentToken = `e.device = d.id AND e.public_key = d.public_key AND e.rowid = (SELECT max(rowid) FROM enrolments x WHERE x.device = d.id AND x.public_key = d.public_key)`

// EnrolledWith returns the token that the device's present key came with last.
func (db *DB) EnrolledWith(ctx context.Context, device string) (*fleet.EnrolToken, error) {
	var id string
	err := db.r.QueryRowContext(ctx, `SELECT e.token FROM enrolments e JOIN devices d ON `+presentToken+` WHERE d.id = ?`, device).Scan(&id)
	if err != nil {
		return nil, notFound(err, fleet.ErrTokenUnknown)
	}
	return db.EnrolToken(ctx, id)
}

// Pending lists what waits for an operator by a token that there is.
func (db *DB) Pending(ctx context.Context) ([]fleet.Pending, error) {
	return list(ctx, db.r, func(s scanner) (p fleet.Pending, err error) {
		err = s.Scan(&p.Device, &p.CA)
		return p, err
	}, `SELECT d.id, t.ca FROM devices d JOIN enrolments e ON `+presentToken+` JOIN enrol_tokens t ON t.id = e.token WHERE d.status = ? ORDER BY d.id`, fleet.DevicePending)
}

// AcceptDevice lets in the key of a pending device; ErrNothingWaits when it is
// another one by now.
func (db *DB) AcceptDevice(ctx context.Context, d *fleet.Device, cert []byte, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		err := hit(ctx, tx, fleet.ErrNothingWaits, `UPDATE devices SET status = ?, serial = ?, expires = ?, certificate = ?, enrolled = ? WHERE id = ? AND status = ? AND public_key = ?`,
			fleet.DeviceActive, d.Serial, millis(d.Expires), cert, millis(a.At), d.ID, fleet.DevicePending, d.PublicKey)
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// RejectDevice forgets a pending device; its key is never let in. ErrNothingWaits
// for a device that is not pending.
func (db *DB) RejectDevice(ctx context.Context, id string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, id)
		if err != nil {
			return err
		}
		if d.Status != fleet.DevicePending {
			return fleet.ErrNothingWaits.With("device %s is %s", id, d.Status)
		}
		if err := addFormer(ctx, tx, fleet.Former{Device: id, PublicKey: d.PublicKey, Since: d.Enrolled, Ended: a.At, How: fleet.EndedRejected}); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE token_serials SET public_key = NULL WHERE public_key = ?`, d.PublicKey); err != nil {
			return err
		}
		if err := forget(ctx, tx, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// forget removes a device that never was let in.
func forget(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM labels WHERE device = ?1; DELETE FROM devices WHERE id = ?1`, id)
	return err
}

// Retire ends a device for good: its identity, and its wish with everything in it.
// What it told and what it was part of stays. Retiring it again changes nothing.
func (db *DB) Retire(ctx context.Context, id string, a fleet.Audit, sign Signer) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case d.Status == fleet.DeviceRetired:
			return nil
		case d.Status == fleet.DevicePending:
			return fleet.ErrDevicePending
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET status = ?, online = 0 WHERE id = ?`, fleet.DeviceRetired, id); err != nil {
			return err
		}
		if d.Renewal != nil {
			if err := addFormer(ctx, tx, fleet.Former{Device: id, PublicKey: d.Renewal.PublicKey, Since: d.Renewal.Asked, Ended: a.At, How: fleet.EndedRevoked}); err != nil {
				return err
			}
		}
		if err := dropRenewal(ctx, tx, id); err != nil {
			return err
		}
		w, err := getWish(ctx, tx, id)
		if err != nil {
			return err
		}
		if len(w.Items) > 0 {
			w.Items, w.Changed = nil, a.At
			w.Generation++
			w.Version++
			if err := signed(ctx, tx, w, sign); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}
