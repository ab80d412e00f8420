package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/evaluations"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/quarantine"
)

const rolloutColumns = `id, spec, status, code, reason, stage, devices, created, by, changed, finished`

func scanRollout(s scanner) (fleet.Rollout, error) {
	var r fleet.Rollout
	var spec string
	var created, changed, finished int64
	if err := s.Scan(&r.ID, &spec, &r.Status, &r.Code, &r.Reason, &r.Stage, &r.Devices, &created, &r.By, &changed, &finished); err != nil {
		return r, err
	}
	r.Created, r.Changed, r.Finished = fromMillis(created), fromMillis(changed), fromMillis(finished)
	return r, json.Unmarshal([]byte(spec), &r.Spec)
}

// withStages reads the stages of all of these rollouts at once.
func withStages(ctx context.Context, q querier, rs []fleet.Rollout) error {
	at, ids, err := byID(rs)
	if err != nil {
		return err
	}
	type row struct {
		rollout string
		fleet.Stage
	}
	rows, err := list(ctx, q, func(s scanner) (x row, err error) {
		var started, baking, passed, held int64
		err = s.Scan(&x.rollout, &x.Index, &x.Target, &started, &baking, &passed, &held)
		x.Started, x.Baking, x.Passed, x.Held = fromMillis(started), fromMillis(baking), fromMillis(passed), fromMillis(held)
		return x, err
	}, `SELECT rollout, idx, target, started, baking, passed, held FROM stages WHERE rollout IN (SELECT value FROM json_each(?)) ORDER BY rollout, idx`, ids)
	for _, x := range rows {
		at[x.rollout].Stages = append(at[x.rollout].Stages, x.Stage)
	}
	return err
}

// byID finds rollouts by their ids; ids is the list of them as JSON.
func byID(rs []fleet.Rollout) (at map[string]*fleet.Rollout, ids string, err error) {
	at, names := map[string]*fleet.Rollout{}, make([]string, len(rs))
	for i := range rs {
		at[rs[i].ID], names[i] = &rs[i], rs[i].ID
	}
	ids, err = jsonText(names)
	return at, ids, err
}

