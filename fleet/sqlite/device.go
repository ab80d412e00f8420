package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const deviceColumns = `id, status, channel, public_key, serial, expires, agent, facts, epoch, counter, nonce, generation, models, queues, runs, proof, enrolled, last_seen, reported_at, online,
 (SELECT json_group_object(key, value) FROM labels WHERE device = devices.id), ` + renewalColumns

func scanDevice(s scanner) (*fleet.Device, error) {
	var d fleet.Device
	var facts, models, queues, runs, labels string
	var epoch, counter, expires, enrolled, seen, reported int64
	var next renewalRow
	err := s.Scan(&d.ID, &d.Status, &d.Channel, &d.PublicKey, &d.Serial, &expires, &d.Agent, &facts, &epoch, &counter, &d.Nonce, &d.Generation, &models, &queues, &runs, &d.Proof, &enrolled, &seen, &reported, &d.Online, &labels, &next.key, &next.serial, &next.certificate, &next.expires, &next.asked)
	if err != nil {
		return nil, err
	}
	d.Epoch, d.Counter = uint64(epoch), uint64(counter)
	d.Expires, d.Renewal = fromMillis(expires), next.renewal()
	d.Enrolled, d.LastSeen, d.ReportedAt = fromMillis(enrolled), fromMillis(seen), fromMillis(reported)
	for _, x := range []struct {
		text string
		into any
	}{{facts, &d.Facts}, {models, &d.Models}, {queues, &d.Queues}, {runs, &d.Runs}, {labels, &d.Labels}} {
		if err := json.Unmarshal([]byte(x.text), x.into); err != nil {
			return nil, fmt.Errorf("device %s: %w", d.ID, err)
		}
	}
	return &d, nil
}

func getDevice(ctx context.Context, q querier, id string) (*fleet.Device, error) {
	d, err := scanDevice(q.QueryRowContext(ctx, `SELECT `+deviceColumns+` FROM devices WHERE id = ?`, id))
	return d, notFound(err, fleet.ErrDeviceUnknown.With("no device %q", id))
}

// Device returns ErrDeviceUnknown when there is none.
func (db *DB) Device(ctx context.Context, id string) (*fleet.Device, error) {
	return getDevice(ctx, db.r, id)
}

// Devices lists devices by id.
func (db *DB) Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error) {
	sel, err := bundle.ParseSelector(f.Selector)
	if err != nil {
		return nil, fleet.ErrSelector.With("%v", err)
	}
	all, err := list(ctx, db.r, scanDevice, `SELECT `+deviceColumns+` FROM devices
 WHERE id > ? AND (? = '' OR channel = ?) AND (? = '' OR status = ?) AND status != ? ORDER BY id`, f.After, f.Channel, f.Channel, f.Status, f.Status, f.Not)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []*fleet.Device
	for _, d := range all {
		if sel.Matches(d.Attributes()) {
			out = append(out, d)
		}
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
	}
	return out, nil
}

// Targets lists the active devices of a channel that the selector matches.
func (db *DB) Targets(ctx context.Context, channel, selector string) ([]*fleet.Device, error) {
	return db.Devices(ctx, fleet.DeviceFilter{Selector: selector, Channel: channel, Status: fleet.DeviceActive})
}

func insertDevice(ctx context.Context, tx *sql.Tx, d *fleet.Device, cert []byte) error {
	facts, err := jsonText(orEmpty(d.Facts))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO devices (id, status, channel, public_key, serial, expires, certificate, facts, enrolled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		d.ID, d.Status, d.Channel, d.PublicKey, d.Serial, millis(d.Expires), cert, facts, millis(d.Enrolled))
	if err != nil {
		return err
	}
	return putLabels(ctx, tx, d.ID, d.Labels)
}

