package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
)

const tokenColumns = `id, hash, channel, labels, max, used, expires, created, by, hold, replaces, ca`

const tokenSerials = `(SELECT json_group_array(serial) FROM token_serials WHERE token = enrol_tokens.id)`

func scanToken(s scanner) (*fleet.EnrolToken, error) {
	var t fleet.EnrolToken
	var hash []byte
	var labels, serials string
	var expires, created int64
	if err := s.Scan(&t.ID, &hash, &t.Channel, &labels, &t.Max, &t.Used, &expires, &created, &t.By, &t.Hold, &t.Replaces, &t.CA, &serials); err != nil {
		return nil, err
	}
	copy(t.Hash[:], hash)
	t.Expires, t.Created = fromMillis(expires), fromMillis(created)
	if len(t.CA) == 0 {
		t.CA = nil
	}
	if err := json.Unmarshal([]byte(serials), &t.Serials); err != nil {
		return nil, err
	}
	if len(t.Serials) == 0 {
		t.Serials = nil
	}
	return &t, json.Unmarshal([]byte(labels), &t.Labels)
}

// CreateEnrolToken stores a token.
func (db *DB) CreateEnrolToken(ctx context.Context, t *fleet.EnrolToken, a fleet.Audit) error {
	labels, err := jsonText(orEmpty(t.Labels))
	if err != nil {
		return err
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO enrol_tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Hash[:], t.Channel, labels, t.Max, t.Used, millis(t.Expires), millis(t.Created), t.By, t.Hold, t.Replaces, append([]byte{}, t.CA...))
		if err != nil {
			return err
		}
		for _, serial := range t.Serials {
			if _, err := tx.ExecContext(ctx, `INSERT INTO token_serials (token, serial) VALUES (?, ?)`, t.ID, serial); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}

// EnrolToken returns ErrTokenUnknown when there is none.
func (db *DB) EnrolToken(ctx context.Context, id string) (*fleet.EnrolToken, error) {
	return getToken(ctx, db.r, id)
}

func getToken(ctx context.Context, q querier, id string) (*fleet.EnrolToken, error) {
	t, err := scanToken(q.QueryRowContext(ctx, `SELECT `+tokenColumns+`, `+tokenSerials+` FROM enrol_tokens WHERE id = ?`, id))
	return t, notFound(err, fleet.ErrTokenUnknown)
}

// EnrolTokens lists tokens, the newest first.
func (db *DB) EnrolTokens(ctx context.Context) ([]*fleet.EnrolToken, error) {
	return list(ctx, db.r, scanToken, `SELECT `+tokenColumns+`, `+tokenSerials+` FROM enrol_tokens ORDER BY id DESC`)
}

// DeleteEnrolToken makes a token useless; devices that used it stay. ErrTokenWaits
// while devices wait with it: they could not come for their certificates.
func (db *DB) DeleteEnrolToken(ctx context.Context, id string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		wait, err := list(ctx, tx, func(s scanner) (id string, err error) { err = s.Scan(&id); return id, err },
			`SELECT d.id FROM devices d JOIN enrolments e ON `+presentToken+` WHERE d.status = ? AND e.token = ? ORDER BY d.id`, fleet.DevicePending, id)
		if err != nil {
			return err
		}
		if len(wait) > 0 {
			return fleet.ErrTokenWaits.With("%d devices wait with token %s: %s", len(wait), id, strings.Join(wait[:min(len(wait), 20)], ", "))
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM token_serials WHERE token = ?`, id); err != nil {
			return err
		}
		if err := hit(ctx, tx, fleet.ErrTokenUnknown, `DELETE FROM enrol_tokens WHERE id = ?`, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
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
		if err := hit(ctx, tx, fleet.ErrAccessUnknown, `DELETE FROM access WHERE id = ?`, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}
