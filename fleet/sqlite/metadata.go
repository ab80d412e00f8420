package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Metadata returns the newest version of a role, 0 and nil when there is none.
// The owner is the device of a director repository, empty for the catalog and for
// the director's roots.
func (db *DB) Metadata(ctx context.Context, repo, owner, role string) (version int64, b []byte, err error) {
	return newestMetadata(ctx, db.r, repo, owner, role)
}

func newestMetadata(ctx context.Context, q querier, repo, owner, role string) (version int64, b []byte, err error) {
	err = q.QueryRowContext(ctx, `SELECT version, bytes FROM metadata WHERE repo = ? AND owner = ? AND role = ? ORDER BY version DESC LIMIT 1`, repo, owner, role).Scan(&version, &b)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	return version, b, err
}

// AllMetadata returns the newest version of every role of an owner.
func (db *DB) AllMetadata(ctx context.Context, repo, owner string) ([]fleet.MetaRow, error) {
	return list(ctx, db.r, scanMeta, `SELECT repo, owner, role, version, bytes FROM metadata m WHERE repo = ? AND owner = ?
 AND version = (SELECT max(version) FROM metadata WHERE repo = m.repo AND owner = m.owner AND role = m.role) ORDER BY role`, repo, owner)
}

func scanMeta(s scanner) (fleet.MetaRow, error) {
	var m fleet.MetaRow
	return m, s.Scan(&m.Repo, &m.Owner, &m.Role, &m.Version, &m.Bytes)
}

// Roots returns every root of a repository, oldest first.
func (db *DB) Roots(ctx context.Context, repo string) ([][]byte, error) {
	return list(ctx, db.r, func(s scanner) (b []byte, err error) { return b, s.Scan(&b) },
		`SELECT bytes FROM metadata WHERE repo = ? AND owner = '' AND role = 'root' ORDER BY version`, repo)
}

// putMetadata stores a version; the newest of every role is kept, and every root.
func putMetadata(ctx context.Context, tx *sql.Tx, rows []fleet.MetaRow) error {
	for _, m := range rows {
		if _, err := tx.ExecContext(ctx, `INSERT INTO metadata (repo, owner, role, version, bytes) VALUES (?, ?, ?, ?, ?)`, m.Repo, m.Owner, m.Role, m.Version, m.Bytes); err != nil {
			return fmt.Errorf("store %s %s version %d: %w", m.Repo, m.Role, m.Version, err)
		}
		if m.Role == "root" {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM metadata WHERE repo = ? AND owner = ? AND role = ? AND version < ?`, m.Repo, m.Owner, m.Role, m.Version); err != nil {
			return err
		}
	}
	return nil
}

// PutMetadata stores versions and releases in one transaction. Expect names the
// versions that the change was made against; ErrCatalogStale when one of them has
// risen meanwhile.
func (db *DB) PutMetadata(ctx context.Context, rows []fleet.MetaRow, expect []fleet.MetaRow, releases []fleet.Release, a fleet.Audit) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		for _, e := range expect {
			v, _, err := newestMetadata(ctx, tx, e.Repo, e.Owner, e.Role)
			if err != nil {
				return err
			}
			if v != e.Version {
				return fleet.ErrCatalogStale.With("%s %s is at version %d, not %d", e.Repo, e.Role, v, e.Version)
			}
		}
		if err := putMetadata(ctx, tx, rows); err != nil {
			return err
		}
		for i := range releases {
			if err := insertRelease(ctx, tx, &releases[i]); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}
