// Package sqlite keeps everything that the server knows in one SQLite file: WAL,
// one writer, synced at every commit. An exported method is one transaction; what
// it returns is committed. Migrations are numbered and only go forward.
//
// A DB is safe for concurrent use.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/acks"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/captures"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/evaluations"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/quarantine"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/samples"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is the open database.
type DB struct {
	w, r *sql.DB // w is one connection
	samples.Table
	captures.Rows
	acks.Ledger
	evaluations.Evaluations
	quarantine.List
}

// uri is a path as SQLite reads it: a '#' or a '?' in it is part of the name.
func uri(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() }

// Open opens or makes the database file and brings it to the newest schema.
func Open(ctx context.Context, path string) (*DB, error) {
	const pragmas = "?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)&_txlock=immediate&_pragma=synchronous("
	w, err := sql.Open("sqlite", uri(path)+pragmas+"FULL)")
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	w.SetMaxOpenConns(1)
	if err := migrate(ctx, w); err != nil {
		w.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	r, err := sql.Open("sqlite", uri(path)+pragmas+"NORMAL)&_pragma=query_only(1)")
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	r.SetMaxOpenConns(4)
	return &DB{w, r, samples.Table{W: w, R: r}, captures.Rows{W: w, R: r}, acks.Ledger{W: w, R: r}, evaluations.Evaluations{W: w, R: r}, quarantine.List{W: w, R: r}}, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close ends all use.
func (db *DB) Close() error {
	if db.w == nil { // of OpenReader
		return db.r.Close()
	}
	return errors.Join(db.r.Close(), db.w.Close())
}

// update runs change in one transaction of the writer.
func (db *DB) update(ctx context.Context, change func(*sql.Tx) error) error {
	tx, err := db.w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := change(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// hit runs a change that has to concern a row, else it returns none.
func hit(ctx context.Context, tx *sql.Tx, none error, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, none)
	}
	return nil
}

// querier is a transaction or the readers.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// list reads every row of a query.
func list[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// jsonText encodes what the domain keeps in one column.
func jsonText(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// notFound turns the absence of a row into the domain's error.
func notFound(err error, want *fleet.Error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return want
	}
	return err
}

func addAudit(ctx context.Context, tx *sql.Tx, a fleet.Audit) error {
	if a.ID == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO audit (id, at, actor, act, object, detail) VALUES (?, ?, ?, ?, ?, ?)`, a.ID, millis(a.At), a.Actor, a.Act, a.Object, a.Detail)
	return err
}
