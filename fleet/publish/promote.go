package publish

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// PromoteConfig says which release goes to which channel.
type PromoteConfig struct {
	Model, Version string
	From, To       string         // From empty: the channel before To
	Keys           []*offline.Key // of To
	Trust          *Trust
	Floor          int64 // the model's new floor in To; 0: as it is
}

// Promote makes the proposal that puts a release of one channel, the same digest,
// under another. The proposal is nil where it is there already.
func (c *Client) Promote(ctx context.Context, conf PromoteConfig, now time.Time) (*Published, *Proposal, error) {
	if conf.From == "" {
		i := slices.Index(fleet.Channels, conf.To)
		if i < 1 {
			return nil, nil, refuse("promote.channel", "pass --from and --to", "no channel comes before %q", conf.To)
		}
		conf.From = fleet.Channels[i-1]
	}
	if conf.From == conf.To {
		return nil, nil, refuse("promote.channel", "pass two channels with --from and --to", "%s is promoted to itself", conf.From)
	}
	from, err := c.channel(ctx, conf.From, conf.Model, conf.Trust)
	if err != nil {
		return nil, nil, err
	}
	x, err := from.find(conf.Model, conf.Version)
	if err != nil {
		return nil, nil, err
	}
	to, err := c.channel(ctx, conf.To, conf.Model, conf.Trust)
	if err != nil {
		return nil, nil, err
	}
	return to.propose(*x, conf.Floor, conf.Keys, now)
}

// find returns a release of the channel that may still be activated there.
func (c *channel) find(model, version string) (*addition, error) {
	path := bundle.TargetPath(c.name, model, version)
	t := c.md.Signed.Targets[path]
	if t == nil {
		return nil, fleet.ErrReleaseUnknown.With("%s is not published", path)
	}
	r, err := released(path, t)
	if err != nil {
		return nil, err
	}
	v, err := c.custom()
	if err != nil {
		return nil, err
	}
	if floor := v.Floors[model]; r.Counter < floor {
		return nil, refuse("promote.below_floor", "promote a later release", "%s has counter %d, the floor of %s is %d", path, r.Counter, model, floor)
	}
	return &addition{release: r, digest: "sha256:" + t.Hashes["sha256"].String(), length: t.Length}, nil
}

// Standing is how a channel's role stands.
type Standing struct {
	Channel  string           `json:"channel"`
	Team     string           `json:"team,omitempty"`   // whose role it is; empty: the channel's
	Models   []string         `json:"models,omitempty"` // of the team
	Version  int64            `json:"role_version"`
	Releases int              `json:"releases"`
	Floors   map[string]int64 `json:"floors,omitempty"`
	Expires  time.Time        `json:"expires"`
	Signing
}

// Role is the name of the role.
func (s *Standing) Role() string {
	if s.Team != "" {
		return fleet.TeamRole(s.Channel, s.Team)
	}
	return s.Channel
}

// models are those of a team's role.
func (c *channel) models() []string {
	if c.team == "" {
		return nil
	}
	var list []string
	for _, p := range c.role.Paths {
		list = append(list, strings.TrimSuffix(strings.TrimPrefix(p, c.name+"/"), "/*"))
	}
	return list
}

// Standings tells of every channel and team who has signed its role and who could.
func (c *Client) Standings(ctx context.Context, t *Trust) ([]Standing, error) {
	all, err := c.fetch(ctx)
	if err != nil {
		return nil, err
	}
	targets, err := t.targets(filesOf(all, ""))
	if err != nil {
		return nil, err
	}
	var list []Standing
	for _, r := range targets.Signed.Delegations.Roles {
		ch, err := t.channel(r.Name, filesOf(all, r.Name))
		if err != nil {
			return nil, err
		}
		v, err := ch.custom()
		if err != nil {
			return nil, err
		}
		list = append(list, Standing{Channel: ch.name, Team: ch.team, Models: ch.models(), Version: ch.md.Signed.Version, Releases: len(ch.md.Signed.Targets), Floors: v.Floors, Expires: ch.md.Signed.Expires, Signing: *ch.signing(ch.md)})
	}
	return list, nil
}
