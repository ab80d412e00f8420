package catalog

import (
	"context"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Held are the versions that a device holds; 0: none.
type Held struct {
	Root, Timestamp, Snapshot, Targets int64
	Role                               int64 // of its channel
}

// Newer returns every file that a device of a channel needs and does not hold,
// roots first, then timestamp, snapshot, targets, the channel's role.
func (s *Service) Newer(ctx context.Context, channel string, h Held) ([]fleet.MetaRow, error) {
	st, err := s.state(ctx)
	if err != nil || len(st.Rows) == 0 {
		return nil, err
	}
	out, err := NewerRoots(ctx, s.Store, Repo, h.Root)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		role string
		held int64
	}{{metadata.TIMESTAMP, h.Timestamp}, {metadata.SNAPSHOT, h.Snapshot}, {metadata.TARGETS, h.Targets}, {channel, h.Role}} {
		if r, ok := st.Rows[x.role]; ok && r.Version > x.held {
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
