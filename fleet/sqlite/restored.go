package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Restore is what one restore changes.
type Restore struct {
	Jump   int64 // added to versions and generations
	Roles  int64 // added to the least versions of the catalog's offline roles
	At     time.Time
	Sign   Signer // of wishes
	Online func(rows []fleet.MetaRow) ([]fleet.MetaRow, error)
	Audit  fleet.Audit
}

// Restored counts what a restore has changed.
type Restored struct{ Devices, Rollouts int }

// Restore makes a database from a backup ready to serve: in one transaction every
// wish jumps and is signed with every model withheld, the catalog's online roles
// are signed anew, rollouts that ran are paused.
func (db *DB) Restore(ctx context.Context, r Restore) (n Restored, err error) {
	// Read before the transaction: signing uses the readers.
	devices, err := db.Devices(ctx, fleet.DeviceFilter{})
	if err != nil {
		return n, err
	}
	catalog, err := db.AllMetadata(ctx, "catalog", "")
	if err != nil {
		return n, err
	}
	err = db.update(ctx, func(tx *sql.Tx) error {
		n = Restored{}
		for _, d := range devices {
			if err := restoreDevice(ctx, tx, d, r); err != nil {
				return err
			}
			n.Devices++
		}
		if err := restoreCatalog(ctx, tx, catalog, r); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE rollouts SET status = ?, code = ?, reason = ?, changed = ? WHERE status = ?`,
			fleet.RolloutPaused, fleet.RestoreCode, "restored from a backup: resume or abort it", millis(r.At), fleet.RolloutRunning)
		if err != nil {
			return err
		}
		paused, err := res.RowsAffected()
		if err != nil {
			return err
		}
		n.Rollouts = int(paused)
		// Whoever carried rollouts out is gone, as are hints and sessions; no capture begins anew.
		for _, q := range []string{`DELETE FROM leases`, `DELETE FROM outbox`, `UPDATE devices SET online = 0`, `UPDATE captures SET stopped = created WHERE stopped = 0`} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, r.Audit)
	})
	if err != nil {
		return n, fmt.Errorf("restore: %w", err)
	}
	return n, nil
}

func restoreDevice(ctx context.Context, tx *sql.Tx, d *fleet.Device, r Restore) error {
	if d.Status == fleet.DevicePending {
		return nil // it has no wish
	}
	w, err := getWish(ctx, tx, d.ID)
	if err != nil {
		return err
	}
	if d.Status == fleet.DeviceActive {
		// A device that was not heard of since an earlier restore keeps what that one knew.
		_, err := tx.ExecContext(ctx, `INSERT INTO restored (device, at, generation) VALUES (?, ?, ?)
 ON CONFLICT (device) DO UPDATE SET at = excluded.at, detail = '', generation = iif(reconciled = 0, generation, excluded.generation), reconciled = 0`, d.ID, millis(r.At), w.Generation)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM restored_records WHERE device = ?`, d.ID); err != nil {
			return err
		}
		w.Withheld = true
	}
	w.Generation += r.Jump
	w.Version += r.Jump
	w.Changed = r.At
	return signed(ctx, tx, w, r.Sign)
}

func restoreCatalog(ctx context.Context, tx *sql.Tx, rows []fleet.MetaRow, r Restore) error {
	if len(rows) == 0 {
		return nil
	}
	online, err := r.Online(rows)
	if err != nil {
		return err
	}
	if err := putMetadata(ctx, tx, online); err != nil {
		return err
	}
	for _, m := range rows {
		switch m.Role {
		case "root", "snapshot", "timestamp", "targets":
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO role_floors (role, version) VALUES (?, ?) ON CONFLICT (role) DO UPDATE SET version = excluded.version`, m.Role, m.Version+r.Roles); err != nil {
			return err
		}
	}
	return nil
}

// RoleFloor is the least version of a catalog role that is taken in; 0: any.
func (db *DB) RoleFloor(ctx context.Context, role string) (version int64, err error) {
	err = db.r.QueryRowContext(ctx, `SELECT version FROM role_floors WHERE role = ?`, role).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, err
}

// withheld tells whether a device was not heard of since the restore.
func withheld(ctx context.Context, q querier, device string) (out bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM restored WHERE device = ? AND reconciled = 0)`, device).Scan(&out)
	return out, err
}

// Reconcile ends the withholding of a device's wish: change sees the wish, the
// generation that the backup knew, and the device's memberships in rollouts that
// are under way; what it returns is stored and signed in one transaction.
func (db *DB) Reconcile(ctx context.Context, device string, told fleet.Told, now time.Time, change func(w *fleet.Wish, known int64, ms []fleet.Member) (*fleet.Reconciliation, error), sign Signer) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		w, err := getWish(ctx, tx, device)
		if err != nil {
			return err
		}
		known := w.Generation
		if w.Withheld {
			if err := tx.QueryRowContext(ctx, `SELECT generation FROM restored WHERE device = ?`, device).Scan(&known); err != nil {
				return err
			}
		}
		ms, err := openMembers(ctx, tx, device)
		if err != nil {
			return err
		}
		rec, err := change(w, known, ms)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO restored (device, at, generation, reconciled, detail) VALUES (?, ?, ?, ?, ?)
 ON CONFLICT (device) DO UPDATE SET reconciled = excluded.reconciled, detail = excluded.detail`, device, millis(now), known, millis(now), rec.Detail)
		if err != nil {
			return err
		}
		if w.Withheld {
			if err := expectRecords(ctx, tx, device, told); err != nil {
				return err
			}
		}
		rec.Wish.Withheld, rec.Wish.Changed = false, now
		if err := signed(ctx, tx, rec.Wish, sign); err != nil {
			return err
		}
		for _, m := range rec.Members {
			if err := saveMember(ctx, tx, &m); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, rec.Audit)
	})
}

// expectRecords notes what the device has made since the backup.
func expectRecords(ctx context.Context, tx *sql.Tx, device string, told fleet.Told) error {
	for _, q := range told.Queues {
		var known int64
		err := tx.QueryRowContext(ctx, `SELECT sequence FROM acks WHERE device = ? AND epoch = ? AND kind = ?`, device, int64(told.Epoch), string(q.Kind)).Scan(&known)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if int64(q.Last) <= known {
			continue
		}
		_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO restored_records (device, kind, epoch, known, last, next) VALUES (?, ?, ?, ?, ?, ?)`,
			device, string(q.Kind), int64(told.Epoch), known, int64(q.Last), known+1)
		if err != nil {
			return err
		}
	}
	return nil
}

