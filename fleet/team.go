package fleet

import (
	"regexp"
	"strings"
)

// MaxTeams is how many teams of one channel devices follow.
const MaxTeams = 16

var teamForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ValidTeam tells whether a team can have this name.
func ValidTeam(name string) bool { return teamForm.MatchString(name) }

// TeamRole is the role of the catalog that a team signs its models in a channel with.
func TeamRole(channel, team string) string { return channel + "." + team }

// ChannelOf is the channel that a role of the catalog speaks for: the channel's own or
// a team's; false if it is neither.
func ChannelOf(role string) (channel string, ok bool) {
	channel, team, teams := strings.Cut(role, ".")
	return channel, ValidChannel(channel) && (!teams || ValidTeam(team))
}
