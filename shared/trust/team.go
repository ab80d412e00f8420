package trust

import (
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxTeams is how many teams of one channel a device follows.
const maxTeams = 16

// catalogCustom is the custom object of a role that speaks for a channel.
type catalogCustom struct {
	Channel string           `json:"channel"`
	Floors  map[string]int64 `json:"floors"` // by model
}

// speaks tells whether a role of the catalog is the channel's, or that of one of its
// teams, as "production.vision" is of production.
func speaks(channel, role string) bool {
	return role == channel || strings.HasPrefix(role, channel+".")
}

// channelRoles verifies the channel's role and those of its teams. One that is missing
// or wrong fails all: who could hold a team's role back could otherwise hide its floors.
func (v *view) channelRoles(bring bringer) error {
	roles := []string{v.c.Channel}
	if d := v.catalog.roles[metadata.TARGETS].Signed.Delegations; d != nil {
		for _, r := range d.Roles {
			if speaks(v.c.Channel, r.Name) && !slices.Contains(roles, r.Name) {
				roles = append(roles, r.Name)
			}
		}
	}
	if len(roles) > 1+maxTeams {
		return refuse(CodeTooLarge, "channel %s has %d teams, at most %d are followed", v.c.Channel, len(roles)-1, maxTeams)
	}
	for _, r := range roles {
		if err := v.catalog.role(r, metadata.TARGETS, bring); err != nil {
			return err
		}
	}
	return nil
}

// Owner is the role to which the delegations of the catalog's targets give a path of a
// channel, the channel's own or a team's, "" if none: the first whose pattern matches,
// as TUF walks them.
func Owner(d *metadata.Delegations, channel, path string) string {
	for _, r := range responsible(d, path) {
		if speaks(channel, r.Name) {
			return r.Name
		}
		if r.Terminating {
			return ""
		}
	}
	return ""
}

func (v *view) owner(path string) string {
	return Owner(v.catalog.roles[metadata.TARGETS].Signed.Delegations, v.c.Channel, path)
}

// floors are those of the models of the channel, each by the role that its releases
// are signed with: nobody raises the floor of another's model. Every role must name
// the channel.
func (v *view) floors() (map[string]int64, error) {
	all := map[string]int64{}
	for role, md := range v.catalog.roles {
		if !speaks(v.c.Channel, role) {
			continue
		}
		var c catalogCustom
		if err := customOf(md.Signed.UnrecognizedFields, &c); err != nil || c.Channel != v.c.Channel {
			return nil, refuse(CodeWrongChannel, "the role %s says that it is of channel %q", role, c.Channel)
		}
		for model, floor := range c.Floors {
			if v.owner(v.c.Channel+"/"+model+"/0") == role {
				all[model] = max(all[model], floor)
			}
		}
	}
	return all, nil
}