// CreateRollout stores a rollout; ErrRolloutConflict when one of its devices is
// in another rollout of the model that is under way.
func (db *DB) CreateRollout(ctx context.Context, r *fleet.Rollout, ms []fleet.Member, a fleet.Audit) error {
	spec, err := jsonText(r.Spec)
	if err != nil {
		return err
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		devices := make([]string, len(ms))
		for i, m := range ms {
			devices[i] = m.Device
		}
		if err := refuseOverlap(ctx, tx, r.Spec.Model, devices); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO rollouts (id, spec, model, status, stage, devices, created, by, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, spec, r.Spec.Model, r.Status, r.Stage, r.Devices, millis(r.Created), r.By, millis(r.Changed)); err != nil {
			return err
		}
		for _, st := range r.Stages {
			if _, err := tx.ExecContext(ctx, `INSERT INTO stages (rollout, idx, target) VALUES (?, ?, ?)`, r.ID, st.Index, st.Target); err != nil {
				return err
			}
		}
		for _, m := range ms {
			if _, err := tx.ExecContext(ctx, `INSERT INTO members (rollout, device, stratum, ord, control, stage, hours) VALUES (?, ?, ?, ?, ?, ?, ?)`, m.Rollout, m.Device, m.Stratum, m.Order, m.Control, m.Stage, m.Hours.Mask()); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}

func refuseOverlap(ctx context.Context, tx *sql.Tx, model string, devices []string) error {
	rows, err := list(ctx, tx, func(s scanner) (x [2]string, err error) { return x, s.Scan(&x[0], &x[1]) },
		`SELECT m.rollout, m.device FROM members m JOIN rollouts r ON r.id = m.rollout WHERE r.model = ? AND r.status IN (?, ?, ?)`, model, fleet.RolloutRunning, fleet.RolloutPaused, fleet.RolloutReverting)
	if err != nil {
		return err
	}
	slices.Sort(devices)
	for _, x := range rows {
		if _, ok := slices.BinarySearch(devices, x[1]); ok {
			return fleet.ErrRolloutConflict.With("%s is in rollout %s of %s, which is under way", x[1], x[0], model)
		}
	}
	return nil
}

// Rollout returns ErrRolloutUnknown when there is none.
func (db *DB) Rollout(ctx context.Context, id string) (*fleet.Rollout, error) {
	return getRollout(ctx, db.r, id)
}

func getRollout(ctx context.Context, q querier, id string) (*fleet.Rollout, error) {
	r, err := scanRollout(q.QueryRowContext(ctx, `SELECT `+rolloutColumns+` FROM rollouts WHERE id = ?`, id))
	if err != nil {
		return nil, notFound(err, fleet.ErrRolloutUnknown.With("no rollout %q", id))
	}
	rs := []fleet.Rollout{r}
	err = withStages(ctx, q, rs)
	return &rs[0], err
}

// Rollouts lists rollouts, the newest first; an empty status does not restrict.
func (db *DB) Rollouts(ctx context.Context, status, after string, limit int) ([]fleet.Rollout, error) {
	return db.rollouts(ctx, `WHERE (? = '' OR status = ?) AND (? = '' OR id < ?) ORDER BY id DESC LIMIT ?`, status, status, after, after, limit)
}

// OpenRollouts lists running and reverting rollouts, and halted or aborted ones with members
// that have not got their former wish back.
func (db *DB) OpenRollouts(ctx context.Context) ([]fleet.Rollout, error) {
	return db.rollouts(ctx, `WHERE status IN (?, ?) OR status IN (?, ?) AND EXISTS (SELECT 1 FROM members m WHERE m.rollout = rollouts.id AND m.assigned != 0 AND m.outcome != ? AND m.undone = 0) ORDER BY id`,
		fleet.RolloutRunning, fleet.RolloutReverting, fleet.RolloutHalted, fleet.RolloutAborted, fleet.OutcomeGood)
}

// NewestRollout of a model that a device is in; ErrRolloutUnknown when none is.
func (db *DB) NewestRollout(ctx context.Context, device, model string) (*fleet.Rollout, error) {
	rs, err := db.rollouts(ctx, `WHERE model = ? AND id IN (SELECT rollout FROM members WHERE device = ?) ORDER BY id DESC LIMIT 1`, model, device)
	if len(rs) == 0 {
		return nil, cmp.Or(err, error(fleet.ErrRolloutUnknown.With("no rollout of %s includes %s", model, device)))
	}
	return &rs[0], nil
}

// DeviceRollouts lists the running and paused rollouts that a device is in.
func (db *DB) DeviceRollouts(ctx context.Context, device string) ([]fleet.Rollout, error) {
	return db.rollouts(ctx, `WHERE status IN (?, ?) AND id IN (SELECT rollout FROM members WHERE device = ?) ORDER BY id`, fleet.RolloutRunning, fleet.RolloutPaused, device)
}

func (db *DB) rollouts(ctx context.Context, where string, args ...any) ([]fleet.Rollout, error) {
	out, err := list(ctx, db.r, scanRollout, `SELECT `+rolloutColumns+` FROM rollouts `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	if err := withStages(ctx, db.r, out); err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	return out, nil
}

// SetRolloutStatus changes the status when the present one is among from.
func (db *DB) SetRolloutStatus(ctx context.Context, id string, from []string, to, reason string, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		r, err := getRollout(ctx, tx, id)
		if err != nil {
			return err
		}
		if !slices.Contains(from, r.Status) {
			return fleet.ErrRolloutState.With("rollout %s is %s", id, r.Status)
		}
		code := r.Code
		if to == fleet.RolloutRunning { // what stopped it is the audit's
			code = ""
		} else if reason == "" {
			reason = r.Reason
		}
		finished := millis(r.Finished)
		if to == fleet.RolloutAborted {
			finished = millis(a.At)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE rollouts SET status = ?, code = ?, reason = ?, changed = ?, finished = ? WHERE id = ?`, to, code, reason, millis(a.At), finished, id); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// CommitRollout stores one action of a rollout: everything in one transaction or
// nothing. A lease that has gone to another holder is refused with ErrLeaseLost,
// a rollout whose status a person changed meanwhile with ErrRolloutState.
func (db *DB) CommitRollout(ctx context.Context, c fleet.Commit, now time.Time, sign Signer) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		if err := holdsLease(ctx, tx, c.Epoch); err != nil {
			return err
		}
		if err := saveRollout(ctx, tx, &c.Rollout); err != nil {
			return err
		}
		for _, m := range c.Members {
			if err := unsettled(ctx, tx, &m); err != nil {
				return err
			}
			if err := saveMember(ctx, tx, &m); err != nil {
				return err
			}
		}
		if err := evaluations.Insert(ctx, tx, c.Evaluations); err != nil {
			return err
		}
		if err := quarantine.Insert(ctx, tx, c.Quarantine); err != nil {
			return err
		}
		if c.Change != nil {
			if err := changeWish(ctx, tx, c, now, sign); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, c.Audit)
	})
}

func changeWish(ctx context.Context, tx *sql.Tx, c fleet.Commit, now time.Time, sign Signer) error {
	w, err := getWish(ctx, tx, c.Device)
	if err != nil {
		return err
	}
	if err := c.Change(w); err != nil {
		return err
	}
	if d, err := getDevice(ctx, tx, c.Device); err != nil {
		return err
	} else if d.Status == fleet.DeviceRetired { // it gets nothing back either
		w.Items = nil
	}
	w.Generation++
	w.Version++
	w.Changed = now
	for _, m := range c.Members { // an assignment is never newer than its wish
		if m.Assigned.After(w.Changed) {
			w.Changed = m.Assigned
		}
	}
	if err := signed(ctx, tx, w, sign); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO outbox (device) VALUES (?)`, c.Device)
	return err
}

// saveRollout writes a rollout's own row and stages, unless a person has paused
// or aborted it since it was read.
func saveRollout(ctx context.Context, tx *sql.Tx, r *fleet.Rollout) error {
	var status string
	if err := tx.QueryRowContext(ctx, `SELECT status FROM rollouts WHERE id = ?`, r.ID).Scan(&status); err != nil {
		return notFound(err, fleet.ErrRolloutUnknown)
	}
	if status != r.Status && status != fleet.RolloutRunning && (status != fleet.RolloutReverting || r.Status != fleet.RolloutReverted) {
		return fleet.ErrRolloutState.With("rollout %s has become %s", r.ID, status)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE rollouts SET status = ?, code = ?, reason = ?, stage = ?, changed = ?, finished = ? WHERE id = ?`,
		r.Status, r.Code, r.Reason, r.Stage, millis(r.Changed), millis(r.Finished), r.ID); err != nil {
		return err
	}
	for _, st := range r.Stages {
		if _, err := tx.ExecContext(ctx, `UPDATE stages SET target = ?, started = ?, baking = ?, passed = ?, held = ? WHERE rollout = ? AND idx = ?`, st.Target, millis(st.Started), millis(st.Baking), millis(st.Passed), millis(st.Held), r.ID, st.Index); err != nil {
			return err
		}
	}
	return nil
}
