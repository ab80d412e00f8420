package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet/sqlite/acks"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/captures"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/evaluations"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/quarantine"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/samples"
)

// Backup writes a copy of the database at one moment into a new file, while
// another process may serve it, and returns its schema number. The copy is
// checked.
func Backup(ctx context.Context, from, into string) (schema int64, err error) {
	db, err := sql.Open("sqlite", uri(from)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return 0, fmt.Errorf("back up database: %w", err)
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, into)
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, fmt.Errorf("back up database: %w", err)
	}
	return Check(ctx, into)
}

// Check looks at every page of a database that nobody uses and returns its schema
// number. The file is not changed.
func Check(ctx context.Context, file string) (schema int64, err error) {
	db, err := sql.Open("sqlite", uri(file)+"?mode=ro&immutable=1")
	if err != nil {
		return 0, fmt.Errorf("check database: %w", err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil || verdict != "ok" {
		return 0, fmt.Errorf("check database: %q, %w", verdict, errors.Join(err, ErrDamaged))
	}
	if err := db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&schema); err != nil {
		return 0, fmt.Errorf("check database: %w", errors.Join(err, ErrDamaged))
	}
	return schema, nil
}

// ErrDamaged says that a database file is not whole.
var ErrDamaged = errors.New("the database is damaged")

// Schema is the newest schema number that this program knows.
func Schema() int64 {
	names, _ := fs.Glob(migrations, "migrations/*.sql") // of files that are built in
	var newest int64
	for _, n := range names {
		number, _, _ := strings.Cut(path.Base(n), "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err == nil {
			newest = max(newest, v)
		}
	}
	return newest
}

// Blobs lists the digests that the releases of a database name, with repeats.
// Nobody uses the file.
func Blobs(ctx context.Context, file string) ([]string, error) {
	db, err := sql.Open("sqlite", uri(file)+"?mode=ro&immutable=1")
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	defer db.Close()
	out, err := list(ctx, db, func(s scanner) (d string, err error) { return d, s.Scan(&d) }, `SELECT value FROM releases, json_each(releases.blobs) WHERE value IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return out, nil
}

// OpenReader opens a database for reading only, as it is, while another process
// may serve it.
func OpenReader(ctx context.Context, file string) (*DB, error) {
	r, err := sql.Open("sqlite", uri(file)+"?mode=rw&_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err == nil {
		err = r.PingContext(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return &DB{r: r, Table: samples.Table{R: r}, Rows: captures.Rows{R: r}, Ledger: acks.Ledger{R: r}, Evaluations: evaluations.Evaluations{R: r}, List: quarantine.List{R: r}}, nil
}
