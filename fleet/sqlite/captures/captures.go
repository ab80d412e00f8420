// Package captures keeps captures and what is known of captured inputs in the
// server's database; the inputs themselves are blobs.
package captures

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Rows are the tables of captures. They are safe for concurrent use; W is nil where
// nothing is written.
type Rows struct {
	W, R *sql.DB
}

// change runs f in one transaction and writes the act's audit row in it, if a has an
// id.
func (t Rows) change(ctx context.Context, a fleet.Audit, f func(*sql.Tx) error) error {
	tx, err := t.W.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("captures: %w", err)
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	if a.ID != "" {
		if _, err := tx.ExecContext(ctx, `INSERT INTO audit (id, at, actor, act, object, detail) VALUES (?, ?, ?, ?, ?, ?)`, a.ID, a.At.UnixMilli(), a.Actor, a.Act, a.Object, a.Detail); err != nil {
			return fmt.Errorf("captures: %w", err)
		}
	}
	return tx.Commit()
}

// CreateCapture stores a capture.
func (t Rows) CreateCapture(ctx context.Context, c *fleet.Capture, a fleet.Audit) error {
	spec, err := json.Marshal(c.Spec)
	if err != nil {
		return err
	}
	return t.change(ctx, a, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO captures (id, spec, actor, created, expires) VALUES (?, ?, ?, ?, ?)`, c.ID, string(spec), c.By, c.Created.UnixMilli(), c.Expires.UnixMilli())
		return err
	})
}

// StopCapture has no more inputs kept for a capture; ErrCaptureUnknown without one.
func (t Rows) StopCapture(ctx context.Context, id string, at time.Time, a fleet.Audit) error {
	return t.change(ctx, a, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE captures SET stopped = ? WHERE id = ? AND stopped = 0`, at.UnixMilli(), id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		var one int
		if err := tx.QueryRowContext(ctx, `SELECT 1 FROM captures WHERE id = ?`, id).Scan(&one); errors.Is(err, sql.ErrNoRows) {
			return fleet.ErrCaptureUnknown
		} else if err != nil {
			return err
		}
		return nil // it was stopped before
	})
}

const captureColumns = `SELECT c.id, c.spec, c.actor, c.created, c.expires, c.stopped, c.refused,
  (SELECT count(*) FROM captured s WHERE s.capture = c.id AND s.whole = 1), (SELECT coalesce(sum(s.bytes), 0) FROM captured s WHERE s.capture = c.id) FROM captures c`

// Captures lists captures, the newest first.
func (t Rows) Captures(ctx context.Context) ([]fleet.Capture, error) {
	rows, err := t.R.QueryContext(ctx, captureColumns+` ORDER BY c.id DESC`)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	defer rows.Close()
	var out []fleet.Capture
	for rows.Next() {
		c, err := scanCapture(rows)
		if err != nil {
			return nil, fmt.Errorf("captures: %w", err)
		}
		out = append(out, *c)
	}
	return out, rows.Err()
}

