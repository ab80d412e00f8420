package catalog

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Ceremony is what `dunlin keys` has made: both roots, the catalog's targets with
// the delegations of the channels, and the channels' roles, still empty.
type Ceremony struct {
	CatalogRoot  []byte            `json:"catalog_root"`
	DirectorRoot []byte            `json:"director_root"`
	Targets      []byte            `json:"targets"`
	Roles        map[string][]byte `json:"roles"` // by name
}

// Install takes in a ceremony on a server that has no roots yet. Everything must
// be signed by its threshold, and the online roles must have this server's keys.
func (s *Service) Install(ctx context.Context, c *Ceremony, actor string) error {
	st, err := s.state(ctx)
	if err != nil {
		return err
	}
	if len(st.Rows) > 0 {
		return fleet.ErrCatalogStale.With("this server has its roots already")
	}
	rows, err := s.check(c)
	if err != nil {
		return err
	}
	byRole := map[string]fleet.MetaRow{}
	for _, r := range rows {
		if r.Repo == Repo {
			byRole[r.Role] = r
		}
	}
	online, err := s.online(byRole, s.inUse())
	if err != nil {
		return err
	}
	now := s.Now()
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "catalog.install", Object: Repo}
	expect := []fleet.MetaRow{{Repo: Repo, Role: metadata.ROOT}, {Repo: RepoDirector, Role: metadata.ROOT}}
	if err := s.Store.PutMetadata(ctx, append(rows, online...), expect, nil, a); err != nil {
		return fmt.Errorf("install roots: %w", err)
	}
	s.changed()
	return nil
}

// check verifies every file of a ceremony and returns its rows.
func (s *Service) check(c *Ceremony) ([]fleet.MetaRow, error) {
	root, err := s.checkRoot(c.CatalogRoot, "catalog")
	if err != nil {
		return nil, err
	}
	director, err := s.checkRoot(c.DirectorRoot, "director")
	if err != nil {
		return nil, err
	}
	o := s.inUse()
	if err := o.named(root, director); err != nil {
		return nil, err
	}
	targets, err := parse(c.Targets, MaxTargets, metadata.Targets())
	if err != nil {
		return nil, err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, targets); err != nil {
		return nil, refuse("targets: %v", err)
	}
	if targets.Signed.Version != 1 || targets.Signed.IsExpired(s.Now()) || len(targets.Signed.Targets) != 0 {
		return nil, refuse("targets: version 1 without targets of its own and not expired wanted")
	}
	rows := []fleet.MetaRow{
		{Repo: Repo, Role: metadata.ROOT, Version: 1, Bytes: c.CatalogRoot},
		{Repo: RepoDirector, Role: metadata.ROOT, Version: 1, Bytes: c.DirectorRoot},
		{Repo: Repo, Role: metadata.TARGETS, Version: 1, Bytes: c.Targets},
	}
	if err := checkDelegations(targets); err != nil {
		return nil, err
	}
	for _, role := range Roles(targets) {
		b, ok := c.Roles[role]
		if !ok {
			return nil, refuse("the role %s is missing", role)
		}
		md, err := s.checkRole(targets, role, b, 1)
		if err != nil {
			return nil, err
		}
		if len(md.Signed.Targets) != 0 {
			return nil, refuse("role %s: a ceremony publishes nothing", role)
		}
		if _, err := ownCustom(role, md); err != nil {
			return nil, err
		}
		rows = append(rows, fleet.MetaRow{Repo: Repo, Role: role, Version: 1, Bytes: b})
	}
	return rows, nil
}

func (s *Service) checkRoot(b []byte, what string) (*metadata.Metadata[metadata.RootType], error) {
	root, err := parse(b, MaxRoot, metadata.Root())
	if err != nil {
		return nil, err
	}
	if err := root.VerifyDelegate(metadata.ROOT, root); err != nil {
		return nil, refuse("the %s's root: %v", what, err)
	}
	if root.Signed.Version != 1 || root.Signed.IsExpired(s.Now()) || len(root.Signed.Roles) != 4 {
		return nil, refuse("the %s's root: version 1 with the four roles of TUF and not expired wanted", what)
	}
	return root, nil
}

// soleKey wants a role to have exactly one key, this server's.
func soleKey(root *metadata.Metadata[metadata.RootType], role string, want ed25519.PublicKey) error {
	key, err := metadata.KeyFromPublicKey(want)
	if err != nil {
		return err
	}
	id, err := key.ID()
	if err != nil {
		return err
	}
	r := root.Signed.Roles[role]
	if r == nil || r.Threshold != 1 || len(r.KeyIDs) != 1 || r.KeyIDs[0] != id {
		return refuse("role %s does not have this server's online key; make the ceremony with its 'dunlin keys init --online'", role)
	}
	return nil
}

// checkRole verifies the role of a channel or a team against its delegation.
func (s *Service) checkRole(targets *targetsFile, role string, b []byte, version int64) (*targetsFile, error) {
	md, err := parse(b, MaxTargets, metadata.Targets())
	if err != nil {
		return nil, err
	}
	if err := targets.VerifyDelegate(role, md); err != nil {
		return nil, refuse("role %s: %v", role, err)
	}
	if md.Signed.Version != version {
		return nil, fleet.ErrCatalogStale.With("role %s: version %d wanted, %d was sent", role, version, md.Signed.Version)
	}
	if md.Signed.IsExpired(s.Now()) {
		return nil, refuse("role %s expired at %s", role, md.Signed.Expires)
	}
	if md.Signed.Delegations != nil {
		return nil, refuse("role %s delegates, which it may not", role)
	}
	return md, nil
}
