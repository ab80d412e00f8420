package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

const memberColumns = `rollout, device, stratum, ord, control, stage, assigned, acked, outcome, code, reason, answered, settled, before, undone, hours,
 (SELECT last_seen FROM devices WHERE id = members.device), (SELECT status FROM devices WHERE id = members.device),
 undone != 0 AND (acked = 0 OR (SELECT generation FROM devices WHERE id = members.device) >= coalesce((SELECT generation FROM wishes WHERE device = members.device), 0))`

func scanMember(s scanner) (fleet.Member, error) {
	var m fleet.Member
	var assigned, acked, settled, undone, answered, heard int64
	var before, status string
	var hours uint32
	err := s.Scan(&m.Rollout, &m.Device, &m.Stratum, &m.Order, &m.Control, &m.Stage, &assigned, &acked, &m.Outcome, &m.Code, &m.Reason, &answered, &settled, &before, &undone, &hours, &heard, &status, &m.Back)
	if err != nil {
		return m, err
	}
	m.Assigned, m.Acked, m.Settled, m.Undone = fromMillis(assigned), fromMillis(acked), fromMillis(settled), fromMillis(undone)
	m.Heard, m.Revoked = fromMillis(heard), status != fleet.DeviceActive
	m.Answered, m.Hours = uint64(answered), fleet.DayHours(hours)
	if before != "" {
		m.Before = new(fleet.Item)
		err = json.Unmarshal([]byte(before), m.Before)
	}
	return m, err
}

// Members lists a rollout's devices by class and order.
func (db *DB) Members(ctx context.Context, rollout string) ([]fleet.Member, error) {
	return list(ctx, db.r, scanMember, `SELECT `+memberColumns+` FROM members WHERE rollout = ? ORDER BY stratum, ord`, rollout)
}

// MemberPage lists at most limit of a rollout's devices by class and order, behind
// the device named after.
func (db *DB) MemberPage(ctx context.Context, rollout, after string, limit int) ([]fleet.Member, error) {
	return list(ctx, db.r, scanMember, `SELECT `+memberColumns+` FROM members WHERE rollout = ?1
 AND (?2 = '' OR (stratum, ord, device) > (SELECT stratum, ord, device FROM members WHERE rollout = ?1 AND device = ?2))
 ORDER BY stratum, ord, device LIMIT ?3`, rollout, after, limit)
}

// Tallies counts the members of each of these rollouts by stage and by how far they
// have come, in one query.
func (db *DB) Tallies(ctx context.Context, rollouts []string) (map[string][]fleet.Tally, error) {
	ids, err := jsonText(rollouts)
	if err != nil {
		return nil, err
	}
	type row struct {
		rollout string
		fleet.Tally
	}
	rows, err := list(ctx, db.r, func(s scanner) (x row, err error) {
		return x, s.Scan(&x.rollout, &x.Stage, &x.Outcome, &x.Assigned, &x.Acked, &x.Undone, &x.Back, &x.Answered, &x.Revoked, &x.Devices)
	}, `SELECT m.rollout, m.stage, m.outcome, m.assigned != 0 AS a, m.acked != 0 AS k, m.undone != 0 AS u,
 m.undone != 0 AND (m.acked = 0 OR d.generation >= coalesce(w.generation, 0)) AS b, m.answered != 0 AS n, d.status != ? AS r, count(*)
 FROM members m JOIN devices d ON d.id = m.device LEFT JOIN wishes w ON w.device = m.device
 WHERE m.rollout IN (SELECT value FROM json_each(?)) GROUP BY m.rollout, m.stage, m.outcome, a, k, u, b, n, r`,
		fleet.DeviceActive, ids)
	if err != nil {
		return nil, fmt.Errorf("count members: %w", err)
	}
	out := map[string][]fleet.Tally{}
	for _, x := range rows {
		out[x.rollout] = append(out[x.rollout], x.Tally)
	}
	return out, nil
}