// Capture returns one; ErrCaptureUnknown without it.
func (t Rows) Capture(ctx context.Context, id string) (*fleet.Capture, error) {
	c, err := scanCapture(t.R.QueryRowContext(ctx, captureColumns+` WHERE c.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fleet.ErrCaptureUnknown
	}
	return c, err
}

func scanCapture(row interface{ Scan(...any) error }) (*fleet.Capture, error) {
	var c fleet.Capture
	var spec string
	var created, expires, stopped int64
	if err := row.Scan(&c.ID, &spec, &c.By, &created, &expires, &stopped, &c.Refused, &c.Samples, &c.Bytes); err != nil {
		return nil, err
	}
	c.Created, c.Expires = time.UnixMilli(created).UTC(), time.UnixMilli(expires).UTC()
	if stopped > 0 {
		c.Stopped = time.UnixMilli(stopped).UTC()
	}
	return &c, json.Unmarshal([]byte(spec), &c.Spec)
}

// CaptureDevices lists what devices brought to a capture.
func (t Rows) CaptureDevices(ctx context.Context, id string) ([]fleet.CaptureDevice, error) {
	rows, err := t.R.QueryContext(ctx, `SELECT device, sum(whole), sum(bytes), max(at) FROM captured WHERE capture = ? GROUP BY device ORDER BY device`, id)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	defer rows.Close()
	var out []fleet.CaptureDevice
	for rows.Next() {
		var d fleet.CaptureDevice
		var last int64
		if err := rows.Scan(&d.Device, &d.Samples, &d.Bytes, &last); err != nil {
			return nil, fmt.Errorf("captures: %w", err)
		}
		d.Last = time.Unix(last, 0).UTC()
		out = append(out, d)
	}
	return out, rows.Err()
}

// CapturedBytes is how much all captures together take.
func (t Rows) CapturedBytes(ctx context.Context) (n int64, err error) {
	err = t.R.QueryRowContext(ctx, `SELECT coalesce(sum(bytes), 0) FROM captured`).Scan(&n)
	return n, err
}

// AddCaptured stores parts of samples, of each only what is within its capture's
// bounds; the others are counted as refused. Repeats change nothing. It tells which
// blobs nothing names.
func (t Rows) AddCaptured(ctx context.Context, parts []fleet.CapturePart, now time.Time) (unused []string, err error) {
	err = t.change(ctx, fleet.Audit{}, func(tx *sql.Tx) error {
		unused = nil
		for i := range parts {
			taken, err := addPart(ctx, tx, &parts[i], now)
			if err != nil {
				return fmt.Errorf("captures: %w", err)
			}
			if !taken && parts[i].Blob != "" {
				unused = append(unused, parts[i].Blob)
			}
		}
		unused, err = without(ctx, tx, unused)
		return err
	})
	return unused, err
}

// addPart stores one part and tells whether it is within the bounds.
func addPart(ctx context.Context, tx *sql.Tx, p *fleet.CapturePart, now time.Time) (bool, error) {
	r := p.Record
	r.Bytes = nil
	c, err := scanCapture(tx.QueryRowContext(ctx, captureColumns+` WHERE c.id = ?`, r.Capture))
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil // erased meanwhile
	}
	if err != nil {
		return false, err
	}
	var body []byte
	err = tx.QueryRowContext(ctx, `SELECT body FROM captured WHERE capture = ? AND device = ? AND sample = ?`, r.Capture, p.Device, r.Sample).Scan(&body)
	known := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	if r.Parts == 0 {
		return known, said(ctx, tx, p, body)
	}
	if !known {
		var used int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(bytes), 0) FROM captured WHERE capture = ? AND device = ?`, r.Capture, p.Device).Scan(&used); err != nil {
			return false, err
		}
		if !now.Before(c.Expires) || c.Samples >= c.Spec.Max || used+r.Size() > c.Spec.MBPerDevice<<20 {
			_, err := tx.ExecContext(ctx, `UPDATE captures SET refused = refused + 1 WHERE id = ?`, c.ID)
			return false, err
		}
		part := r.Part
		r.Part = 0
		if body, err = encode(&r); err != nil {
			return false, err
		}
		r.Part = part
		if _, err := tx.ExecContext(ctx, `INSERT INTO captured (capture, device, sample, at, bytes, body) VALUES (?, ?, ?, ?, ?, ?)`, r.Capture, p.Device, r.Sample, r.Unix, r.Size(), body); err != nil {
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO captured_parts (capture, device, sample, part, blob) VALUES (?, ?, ?, ?, ?)`, r.Capture, p.Device, r.Sample, r.Part, p.Blob); err != nil {
		return false, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE captured SET whole = (SELECT count(*) FROM captured_parts WHERE capture = ?1 AND device = ?2 AND sample = ?3) >= ?4 WHERE capture = ?1 AND device = ?2 AND sample = ?3`,
		r.Capture, p.Device, r.Sample, r.Parts)
	return true, err
}

// said writes what was said of a sample into it.
func said(ctx context.Context, tx *sql.Tx, p *fleet.CapturePart, body []byte) error {
	if body == nil {
		return nil
	}
	about, err := decode(body)
	if err != nil {
		return err
	}
	about.Feedback, about.Label = p.Record.Feedback, p.Record.Label
	if body, err = encode(about); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE captured SET body = ? WHERE capture = ? AND device = ? AND sample = ?`, body, p.Record.Capture, p.Device, p.Record.Sample)
	return err
}

// stored is a sample's description; it has its own type because it is no message,
// whose parts are checked.
type stored wire.Captured

func encode(c *wire.Captured) ([]byte, error) { return wire.Encode((*stored)(c)) }

func decode(b []byte) (*wire.Captured, error) {
	var s stored
	if err := wire.Decode(b, &s); err != nil {
		return nil, err
	}
	return (*wire.Captured)(&s), nil
}

// CapturedSamples lists the whole samples of a capture by device and id, those
// behind after.
func (t Rows) CapturedSamples(ctx context.Context, id, after string, limit int) ([]fleet.CapturedSample, error) {
	device, sample := split(after)
	rows, err := t.R.QueryContext(ctx, `SELECT device, sample, at, body FROM captured WHERE capture = ? AND whole = 1 AND (device, sample) > (?, ?) ORDER BY device, sample LIMIT ?`, id, device, sample, limit)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	defer rows.Close()
	var out []fleet.CapturedSample
	for rows.Next() {
		s, err := scanSample(rows, id)
		if err != nil {
			return nil, fmt.Errorf("captures: %w", err)
		}
		out = append(out, *s)
	}
	return out, rows.Err()
}

// split cuts "device/sample".
func split(after string) (device string, sample []byte) {
	for i := len(after) - 1; i >= 0; i-- {
		if after[i] == '/' {
			b, err := hex.DecodeString(after[i+1:])
			if err == nil {
				return after[:i], b
			}
		}
	}
	return "", []byte{}
}

func scanSample(row interface{ Scan(...any) error }, id string) (*fleet.CapturedSample, error) {
	s := &fleet.CapturedSample{Capture: id}
	var sample, body []byte
	var at int64
	if err := row.Scan(&s.Device, &sample, &at, &body); err != nil {
		return nil, err
	}
	about, err := decode(body)
	if err != nil {
		return nil, err
	}
	s.Sample, s.At, s.About = hex.EncodeToString(sample), time.Unix(at, 0).UTC(), *about
	return s, nil
}

// CapturedSample returns a whole sample with its blobs; ErrCaptureUnknown without it.
func (t Rows) CapturedSample(ctx context.Context, id, device, sample string) (*fleet.CapturedSample, error) {
	key, err := hex.DecodeString(sample)
	if err != nil {
		return nil, fleet.ErrCaptureUnknown.With("%q is no sample", sample)
	}
	s, err := scanSample(t.R.QueryRowContext(ctx, `SELECT device, sample, at, body FROM captured WHERE capture = ? AND device = ? AND sample = ? AND whole = 1`, id, device, key), id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fleet.ErrCaptureUnknown.With("capture %s has no such sample", id)
	}
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	s.Blobs, err = blobs(ctx, t.R, `SELECT blob FROM captured_parts WHERE capture = ? AND device = ? AND sample = ? ORDER BY part`, id, device, key)
	return s, err
}

// EraseCaptured erases a capture, a device's samples of all captures, or, with a
// time, every capture that is over by then, and tells which blobs nothing names any
// more.
func (t Rows) EraseCaptured(ctx context.Context, e fleet.Erase, over time.Time, a fleet.Audit) (samples int64, unused []string, err error) {
	where, args := `capture IN (SELECT id FROM captures WHERE expires <= ?)`, []any{over.UnixMilli()}
	switch {
	case e.Capture != "":
		where, args = `capture = ?`, []any{e.Capture}
	case e.Device != "":
		where, args = `device = ?`, []any{e.Device}
	}
	err = t.change(ctx, a, func(tx *sql.Tx) error {
		named, err := blobs(ctx, tx, `SELECT DISTINCT blob FROM captured_parts WHERE `+where, args...)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM captured_parts WHERE `+where, args...); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM captured WHERE `+where, args...)
		if err != nil {
			return err
		}
		if samples, err = res.RowsAffected(); err != nil {
			return err
		}
		switch {
		case e.Capture != "":
			res, err = tx.ExecContext(ctx, `DELETE FROM captures WHERE id = ?`, e.Capture)
			if err == nil {
				if n, _ := res.RowsAffected(); n == 0 {
					err = fleet.ErrCaptureUnknown
				}
			}
		case e.Device == "":
			_, err = tx.ExecContext(ctx, `DELETE FROM captures WHERE expires <= ?`, over.UnixMilli())
		}
		if err != nil {
			return err
		}
		unused, err = without(ctx, tx, named)
		return err
	})
	return samples, unused, err
}

// NamedBlob tells whether some sample has a blob.
func (t Rows) NamedBlob(ctx context.Context, digest string) (bool, error) {
	var named bool
	err := t.R.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM captured_parts WHERE blob = ?)`, digest).Scan(&named)
	return named, err
}

// without leaves out blobs that are named.
func without(ctx context.Context, tx *sql.Tx, list []string) ([]string, error) {
	var out []string
	for _, b := range list {
		var named bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM captured_parts WHERE blob = ?)`, b).Scan(&named); err != nil {
			return nil, err
		}
		if !named {
			out = append(out, b)
		}
	}
	return out, nil
}

func blobs(ctx context.Context, q interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var b string
		if err := rows.Scan(&b); err != nil {
			return nil, fmt.Errorf("captures: %w", err)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}