// CountRestored counts a batch against what a restore has left open: what came,
// and what is skipped, which the device no longer has. It is called before the
// batch is acknowledged; a repeated batch counts once.
func (db *DB) CountRestored(ctx context.Context, device string, k wire.Kind, b *wire.Batch) error {
	epoch := int64(b.Records[0].Epoch)
	var open bool
	err := db.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM restored_records WHERE device = ? AND kind = ? AND epoch = ? AND next <= last)`, device, string(k), epoch).Scan(&open)
	if err != nil || !open {
		return err
	}
	return db.update(ctx, func(tx *sql.Tx) error {
		var last, next, received, lost uint64
		var missing string
		err := tx.QueryRowContext(ctx, `SELECT last, next, received, lost, missing FROM restored_records WHERE device = ? AND kind = ? AND epoch = ?`, device, string(k), epoch).Scan(&last, &next, &received, &lost, &missing)
		if err != nil {
			return err
		}
		for _, r := range b.Records {
			if r.Sequence < next || next > last {
				continue
			}
			if gap := min(r.Sequence, last+1) - next; gap > 0 {
				lost += gap
				missing = addRange(missing, next, next+gap-1)
			}
			if r.Sequence <= last {
				received++
			}
			next = r.Sequence + 1
		}
		_, err = tx.ExecContext(ctx, `UPDATE restored_records SET next = ?, received = ?, lost = ?, missing = ? WHERE device = ? AND kind = ? AND epoch = ?`,
			int64(next), int64(received), int64(lost), missing, device, string(k), epoch)
		return err
	})
}

// maxMissing bounds what is kept of the names of lost records, in bytes.
const maxMissing = 4096

func addRange(s string, from, to uint64) string {
	if len(s) > maxMissing {
		return s
	}
	if s != "" {
		s += " "
	}
	if from == to {
		return s + fmt.Sprint(from)
	}
	return s + fmt.Sprintf("%d-%d", from, to)
}

// RestoredDevices lists what a restore has left open and what came of it, by
// device.
func (db *DB) RestoredDevices(ctx context.Context) ([]fleet.Restored, error) {
	out, err := list(ctx, db.r, func(s scanner) (r fleet.Restored, err error) {
		var at, reconciled int64
		err = s.Scan(&r.Device, &at, &r.Generation, &reconciled, &r.Detail)
		r.At, r.Reconciled = fromMillis(at), fromMillis(reconciled)
		return r, err
	}, `SELECT device, at, generation, reconciled, detail FROM restored ORDER BY device`)
	if err != nil {
		return nil, fmt.Errorf("list restored devices: %w", err)
	}
	for i := range out {
		out[i].Records, err = list(ctx, db.r, func(s scanner) (r fleet.RestoredRecords, err error) {
			var epoch int64
			err = s.Scan(&r.Kind, &epoch, &r.Known, &r.Last, &r.Received, &r.Lost, &r.Missing)
			r.Epoch = uint64(epoch)
			return r, err
		}, `SELECT kind, epoch, known, last, received, lost, missing FROM restored_records WHERE device = ? ORDER BY kind, epoch`, out[i].Device)
		if err != nil {
			return nil, fmt.Errorf("list restored records: %w", err)
		}
	}
	return out, nil
}
