package catalog

import (
	"context"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Deadline is when something that people sign offline ends.
type Deadline struct {
	Repo, Role string
	Expires    time.Time
}

// Deadlines lists the ends of both roots, the catalog's targets and the roles of
// channels and teams; none before roots are installed.
func (s *Service) Deadlines(ctx context.Context) ([]Deadline, error) {
	st, err := s.state(ctx)
	if err != nil || len(st.Rows) == 0 {
		return nil, err
	}
	roots, err := s.Store.Roots(ctx, RepoDirector)
	if err != nil {
		return nil, err
	}
	rows := []fleet.MetaRow{st.Rows[metadata.ROOT]}
	if n := len(roots); n > 0 {
		rows = append(rows, fleet.MetaRow{Repo: RepoDirector, Role: metadata.ROOT, Bytes: roots[n-1]})
	}
	rows = append(rows, st.Rows[metadata.TARGETS])
	for _, ch := range fleet.Channels {
		speak, err := s.speaking(st, ch)
		if err != nil {
			return nil, err
		}
		for _, role := range speak {
			if r, ok := st.Rows[role]; ok {
				rows = append(rows, r)
			}
		}
	}
	var out []Deadline
	for _, r := range rows {
		expires, err := expiry(r)
		if err != nil {
			return nil, err
		}
		out = append(out, Deadline{r.Repo, r.Role, expires})
	}
	return out, nil
}

func expiry(r fleet.MetaRow) (time.Time, error) {
	if r.Role == metadata.ROOT {
		md, err := parse(r.Bytes, MaxRoot, metadata.Root())
		if err != nil {
			return time.Time{}, err
		}
		return md.Signed.Expires, nil
	}
	md, err := parse(r.Bytes, MaxTargets, metadata.Targets())
	if err != nil {
		return time.Time{}, err
	}
	return md.Signed.Expires, nil
}
