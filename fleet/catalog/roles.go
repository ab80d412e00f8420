package catalog

import (
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

type targetsFile = metadata.Metadata[metadata.TargetsType]

// owner is the role that a model's releases in a channel are signed with, by the
// catalog's targets; "" if there is none.
func owner(targets *targetsFile, channel, model string) string {
	return trust.Owner(targets.Signed.Delegations, channel, bundle.TargetPath(channel, model, "0"))
}

// Roles are those that the catalog's targets delegate to, in their order.
func Roles(targets *targetsFile) []string {
	var list []string
	if targets.Signed.Delegations != nil {
		for i := range targets.Signed.Delegations.Roles {
			list = append(list, targets.Signed.Delegations.Roles[i].Name)
		}
	}
	return list
}

// checkDelegations wants every channel to have its role, and every other role to be a
// team's, which gives away paths of its channel only, before the channel's own role
// and for good.
func checkDelegations(targets *targetsFile) error {
	if targets.Signed.Delegations == nil {
		return refuse("targets: delegations to the channels wanted")
	}
	done, teams := map[string]bool{}, map[string]int{}
	for _, r := range targets.Signed.Delegations.Roles {
		channel, ok := fleet.ChannelOf(r.Name)
		if !ok || done[r.Name] || len(r.PathHashPrefixes) > 0 || !r.Terminating {
			return refuse("targets: role %q is no channel's and no team's, or comes twice, or does not end the search", r.Name)
		}
		done[r.Name] = true
		if r.Name == channel {
			continue
		}
		if teams[channel]++; done[channel] || teams[channel] > fleet.MaxTeams {
			return refuse("targets: role %q: at most %d teams, before their channel", r.Name, fleet.MaxTeams)
		}
		for _, p := range r.Paths {
			model, ok := strings.CutPrefix(p, channel+"/")
			if model, ok = cutSuffix(model, "/*", ok); !ok || !bundle.ValidName(model) {
				return refuse("targets: role %q has the paths %q, those of one model each are wanted", r.Name, p)
			}
		}
	}
	for _, ch := range fleet.Channels {
		if !done[ch] {
			return refuse("the role of channel %s is missing", ch)
		}
	}
	return nil
}

func cutSuffix(s, suffix string, ok bool) (string, bool) {
	before, found := strings.CutSuffix(s, suffix)
	return before, ok && found
}
