// Package samples keeps the windows of measurement in the server's database.
package samples

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Table is the table of samples. It is safe for concurrent use; W is nil where
// nothing is written.
type Table struct {
	W, R *sql.DB
}

// InsertSamples stores samples in one transaction; repeats change nothing.
func (t Table) InsertSamples(ctx context.Context, ss []fleet.Sample) error {
	tx, err := t.W.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, s := range ss {
		body, err := wire.Encode(&s.Sample)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO samples (device, epoch, sequence, start, model, body) VALUES (?, ?, ?, ?, ?, ?)`, s.Device, int64(s.Epoch), int64(s.Sequence), s.Sample.Start, s.Sample.Model, body); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Samples lists a device's samples that start at or after a time in seconds, in
// order.
func (t Table) Samples(ctx context.Context, device string, since int64, limit int) ([]fleet.Sample, error) {
	var out []fleet.Sample
	err := t.each(ctx, func(x *fleet.Sample) error { out = append(out, *x); return nil },
		`SELECT device, epoch, sequence, body FROM samples WHERE device = ? AND start >= ? ORDER BY start, sequence LIMIT ?`, device, since, limit)
	return out, err
}

// ModelSamples gives every device's samples of a model that start at or after a
// time in seconds, one after the other and in no order; an error of each ends it.
func (t Table) ModelSamples(ctx context.Context, model string, since int64, each func(*fleet.Sample) error) error {
	return t.each(ctx, each, `SELECT device, epoch, sequence, body FROM samples WHERE model = ? AND start >= ?`, model, since)
}

// SamplesOf gives the samples of a model on some devices, and those about their hosts,
// that start at or after a time in seconds, in no order; an error of each ends it.
func (t Table) SamplesOf(ctx context.Context, model string, devices []string, since int64, each func(*fleet.Sample) error) error {
	names, err := json.Marshal(devices)
	if err != nil {
		return err
	}
	return t.each(ctx, each, `SELECT device, epoch, sequence, body FROM samples WHERE device IN (SELECT value FROM json_each(?)) AND start >= ? AND model IN (?, '')`, string(names), since, model)
}

// DaysOn counts for some devices since a time in seconds.
func (t Table) DaysOn(ctx context.Context, devices []string, since, now int64) (map[string]fleet.DaysOn, error) {
	names, err := json.Marshal(devices)
	if err != nil {
		return nil, err
	}
	rows, err := t.R.QueryContext(ctx, `SELECT device, start / 3600 % 24 AS h, count(DISTINCT (start - ?2) / 86400), min(start) FROM samples
 WHERE device IN (SELECT value FROM json_each(?1)) AND start BETWEEN ?2 AND ?3 GROUP BY device, h`, string(names), since, now)
	if err != nil {
		return nil, fmt.Errorf("read hours: %w", err)
	}
	defer rows.Close()
	out, first := map[string]fleet.DaysOn{}, map[string]int64{}
	for rows.Next() {
		var device string
		var hour, days int
		var least int64
		if err := rows.Scan(&device, &hour, &days, &least); err != nil {
			return nil, fmt.Errorf("read hours: %w", err)
		}
		d := out[device]
		d.Hours[hour] = days
		if at, ok := first[device]; !ok || least < at {
			first[device] = least
			d.Of = int((now - least) / 86400)
		}
		out[device] = d
	}
	return out, rows.Err()
}

func (t Table) each(ctx context.Context, take func(*fleet.Sample) error, query string, args ...any) error {
	rows, err := t.R.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	defer rows.Close()
	var body sql.RawBytes
	for rows.Next() {
		var x fleet.Sample
		var epoch, sequence int64
		if err := rows.Scan(&x.Device, &epoch, &sequence, &body); err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		x.Epoch, x.Sequence = uint64(epoch), uint64(sequence)
		if err := wire.Decode(body, &x.Sample); err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		if err := take(&x); err != nil {
			return err
		}
	}
	return rows.Err()
}
