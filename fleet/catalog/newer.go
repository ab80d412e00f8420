package catalog

import (
	"context"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Held are the versions that a device holds; 0: none.
type Held struct {
	Root, Timestamp, Snapshot, Targets int64
	Roles                              map[string]int64 // of its channel and of the channel's teams
}

// Ahead names a role of which a device holds a newer version than is here, as
// after a restore from a backup; "" when there is none.
func (s *Service) Ahead(ctx context.Context, channel string, h Held) (role string, have, held int64, err error) {
	st, err := s.state(ctx)
	if err != nil || len(st.Rows) == 0 {
		return "", 0, 0, err
	}
	speak, err := s.speaking(st, channel)
	if err != nil {
		return "", 0, 0, err
	}
	role, have, held = ahead(st, speak, h)
	return role, have, held, nil
}

// ahead leaves out what a root that the device does not have yet may put right: keys
// that it replaces take the versions with them that they have signed, see
// shared/trust.
func ahead(st *State, speak []string, h Held) (role string, have, held int64) {
	roles := h.roles(speak)
	if h.Root < st.Rows[metadata.ROOT].Version {
		roles = roles[:1]
	}
	for _, x := range roles {
		if v := st.Rows[x.role].Version; x.held > v {
			return x.role, v, x.held
		}
	}
	return "", 0, 0
}

// heldRole is a role and the version that a device holds of it.
type heldRole struct {
	role string
	held int64
}

// roles lists the held versions, what people sign first.
func (h Held) roles(speak []string) []heldRole {
	list := []heldRole{{metadata.ROOT, h.Root}, {metadata.TARGETS, h.Targets}}
	return append(append(list, h.speaking(speak)...), heldRole{metadata.SNAPSHOT, h.Snapshot}, heldRole{metadata.TIMESTAMP, h.Timestamp})
}

func (h Held) speaking(speak []string) []heldRole {
	var list []heldRole
	for _, r := range speak {
		list = append(list, heldRole{r, h.Roles[r]})
	}
	return list
}

// speaking lists the roles that speak for a channel: its own and its teams'.
func (s *Service) speaking(st *State, channel string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := st.Rows[metadata.TARGETS]; s.delegated.version != row.Version || s.delegated.roles == nil {
		targets, err := parse(row.Bytes, MaxTargets, metadata.Targets())
		if err != nil {
			return nil, err
		}
		s.delegated.version, s.delegated.roles = row.Version, Roles(targets)
	}
	var list []string
	for _, r := range s.delegated.roles {
		if ch, ok := fleet.ChannelOf(r); ok && ch == channel {
			list = append(list, r)
		}
	}
	return list, nil
}

// Newer returns every file that a device of a channel needs and does not hold,
// roots first, then timestamp, snapshot, targets, the roles of the channel. With a root
// come all the others, whatever the device holds: under new keys versions begin anew.
// A device that is ahead gets none: it would have to refuse them.
func (s *Service) Newer(ctx context.Context, channel string, h Held) ([]fleet.MetaRow, error) {
	st, err := s.state(ctx)
	if err != nil || len(st.Rows) == 0 {
		return nil, err
	}
	speak, err := s.speaking(st, channel)
	if err != nil {
		return nil, err
	}
	if role, _, _ := ahead(st, speak, h); role != "" {
		return nil, nil
	}
	out, err := NewerRoots(ctx, s.Store, Repo, h.Root)
	if err != nil {
		return nil, err
	}
	all := len(out) > 0
	for _, x := range append([]heldRole{{metadata.TIMESTAMP, h.Timestamp}, {metadata.SNAPSHOT, h.Snapshot}, {metadata.TARGETS, h.Targets}}, h.speaking(speak)...) {
		if r, ok := st.Rows[x.role]; ok && (all || r.Version > x.held) {
			out = append(out, r)
		}
	}
	return out, nil
}

// NewerRoots returns the roots of a repository after a version, in order.
func NewerRoots(ctx context.Context, store interface {
	Roots(ctx context.Context, repo string) ([][]byte, error)
}, repo string, held int64) ([]fleet.MetaRow, error) {
	roots, err := store.Roots(ctx, repo)
	if err != nil {
		return nil, err
	}
	var out []fleet.MetaRow
	for i := max(0, held); i < int64(len(roots)); i++ {
		out = append(out, fleet.MetaRow{Repo: repo, Role: metadata.ROOT, Version: i + 1, Bytes: roots[i]})
	}
	return out, nil
}