// replaceIdentity gives a device's name to another key. In rollouts that it owes an
// outcome it is pending again, until the new key acknowledges the wish.
func replaceIdentity(ctx context.Context, tx *sql.Tx, d *fleet.Device, cert []byte) error {
	facts, err := jsonText(orEmpty(d.Facts))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE devices SET status = ?, public_key = ?, serial = ?, expires = ?, certificate = ?, facts = ?, enrolled = ?,
		epoch = 0, counter = 0, nonce = NULL, generation = 0, models = '[]', queues = '[]', runs = '[]', proof = '', reported_at = 0 WHERE id = ?`,
		d.Status, d.PublicKey, d.Serial, millis(d.Expires), cert, facts, millis(d.Enrolled), d.ID)
	if err != nil {
		return err
	}
	for _, q := range []string{`UPDATE members SET acked = 0 WHERE device = ? AND outcome = ''`, `DELETE FROM renewals WHERE device = ?`, `DELETE FROM signposts WHERE device = ?`} {
		if _, err := tx.ExecContext(ctx, q, d.ID); err != nil {
			return err
		}
	}
	return putLabels(ctx, tx, d.ID, d.Labels)
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func putLabels(ctx context.Context, tx *sql.Tx, device string, labels map[string]string) error {
	for k, v := range labels {
		if _, err := tx.ExecContext(ctx, `INSERT INTO labels (device, key, value) VALUES (?, ?, ?) ON CONFLICT (device, key) DO UPDATE SET value = excluded.value`, device, k, v); err != nil {
			return err
		}
	}
	return nil
}

// UpdateDevice changes what is known of a device; identity and labels stay.
func (db *DB) UpdateDevice(ctx context.Context, id string, change func(*fleet.Device) error) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := change(d); err != nil {
			return err
		}
		facts, err := jsonText(orEmpty(d.Facts))
		if err != nil {
			return err
		}
		models, err := jsonText(d.Models)
		if err != nil {
			return err
		}
		queues, err := jsonText(d.Queues)
		if err != nil {
			return err
		}
		runs, err := jsonText(d.Runs)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE devices SET status = ?, agent = ?, facts = ?, epoch = ?, counter = ?, nonce = ?, generation = ?, models = ?, queues = ?, runs = ?, proof = ?, last_seen = ?, reported_at = ?, online = ? WHERE id = ?`,
			d.Status, d.Agent, facts, int64(d.Epoch), int64(d.Counter), d.Nonce, d.Generation, models, queues, runs, d.Proof, millis(d.LastSeen), millis(d.ReportedAt), d.Online, id)
		return err
	})
}

// SetOnline records that a session began or ended.
func (db *DB) SetOnline(ctx context.Context, id string, online bool, at time.Time) error {
	_, err := db.w.ExecContext(ctx, `UPDATE devices SET online = ?, last_seen = ? WHERE id = ?`, online, millis(at), id)
	return err
}

// SetOnlineExactly marks these devices online and every other one not: what was
// believed before a restart, or missed since, is set right.
func (db *DB) SetOnlineExactly(ctx context.Context, ids []string) error {
	text, err := jsonText(append([]string{}, ids...))
	if err != nil {
		return err
	}
	_, err = db.w.ExecContext(ctx, `UPDATE devices SET online = (id IN (SELECT value FROM json_each(?)))`, text)
	return err
}

// SetLabels sets and removes labels.
func (db *DB) SetLabels(ctx context.Context, id string, set map[string]string, remove []string, a fleet.Audit) (*fleet.Device, error) {
	var d *fleet.Device
	err := db.update(ctx, func(tx *sql.Tx) error {
		if _, err := getDevice(ctx, tx, id); err != nil {
			return err
		}
		if err := putLabels(ctx, tx, id, set); err != nil {
			return err
		}
		for _, k := range remove {
			if _, err := tx.ExecContext(ctx, `DELETE FROM labels WHERE device = ? AND key = ?`, id, k); err != nil {
				return err
			}
		}
		var err error
		if d, err = getDevice(ctx, tx, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
	return d, err
}

// Revoke ends an identity; its name may be taken by another key. Revoking it again
// changes nothing. ErrDevicePending for one that has none yet.
func (db *DB) Revoke(ctx context.Context, id string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		d, err := getDevice(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case d.Status == fleet.DevicePending:
			return fleet.ErrDevicePending
		case d.Status == fleet.DeviceRetired:
			return fleet.ErrDeviceRetired
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET status = ?, online = 0 WHERE id = ?`, fleet.DeviceRevoked, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}
