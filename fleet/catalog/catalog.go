// Package catalog is the server's side of the TUF repository that says what may
// exist (Uptane's Image repository). It takes in what publishers have signed
// offline, checks it as a device would, and signs snapshot and timestamp with its
// own online keys. It can add nothing that no publisher signed.
package catalog

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// Names of repositories and of the roles that are not top-level names of TUF.
const (
	Repo         = "catalog"
	RepoDirector = "director"
)

// Lifetimes of what the server signs.
const (
	SnapshotLife  = 30 * 24 * time.Hour
	TimestampLife = 7 * 24 * time.Hour
)

// Limits of metadata in bytes, as a device has them.
const (
	MaxRoot    = 512_000
	MaxTargets = 5_000_000
)

// Store is what the catalog needs kept.
type Store interface {
	AllMetadata(ctx context.Context, repo, owner string) ([]fleet.MetaRow, error)
	Roots(ctx context.Context, repo string) ([][]byte, error)
	// RoleFloor is the least version of a role that is taken in; 0: any.
	RoleFloor(ctx context.Context, role string) (int64, error)
	// PutMetadata stores all rows and releases or nothing; ErrCatalogStale when
	// one of expect is no longer the newest version.
	PutMetadata(ctx context.Context, rows, expect []fleet.MetaRow, releases []fleet.Release, a fleet.Audit) error
}

// Keys are the online keys of the catalog.
type Keys struct {
	Snapshot, Timestamp ed25519.PrivateKey
}

// Service is the catalog. Its methods are safe for concurrent use: the store
// refuses the later of two changes to one role.
type Service struct {
	Store Store
	Blobs bundle.Blobs
	Keys  Keys
	// Director is the public key that the director's roles must have.
	Director ed25519.PublicKey
	// Vouch refuses a bundle that does not carry the model signature which a channel
	// wants, and names who made it; "" if none is wanted. May be nil.
	Vouch func(channel string, b *bundle.Bundle, now time.Time) (signer string, err error)
	Now   func() time.Time
	Log   *slog.Logger
	// Changed is called after the catalog has changed; may be nil.
	Changed func()
	// Next are keys that are ready to take over once roots name them, nil: none. Took
	// is called when they have: roots that name them are stored. Both may be nil.
	Next func() (*Online, error)
	Took func(*Online) error

	mu   sync.RWMutex
	took *Online // in place of Keys and Director
	// delegated are the roles that a version of the targets delegates to.
	delegated struct {
		version int64
		roles   []string
	}
}

// State is the newest of everything.
type State struct {
	Rows map[string]fleet.MetaRow // by role
}

func (s *Service) state(ctx context.Context) (*State, error) {
	rows, err := s.Store.AllMetadata(ctx, Repo, "")
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	st := &State{Rows: map[string]fleet.MetaRow{}}
	for _, r := range rows {
		st.Rows[r.Role] = r
	}
	return st, nil
}

// Metadata returns the newest version of every role.
func (s *Service) Metadata(ctx context.Context) ([]fleet.MetaRow, error) {
	rows, err := s.Store.AllMetadata(ctx, Repo, "")
	if err == nil && len(rows) == 0 {
		err = fleet.ErrCatalogEmpty
	}
	for i := range rows {
		if err == nil {
			rows[i].Floor, err = s.Store.RoleFloor(ctx, rows[i].Role)
		}
	}
	return rows, err
}

// Jumped signs snapshot and timestamp over rows, jump versions above them: what a
// server does that came back from a backup.
func (s *Service) Jumped(rows []fleet.MetaRow, jump int64) ([]fleet.MetaRow, error) {
	byRole := map[string]fleet.MetaRow{}
	for _, r := range rows {
		if r.Role == metadata.SNAPSHOT || r.Role == metadata.TIMESTAMP {
			r.Version += jump
		}
		byRole[r.Role] = r
	}
	return s.online(byRole, s.inUse())
}

// refuse is a refusal of signed metadata.
func refuse(format string, args ...any) error { return fleet.ErrCatalogRefused.With(format, args...) }

