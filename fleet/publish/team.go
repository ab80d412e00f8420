package publish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Team are holders of whom Threshold sign the releases of some models in a channel,
// and nobody else does.
type Team struct {
	Name      string   `json:"name"`
	Channel   string   `json:"channel"`
	Models    []string `json:"models"`
	Members   []string `json:"members"` // holders, who sign with their release keys
	Threshold int      `json:"threshold"`
}

// Role is the team's in the catalog.
func (t *Team) Role() string { return fleet.TeamRole(t.Channel, t.Name) }

const maxTeamModels = 256

// validateTeams refuses teams that a device or a server would not follow.
func (c *Ceremony) validateTeams() error {
	roles, models, count := map[string]bool{}, map[string]string{}, map[string]int{}
	for i := range c.Teams {
		t := &c.Teams[i]
		if err := c.validateTeam(t); err != nil {
			return err
		}
		if count[t.Channel]++; roles[t.Role()] || count[t.Channel] > fleet.MaxTeams {
			return refuse("team.exists", "choose another --name, or end one with 'dunlin keys team remove'", "%s has a team %s already, or %d of them", t.Channel, t.Name, fleet.MaxTeams)
		}
		roles[t.Role()] = true
		for _, m := range t.Models {
			if other := models[t.Channel+"/"+m]; other != "" {
				return refuse("team.models", "leave it to one of them", "%s of %s belongs to %s and to %s", m, t.Channel, other, t.Name)
			}
			models[t.Channel+"/"+m] = t.Name
		}
	}
	return nil
}

func (c *Ceremony) validateTeam(t *Team) error {
	switch {
	case !fleet.ValidTeam(t.Name):
		return refuse("team.malformed", "write it like 'vision': small letters, digits and dashes", "team %q is not understood", t.Name)
	case !fleet.ValidChannel(t.Channel):
		return refuse("channel.unknown", "pass one of: "+strings.Join(fleet.Channels, ", "), "there is no channel %q", t.Channel)
	case len(t.Models) == 0 || len(t.Models) > maxTeamModels || slices.ContainsFunc(t.Models, func(m string) bool { return !bundle.ValidName(m) }):
		return refuse("team.models", "name them with --models, with commas between", "team %s has the models %q", t.Name, t.Models)
	case t.Threshold < 1 || t.Threshold > len(t.Members):
		return refuse("team.threshold", fmt.Sprintf("pass --threshold 1 to %d, or more --holders", len(t.Members)), "%d of %d must sign for team %s", t.Threshold, len(t.Members), t.Name)
	case t.Threshold < 2 && c.ChannelThreshold(t.Channel) > 1:
		return refuse("team.threshold", "pass --threshold 2 or more", "one person alone would sign for %s", t.Channel)
	}
	for i, m := range t.Members {
		if !slices.ContainsFunc(c.Joined, func(h Holder) bool { return h.Name == m }) || slices.Contains(t.Members[:i], m) {
			return refuse("holder.unknown", "see 'dunlin keys status'", "%s of team %s holds no keys of this ceremony, or is named twice", m, t.Name)
		}
	}
	return nil
}

// AddTeam adds a team to a ceremony of which nothing is signed yet.
func AddTeam(dir string, t Team) error {
	c, err := OpenCeremony(dir)
	if err != nil {
		return err
	}
	if err := c.unsigned(dir); err != nil {
		return err
	}
	c.Teams = append(c.Teams, t)
	if err := c.validate(); err != nil {
		return err
	}
	if err := c.writeDrafts(dir); err != nil {
		return err
	}
	return c.Save(dir)
}

// Begun tells whether a ceremony is behind its first signature: from there on it
// changes by amendments.
func Begun(dir string) (bool, error) {
	c, err := OpenCeremony(dir)
	if err != nil || len(c.Editions) > 0 {
		return err == nil, err
	}
	papers, err := c.papers(dir)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(papers, func(d Draft) bool { return len(*offline.Signatures(d.Paper)) > 0 }), nil
}

// Role is one that speaks for a channel: its own, or a team's.
type Role struct {
	Name, Channel string
	Threshold     int
	Members       []string // holders who may sign; nil: all
}

// File is the role's.
func (r *Role) File() string { return r.Name + ".json" }

// Roles lists those of the ceremony, each channel's teams before it.
func (c *Ceremony) Roles() []Role {
	var list []Role
	for _, ch := range fleet.Channels {
		for i := range c.Teams {
			if t := &c.Teams[i]; t.Channel == ch {
				list = append(list, Role{t.Role(), ch, t.Threshold, t.Members})
			}
		}
		list = append(list, Role{Name: ch, Channel: ch, Threshold: c.ChannelThreshold(ch)})
	}
	return list
}

// delegate gives a role its paths and the keys of those who sign for it.
func (c *Ceremony) delegate(d *metadata.Delegations, r *Role) error {
	role := metadata.DelegatedRole{Name: r.Name, Threshold: r.Threshold, Terminating: true}
	give := func(public []byte) error {
		k, id, err := offline.TUFKey(public)
		if err != nil {
			return err
		}
		d.Keys[id] = k
		role.KeyIDs = append(role.KeyIDs, id)
		return nil
	}
	for i := range c.Joined {
		if r.Members != nil && !slices.Contains(r.Members, c.Joined[i].Name) {
			continue
		}
		if err := give(c.Joined[i].Release); err != nil {
			return err
		}
	}
	for i := range c.Machines {
		if c.Machines[i].Channel != r.Name {
			continue
		}
		if err := give(c.Machines[i].Key); err != nil {
			return err
		}
	}
	if role.Paths = []string{r.Channel + "/*/*"}; r.Name != r.Channel {
		role.Paths = nil
		for i := range c.Teams {
			if t := &c.Teams[i]; t.Role() == r.Name {
				for _, m := range t.Models {
					role.Paths = append(role.Paths, bundle.TargetPath(r.Channel, m, "*"))
				}
			}
		}
	}
	d.Roles = append(d.Roles, role)
	return nil
}
