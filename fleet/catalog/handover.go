package catalog

import (
	"context"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// published is what the roles of a channel say, all of them together.
type published struct {
	targets map[string]*metadata.TargetFiles // by path
	models  map[string]string                // of the paths
	floors  map[string]int64                 // by model
}

// nextRoles checks every role that the newest targets delegate to: its next version,
// or that the one which stays is still signed as they want it, and that it speaks of
// all that was published of its models.
func (s *Service) nextRoles(ctx context.Context, sent map[string][]byte, st *State, targets *targetsFile, take taker) error {
	before, err := parse(st.Rows[metadata.TARGETS].Bytes, MaxTargets, metadata.Targets())
	if err != nil {
		return err
	}
	have, roles, err := everything(st, Roles(before))
	if err != nil {
		return err
	}
	delegated := Roles(targets)
	for role := range sent {
		if !slices.Contains(delegated, role) {
			return refuse("there is no channel or team %q", role)
		}
	}
	for _, role := range delegated {
		channel, _ := fleet.ChannelOf(role)
		md := roles[role]
		if b := sent[role]; b == nil {
			if md == nil {
				return refuse("the role %s is missing", role)
			}
			if err := targets.VerifyDelegate(role, md); err != nil {
				return refuse("role %s stays and would no longer be signed: %v", role, err)
			}
		} else if md, err = s.nextRole(ctx, role, b, st.Rows[role], targets, md, have[channel], take); err != nil {
			return err
		}
		if err := speaksOfAll(targets, role, md, have[channel]); err != nil {
			return err
		}
	}
	return nil
}

// everything reads the roles that are followed so far, by name, and together by channel.
func everything(st *State, delegated []string) (have map[string]*published, roles map[string]*targetsFile, err error) {
	have, roles = map[string]*published{}, map[string]*targetsFile{}
	for _, role := range delegated {
		channel, _ := fleet.ChannelOf(role)
		md, err := parse(st.Rows[role].Bytes, MaxTargets, metadata.Targets())
		if err != nil {
			return nil, nil, err
		}
		c, err := ownCustom(role, md)
		if err != nil {
			return nil, nil, err
		}
		p := have[channel]
		if p == nil {
			p = &published{map[string]*metadata.TargetFiles{}, map[string]string{}, map[string]int64{}}
			have[channel] = p
		}
		for path, t := range md.Signed.Targets {
			c, err := customOf(path, t)
			if err != nil {
				return nil, nil, err
			}
			p.targets[path], p.models[path] = t, c.Release.Model
		}
		for model, floor := range c.Floors {
			p.floors[model] = max(p.floors[model], floor)
		}
		roles[role] = md
	}
	return have, roles, nil
}

// nextRole checks the next version of a role; old is nil for one that begins.
func (s *Service) nextRole(ctx context.Context, role string, b []byte, was fleet.MetaRow, targets, old *targetsFile, have *published, take taker) (*targetsFile, error) {
	floor, err := s.Store.RoleFloor(ctx, role)
	if err != nil {
		return nil, err
	}
	md, err := s.checkRole(targets, role, b, max(was.Version, floor)+1)
	if err != nil {
		return nil, err
	}
	if old == nil {
		old = metadata.Targets()
		old.Signed.UnrecognizedFields = map[string]any{"custom": RoleCustom{}}
	}
	if err := checkCustom(role, old, md); err != nil {
		return nil, err
	}
	for path, t := range old.Signed.Targets {
		if n := md.Signed.Targets[path]; n == nil || !n.Equal(*t) {
			return nil, fleet.ErrReleaseExists.With("%s was published and can neither change nor go", path)
		}
	}
	for path, t := range md.Signed.Targets {
		if p := have.targets[path]; p == nil || !p.Equal(*t) {
			return nil, refuse("role %s: an amendment publishes nothing", role)
		}
	}
	take(fleet.MetaRow{Repo: Repo, Role: role, Version: md.Signed.Version, Bytes: b}, fleet.MetaRow{Repo: Repo, Role: role, Version: was.Version})
	return md, nil
}

// speaksOfAll wants a role to hold what was published of its models, and floors that
// are no lower: devices ask no other role about them.
func speaksOfAll(targets *targetsFile, role string, md *targetsFile, have *published) error {
	if have == nil {
		return nil
	}
	channel, _ := fleet.ChannelOf(role)
	for _, path := range slices.Sorted(maps.Keys(have.targets)) {
		if owner(targets, channel, have.models[path]) == role && md.Signed.Targets[path] == nil {
			return refuse("role %s gets %s and does not speak of %s", role, have.models[path], path)
		}
	}
	c, err := ownCustom(role, md)
	if err != nil {
		return err
	}
	for model, floor := range have.floors {
		if owner(targets, channel, model) == role && c.Floors[model] < floor {
			return refuse("role %s gets %s with a floor of %d, it was %d", role, model, c.Floors[model], floor)
		}
	}
	return nil
}