// parse reads a metadata file that somebody sent: bounded, strict, and never with
// a panic of the parser.
func parse[T metadata.Roles](b []byte, limit int, empty *metadata.Metadata[T]) (md *metadata.Metadata[T], err error) {
	defer func() {
		if r := recover(); r != nil {
			md, err = nil, refuse("the metadata is not understood: %v", r)
		}
	}()
	if len(b) > limit {
		return nil, refuse("the metadata has %d bytes, at most %d are read", len(b), limit)
	}
	if err := trust.Strict(b); err != nil {
		return nil, refuse("the metadata is not strict JSON: %v", err)
	}
	if _, err := empty.FromBytes(b); err != nil {
		return nil, refuse("the metadata is not understood: %v", err)
	}
	return empty, nil
}

// metaFile describes a file with length and hash, always: a device compares both
// before it parses.
func metaFile(version int64, b []byte) *metadata.MetaFiles {
	h := bundle.DigestOf(b)
	var hash metadata.HexBytes
	json.Unmarshal([]byte(`"`+h[len("sha256:"):]+`"`), &hash) // hex of our own making
	return &metadata.MetaFiles{Version: version, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": hash}}
}

// row signs a role with one online key.
func row[T metadata.Roles](role string, version int64, md *metadata.Metadata[T], key ed25519.PrivateKey) (fleet.MetaRow, error) {
	signer, err := signature.LoadED25519Signer(key)
	if err != nil {
		return fleet.MetaRow{}, err
	}
	if _, err := md.Sign(signer); err != nil {
		return fleet.MetaRow{}, fmt.Errorf("sign %s: %w", role, err)
	}
	b, err := md.ToBytes(false)
	return fleet.MetaRow{Repo: Repo, Role: role, Version: version, Bytes: b}, err
}

// online makes the next snapshot over the given rows and the timestamp over it.
func (s *Service) online(rows map[string]fleet.MetaRow, o Online) ([]fleet.MetaRow, error) {
	now := s.Now().UTC().Truncate(time.Second)
	snapshotVersion, timestampVersion := rows[metadata.SNAPSHOT].Version+1, rows[metadata.TIMESTAMP].Version+1
	snap := metadata.Snapshot(now.Add(SnapshotLife))
	snap.Signed.Version = snapshotVersion
	snap.Signed.Meta = map[string]*metadata.MetaFiles{}
	for role, r := range rows {
		switch role {
		case metadata.ROOT, metadata.SNAPSHOT, metadata.TIMESTAMP:
		default:
			snap.Signed.Meta[role+".json"] = metaFile(r.Version, r.Bytes)
		}
	}
	sr, err := row(metadata.SNAPSHOT, snapshotVersion, snap, o.Snapshot)
	if err != nil {
		return nil, err
	}
	tr, err := s.timestamp(sr, timestampVersion, o)
	return []fleet.MetaRow{sr, tr}, err
}

func (s *Service) timestamp(snapshot fleet.MetaRow, version int64, o Online) (fleet.MetaRow, error) {
	now := s.Now().UTC().Truncate(time.Second)
	ts := metadata.Timestamp(now.Add(TimestampLife))
	ts.Signed.Version = version
	ts.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": metaFile(snapshot.Version, snapshot.Bytes)}
	return row(metadata.TIMESTAMP, version, ts, o.Timestamp)
}

// Resign signs snapshot and timestamp anew when half of the life of either is
// over. It is called in regular pauses.
func (s *Service) Resign(ctx context.Context) error {
	st, err := s.state(ctx)
	if err != nil || len(st.Rows) == 0 {
		return err
	}
	ts, err := parse(st.Rows[metadata.TIMESTAMP].Bytes, MaxTargets, metadata.Timestamp())
	if err != nil {
		return err
	}
	snap, err := parse(st.Rows[metadata.SNAPSHOT].Bytes, MaxTargets, metadata.Snapshot())
	if err != nil {
		return err
	}
	now := s.Now()
	if ts.Signed.Expires.Sub(now) > TimestampLife/2 && snap.Signed.Expires.Sub(now) > SnapshotLife/2 {
		return nil
	}
	rows, err := s.online(st.Rows, s.inUse())
	if err != nil {
		return err
	}
	expect := []fleet.MetaRow{st.Rows[metadata.SNAPSHOT], st.Rows[metadata.TIMESTAMP]}
	if err := s.Store.PutMetadata(ctx, rows, expect, nil, fleet.Audit{}); err != nil {
		return fmt.Errorf("sign the catalog anew: %w", err)
	}
	s.Log.Info("catalog signed anew", "timestamp", rows[1].Version)
	s.changed()
	return nil
}

func (s *Service) changed() {
	if s.Changed != nil {
		s.Changed()
	}
}
