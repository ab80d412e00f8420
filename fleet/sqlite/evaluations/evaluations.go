// Package evaluations keeps what gates were judged on in the server's database.
package evaluations

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Evaluations is the table of evaluations. It is safe for concurrent use; W is nil
// where nothing is written.
type Evaluations struct {
	W, R *sql.DB
}

// Insert stores evaluations in a transaction.
func Insert(ctx context.Context, tx *sql.Tx, gs []fleet.GateEvaluation) error {
	for _, g := range gs {
		if _, err := tx.ExecContext(ctx, `INSERT INTO gate_evaluations (rollout, stage, gate, at, verdict, evidence) VALUES (?, ?, ?, ?, ?, ?)`, g.Rollout, g.Stage, g.Gate, g.At.UnixMilli(), g.Verdict, g.Evidence); err != nil {
			return fmt.Errorf("store evaluation of gate %s: %w", g.Gate, err)
		}
	}
	return nil
}

// AddEvaluations stores those whose evidence is not that of the newest of their gate.
// A lease that has gone to another holder is refused with ErrLeaseLost.
func (e Evaluations) AddEvaluations(ctx context.Context, epoch int64, gs []fleet.GateEvaluation) error {
	tx, err := e.W.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var have int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT epoch FROM leases WHERE name = 'rollouts'), 0)`).Scan(&have); err != nil {
		return fmt.Errorf("store evaluations: %w", err)
	}
	if have != epoch {
		return fleet.ErrLeaseLost
	}
	var fresh []fleet.GateEvaluation
	for _, g := range gs {
		var same bool
		err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT stage = ? AND evidence = ? FROM gate_evaluations WHERE rollout = ? AND gate = ? ORDER BY n DESC LIMIT 1), 0)`, g.Stage, g.Evidence, g.Rollout, g.Gate).Scan(&same)
		if err != nil {
			return fmt.Errorf("store evaluations: %w", err)
		}
		if !same {
			fresh = append(fresh, g)
		}
	}
	if err := Insert(ctx, tx, fresh); err != nil {
		return err
	}
	return tx.Commit()
}

// GateEvaluations lists what gates were judged on, in order.
func (e Evaluations) GateEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error) {
	return e.list(ctx, `SELECT rollout, stage, gate, at, verdict, evidence FROM gate_evaluations WHERE rollout = ? ORDER BY n`, rollout)
}

// NewestEvaluations lists the newest evaluation of each gate of a rollout.
func (e Evaluations) NewestEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error) {
	return e.list(ctx, `SELECT rollout, stage, gate, at, verdict, evidence FROM gate_evaluations WHERE n IN (SELECT max(n) FROM gate_evaluations WHERE rollout = ? GROUP BY gate) ORDER BY gate`, rollout)
}

func (e Evaluations) list(ctx context.Context, query string, args ...any) ([]fleet.GateEvaluation, error) {
	rows, err := e.R.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read evaluations: %w", err)
	}
	defer rows.Close()
	var out []fleet.GateEvaluation
	for rows.Next() {
		var g fleet.GateEvaluation
		var at int64
		if err := rows.Scan(&g.Rollout, &g.Stage, &g.Gate, &at, &g.Verdict, &g.Evidence); err != nil {
			return nil, fmt.Errorf("read evaluations: %w", err)
		}
		g.At = time.UnixMilli(at).UTC()
		out = append(out, g)
	}
	return out, rows.Err()
}
