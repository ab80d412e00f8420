package catalog

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Amendment is what holders have changed after the ceremony: the next version of any
// of the files that they sign. What is absent stays.
type Amendment struct {
	CatalogRoot  []byte            `json:"catalog_root,omitempty"`
	DirectorRoot []byte            `json:"director_root,omitempty"`
	Targets      []byte            `json:"targets,omitempty"`
	Roles        map[string][]byte `json:"roles,omitempty"` // by name
}

// Amend takes in an amendment, all of it or nothing. A root is signed by the
// thresholds of the one before and of its own; targets by the newest root, roles by
// the newest targets, also those that stay. Models may go from one team to another of
// their channel: the role that gets them has what was published of them, and their
// floors. Else no release comes or goes, and no floor falls. Snapshot and timestamp follow in the same transaction. The same amendment
// again changes nothing.
func (s *Service) Amend(ctx context.Context, a *Amendment, actor string) error {
	st, err := s.state(ctx)
	if err != nil {
		return err
	}
	if len(st.Rows) == 0 {
		return fleet.ErrCatalogEmpty
	}
	director, err := s.DirectorRoot(ctx)
	if err != nil {
		return err
	}
	if a.here(st, director) {
		return nil
	}
	var rows, expect []fleet.MetaRow
	take := func(r fleet.MetaRow, was fleet.MetaRow) {
		rows, expect = append(rows, r), append(expect, was)
	}
	root, err := s.nextRoot(a.CatalogRoot, st.Rows[metadata.ROOT], take)
	if err != nil {
		return err
	}
	other, err := s.nextRoot(a.DirectorRoot, director, take)
	if err != nil {
		return err
	}
	keys, next, err := s.chosen(root, other)
	if err != nil {
		return err
	}
	targets, err := s.nextTargets(a.Targets, st.Rows[metadata.TARGETS], root, take)
	if err != nil {
		return err
	}
	if err := s.nextRoles(ctx, a.Roles, st, targets, take); err != nil {
		return err
	}
	if len(rows) == 0 {
		return refuse("the amendment holds nothing")
	}
	expect = append(expect, st.Rows[metadata.SNAPSHOT], st.Rows[metadata.TIMESTAMP])
	var changed []string
	for _, r := range rows {
		if r.Repo == Repo {
			st.Rows[r.Role] = r
		}
		changed = append(changed, fmt.Sprintf("%s/%s %d", r.Repo, r.Role, r.Version))
	}
	online, err := s.online(st.Rows, keys)
	if err != nil {
		return err
	}
	now := s.Now()
	audit := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "catalog.amend", Object: Repo, Detail: strings.Join(changed, ", ")}
	if err := s.Store.PutMetadata(ctx, append(rows, online...), expect, nil, audit); err != nil {
		return fmt.Errorf("amend: %w", err)
	}
	if next {
		if err := s.use(keys); err != nil {
			return fmt.Errorf("take the next keys: %w", err)
		}
	}
	s.Log.Info("amended", "files", changed, "actor", actor)
	s.changed()
	return nil
}

// here tells whether everything in the amendment is what the server has.
func (a *Amendment) here(st *State, director fleet.MetaRow) bool {
	same := func(b []byte, r fleet.MetaRow) bool { return b == nil || bytes.Equal(b, r.Bytes) }
	all := same(a.CatalogRoot, st.Rows[metadata.ROOT]) && same(a.DirectorRoot, director) && same(a.Targets, st.Rows[metadata.TARGETS])
	for role, b := range a.Roles {
		all = all && same(b, st.Rows[role])
	}
	return all && (a.CatalogRoot != nil || a.DirectorRoot != nil || a.Targets != nil || len(a.Roles) > 0)
}

// DirectorRoot is the newest; the same holders sign it.
func (s *Service) DirectorRoot(ctx context.Context) (fleet.MetaRow, error) {
	roots, err := s.Store.Roots(ctx, RepoDirector)
	if err != nil {
		return fleet.MetaRow{}, err
	}
	if len(roots) == 0 {
		return fleet.MetaRow{}, fleet.ErrCatalogEmpty
	}
	return fleet.MetaRow{Repo: RepoDirector, Role: metadata.ROOT, Version: int64(len(roots)), Bytes: roots[len(roots)-1]}, nil
}

type taker = func(r, was fleet.MetaRow)

type rootFile = metadata.Metadata[metadata.RootType]

// nextRoot checks the next root of a repository; nil stays what it was.
func (s *Service) nextRoot(b []byte, was fleet.MetaRow, take taker) (*rootFile, error) {
	old, err := parse(was.Bytes, MaxRoot, metadata.Root())
	if err != nil || b == nil {
		return old, err
	}
	next, err := parse(b, MaxRoot, metadata.Root())
	if err != nil {
		return nil, err
	}
	for _, by := range []*rootFile{old, next} {
		if err := by.VerifyDelegate(metadata.ROOT, next); err != nil {
			return nil, refuse("the %s's root: %v", was.Repo, err)
		}
	}
	if next.Signed.Version != was.Version+1 {
		return nil, fleet.ErrCatalogStale.With("the %s's root: version %d wanted, %d was sent", was.Repo, was.Version+1, next.Signed.Version)
	}
	if next.Signed.IsExpired(s.Now()) || len(next.Signed.Roles) != 4 || !next.Signed.ConsistentSnapshot {
		return nil, refuse("the %s's root: the four roles of TUF, consistent snapshots and not expired wanted", was.Repo)
	}
	take(fleet.MetaRow{Repo: was.Repo, Role: metadata.ROOT, Version: next.Signed.Version, Bytes: b}, was)
	return next, nil
}

func (s *Service) nextTargets(b []byte, was fleet.MetaRow, root *rootFile, take taker) (*targetsFile, error) {
	now := b
	if now == nil {
		now = was.Bytes
	}
	md, err := parse(now, MaxTargets, metadata.Targets())
	if err != nil {
		return nil, err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, md); err != nil {
		return nil, refuse("targets: %v", err)
	}
	if b == nil {
		return md, nil
	}
	if md.Signed.Version != was.Version+1 {
		return nil, fleet.ErrCatalogStale.With("targets: version %d wanted, %d was sent", was.Version+1, md.Signed.Version)
	}
	if md.Signed.IsExpired(s.Now()) || len(md.Signed.Targets) != 0 || md.Signed.Delegations == nil {
		return nil, refuse("targets: delegations to the channels, no targets of its own and not expired wanted")
	}
	if err := checkDelegations(md); err != nil {
		return nil, err
	}
	take(fleet.MetaRow{Repo: Repo, Role: metadata.TARGETS, Version: md.Signed.Version, Bytes: b}, was)
	return md, nil
}
