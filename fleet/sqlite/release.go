package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
)

const releaseColumns = `id, channel, digest, length, release, blobs, published`

func scanRelease(s scanner) (*fleet.Release, error) {
	var r fleet.Release
	var release, blobs string
	var published int64
	if err := s.Scan(&r.ID, &r.Channel, &r.Digest, &r.Length, &release, &blobs, &published); err != nil {
		return nil, err
	}
	r.Published = fromMillis(published)
	if err := json.Unmarshal([]byte(release), &r.Release); err != nil {
		return nil, err
	}
	return &r, json.Unmarshal([]byte(blobs), &r.Blobs)
}

func insertRelease(ctx context.Context, tx *sql.Tx, r *fleet.Release) error {
	release, err := jsonText(r.Release)
	if err != nil {
		return err
	}
	blobs, err := jsonText(r.Blobs)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO releases (id, channel, model, version, kind, counter, digest, length, release, blobs, published) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.ID, r.Channel, r.Model, r.Version, r.Kind, r.Counter, r.Digest, r.Length, release, blobs, millis(r.Published))
	return err
}

// Releases lists releases by model, channel and falling counter.
func (db *DB) Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error) {
	return list(ctx, db.r, scanRelease, `SELECT `+releaseColumns+` FROM releases WHERE (? = '' OR channel = ?) AND (? = '' OR model = ?) AND (? = '' OR kind = ?) ORDER BY model, channel, counter DESC`,
		f.Channel, f.Channel, f.Model, f.Model, f.Kind, f.Kind)
}

// Release returns ErrReleaseUnknown when the channel has no such release.
func (db *DB) Release(ctx context.Context, channel, model, version string) (*fleet.Release, error) {
	return getRelease(ctx, db.r, channel, model, version)
}

func getRelease(ctx context.Context, q querier, channel, model, version string) (*fleet.Release, error) {
	r, err := scanRelease(q.QueryRowContext(ctx, `SELECT `+releaseColumns+` FROM releases WHERE channel = ? AND model = ? AND version = ?`, channel, model, version))
	return r, notFound(err, fleet.ErrReleaseUnknown.With("channel %s has no %s %s", channel, model, version))
}

// ReleaseByPath finds a release by its name in the catalog.
func (db *DB) ReleaseByPath(ctx context.Context, path string) (*fleet.Release, error) {
	parts := strings.Split(path, "/")
	if len(parts) != 3 {
		return nil, fleet.ErrReleaseUnknown.With("no release %q", path)
	}
	return getRelease(ctx, db.r, parts[0], parts[1], parts[2])
}