// unsettled refuses a member whose outcome a device has told since it was read.
func unsettled(ctx context.Context, tx *sql.Tx, m *fleet.Member) error {
	var outcome string
	err := tx.QueryRowContext(ctx, `SELECT outcome FROM members WHERE rollout = ? AND device = ?`, m.Rollout, m.Device).Scan(&outcome)
	if err != nil {
		return fmt.Errorf("member %s of %s: %w", m.Device, m.Rollout, err)
	}
	if outcome != "" && outcome != m.Outcome {
		return fleet.ErrRolloutState.With("%s has become %s in rollout %s meanwhile", m.Device, outcome, m.Rollout)
	}
	return nil
}

// saveMember writes what changes of a member.
func saveMember(ctx context.Context, tx *sql.Tx, m *fleet.Member) error {
	before := ""
	if m.Before != nil {
		var err error
		if before, err = jsonText(m.Before); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE members SET stage = ?, assigned = ?, acked = ?, outcome = ?, code = ?, reason = ?, answered = ?, settled = ?, before = ?, undone = ? WHERE rollout = ? AND device = ?`,
		m.Stage, millis(m.Assigned), millis(m.Acked), m.Outcome, m.Code, m.Reason, int64(m.Answered), millis(m.Settled), before, millis(m.Undone), m.Rollout, m.Device)
	return err
}

// openMembers are a device's memberships in running and paused rollouts.
func openMembers(ctx context.Context, q querier, device string) ([]fleet.Member, error) {
	return list(ctx, q, scanMember, `SELECT `+memberColumns+` FROM members WHERE device = ? AND rollout IN (SELECT id FROM rollouts WHERE status IN (?, ?)) ORDER BY rollout`,
		device, fleet.RolloutRunning, fleet.RolloutPaused)
}

// SettleMembers changes a device's memberships in running and paused rollouts;
// change returns the ones to be stored.
func (db *DB) SettleMembers(ctx context.Context, device string, change func([]fleet.Member) []fleet.Member) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		ms, err := openMembers(ctx, tx, device)
		if err != nil {
			return fmt.Errorf("memberships of %s: %w", device, err)
		}
		for _, m := range change(ms) {
			if err := saveMember(ctx, tx, &m); err != nil {
				return err
			}
		}
		return nil
	})
}

// Lease gives one holder at a time a right until ttl after now; the epoch rises
// with each new holder.
func (db *DB) Lease(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (epoch int64, ok bool, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		var have string
		var until int64
		err := tx.QueryRowContext(ctx, `SELECT holder, epoch, until FROM leases WHERE name = ?`, name).Scan(&have, &epoch, &until)
		if err != nil && notFound(err, fleet.ErrLeaseLost) != fleet.ErrLeaseLost {
			return err
		}
		if have != holder && until > millis(now) {
			return nil
		}
		if have != holder {
			epoch++
		}
		ok = true
		_, err = tx.ExecContext(ctx, `INSERT INTO leases (name, holder, epoch, until) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, until = excluded.until`,
			name, holder, epoch, millis(now.Add(ttl)))
		return err
	})
	return epoch, ok, err
}

// holdsLease refuses an epoch that is not the newest of the rollouts' lease.
func holdsLease(ctx context.Context, tx *sql.Tx, epoch int64) error {
	var have int64
	if err := tx.QueryRowContext(ctx, `SELECT epoch FROM leases WHERE name = 'rollouts'`).Scan(&have); err != nil {
		return notFound(err, fleet.ErrLeaseLost)
	}
	if have != epoch {
		return fleet.ErrLeaseLost
	}
	return nil
}

// TakeOutbox returns the devices that are to be told of a new wish, and forgets
// them: a hint that is lost costs a heartbeat.
func (db *DB) TakeOutbox(ctx context.Context) ([]string, error) {
	var out []string
	err := db.update(ctx, func(tx *sql.Tx) error {
		var err error
		if out, err = list(ctx, tx, func(s scanner) (d string, err error) { return d, s.Scan(&d) }, `SELECT DISTINCT device FROM outbox`); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM outbox`)
		return err
	})
	return out, err
}
