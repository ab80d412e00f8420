package sqlite

import (
	"bytes"
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

const tokenColumns = `id, hash, channel, labels, max, used, expires, created, by`

func scanToken(s scanner) (*fleet.EnrolToken, error) {
	var t fleet.EnrolToken
	var hash []byte
	var labels string
	var expires, created int64
	if err := s.Scan(&t.ID, &hash, &t.Channel, &labels, &t.Max, &t.Used, &expires, &created, &t.By); err != nil {
		return nil, err
	}
	copy(t.Hash[:], hash)
	t.Expires, t.Created = fromMillis(expires), fromMillis(created)
	return &t, json.Unmarshal([]byte(labels), &t.Labels)
}

// CreateEnrolToken stores a token.
func (db *DB) CreateEnrolToken(ctx context.Context, t *fleet.EnrolToken, a fleet.Audit) error {
	labels, err := jsonText(orEmpty(t.Labels))
	if err != nil {
		return err
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO enrol_tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Hash[:], t.Channel, labels, t.Max, t.Used, millis(t.Expires), millis(t.Created), t.By)
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// EnrolToken returns ErrTokenUnknown when there is none.
func (db *DB) EnrolToken(ctx context.Context, id string) (*fleet.EnrolToken, error) {
	return getToken(ctx, db.r, id)
}

func getToken(ctx context.Context, q querier, id string) (*fleet.EnrolToken, error) {
	t, err := scanToken(q.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM enrol_tokens WHERE id = ?`, id))
	return t, notFound(err, fleet.ErrTokenUnknown)
}

// EnrolTokens lists tokens, the newest first.
func (db *DB) EnrolTokens(ctx context.Context) ([]*fleet.EnrolToken, error) {
	return list(ctx, db.r, scanToken, `SELECT `+tokenColumns+` FROM enrol_tokens ORDER BY id DESC`)
}

// DeleteEnrolToken makes a token useless; devices that used it stay.
func (db *DB) DeleteEnrolToken(ctx context.Context, id string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM enrol_tokens WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fleet.ErrTokenUnknown)
		}
		return addAudit(ctx, tx, a)
	})
}

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
		switch {
		case subtle.ConstantTimeCompare(t.Hash[:], secretHash[:]) != 1:
			return fleet.ErrTokenUnknown
		case !now.Before(t.Expires):
			return fleet.ErrTokenExpired
		}
		stored, storedCert, err = enrolled(ctx, tx, token, d.PublicKey)
		if err != nil || stored != nil {
			return err
		}
		if t.Used >= t.Max {
			return fleet.ErrTokenSpent
		}
		stored, storedCert = d, cert
		return firstUse(ctx, tx, t, d, cert, now)
	})
	return stored, storedCert, err
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
	if err == nil && (d.Status != fleet.DeviceActive || !bytes.Equal(d.PublicKey, key)) {
		return nil, nil, fleet.ErrDeviceRevoked
	}
	return d, cert, err
}

// firstUse stores the device that a token lets in. A name whose identity was
// revoked may be taken by another key, in the same channel. The history stays, and
// so does the wish: its generation and the director's versions only ever rise, so
// metadata of the old identity is never new to anybody. What the old identity said
// counts no more.
func firstUse(ctx context.Context, tx *sql.Tx, t *fleet.EnrolToken, d *fleet.Device, cert []byte, now time.Time) error {
	how := "with " + t.ID
	have, err := getDevice(ctx, tx, d.ID)
	switch {
	case errors.Is(err, fleet.ErrDeviceUnknown):
		err = insertDevice(ctx, tx, d, cert)
	case err != nil:
	case have.Status == fleet.DeviceActive:
		err = fleet.ErrDeviceExists.With("device %s is enrolled already", d.ID)
	case bytes.Equal(have.PublicKey, d.PublicKey):
		err = fleet.ErrDeviceRevoked.With("the key of device %s is revoked: a new one is needed", d.ID)
	case have.Channel != d.Channel:
		other := fleet.ErrDeviceExists.With("device %s was of channel %s, the token is for %s", d.ID, have.Channel, d.Channel)
		other.Next = fmt.Sprintf("use a token of channel %s, or choose another --name", have.Channel)
		err = other
	default:
		how += ", after the identity before was revoked"
		err = replaceIdentity(ctx, tx, d, cert)
	}
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO enrolments (token, public_key, device) VALUES (?, ?, ?)`, t.ID, d.PublicKey, d.ID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE enrol_tokens SET used = used + 1 WHERE id = ?`, t.ID); err != nil {
		return err
	}
	return addAudit(ctx, tx, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "device:" + d.ID, Act: "device.enrol", Object: d.ID, Detail: how})
}

func scanAccess(s scanner) (*fleet.Access, error) {
	var a fleet.Access
	var hash []byte
	var created, expires int64
	if err := s.Scan(&a.ID, &a.Name, &a.Role, &hash, &created, &expires); err != nil {
		return nil, err
	}
	copy(a.Hash[:], hash)
	a.Created, a.Expires = fromMillis(created), fromMillis(expires)
	return &a, nil
}

const accessColumns = `id, name, role, hash, created, expires`

// CreateAccess stores an API token.
func (db *DB) CreateAccess(ctx context.Context, x *fleet.Access, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO access (`+accessColumns+`) VALUES (?, ?, ?, ?, ?, ?)`, x.ID, x.Name, x.Role, x.Hash[:], millis(x.Created), millis(x.Expires)); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// AccessByHash returns ErrUnauthenticated when no token has that hash.
func (db *DB) AccessByHash(ctx context.Context, hash [32]byte) (*fleet.Access, error) {
	x, err := scanAccess(db.r.QueryRowContext(ctx, `SELECT `+accessColumns+` FROM access WHERE hash = ?`, hash[:]))
	return x, notFound(err, fleet.ErrUnauthenticated)
}

// AccessList lists API tokens.
func (db *DB) AccessList(ctx context.Context) ([]*fleet.Access, error) {
	return list(ctx, db.r, scanAccess, `SELECT `+accessColumns+` FROM access ORDER BY id`)
}

// DeleteAccess ends an API token; ErrAccessUnknown when there is none.
func (db *DB) DeleteAccess(ctx context.Context, id string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM access WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fleet.ErrAccessUnknown)
		}
		return addAudit(ctx, tx, a)
	})
}
