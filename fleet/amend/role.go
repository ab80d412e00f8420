package amend

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

type targetsFile = metadata.Metadata[metadata.TargetsType]

// custom is the custom object of a role that speaks for a channel.
type custom struct {
	Channel string           `json:"channel"`
	Floors  map[string]int64 `json:"floors,omitempty"`
}

// owner is the role that a model's releases in a channel are signed with.
func owner(delegations *targetsFile, channel, model string) string {
	return trust.Owner(delegations.Signed.Delegations, channel, bundle.TargetPath(channel, model, "0"))
}

// maxTeamVersion bounds what a server says of the version that a team's role had which
// begins again: nobody vouches for it.
const maxTeamVersion = 1_000_000

// base is a role as the server has it; one that begins is empty, and goes on from the
// version of an earlier team of its name.
func (a *Amendment) base(r *publish.Role) (*targetsFile, custom, error) {
	b, have := a.Base.Roles[r.Name]
	if !a.had(r.Name) {
		begins := metadata.Targets()
		begins.Signed.Version = 0
		if have {
			md, err := offline.Parse[metadata.TargetsType]("role "+r.Name, b)
			if err != nil {
				return nil, custom{}, err
			}
			begins.Signed.Version = md.Signed.Version
		}
		if begins.Signed.Version > maxTeamVersion {
			return nil, custom{}, suspect("role %s would begin at version %d", r.Name, begins.Signed.Version)
		}
		return begins, custom{Channel: r.Channel}, nil
	}
	md, err := offline.Parse[metadata.TargetsType]("role "+r.Name, b)
	if err != nil {
		return nil, custom{}, err
	}
	c, err := customOf(md)
	if err != nil || c.Channel != r.Channel {
		return nil, c, suspect("role %s does not name its channel", r.Name)
	}
	return md, c, nil
}

// had tells whether a role is one of the old ceremony, whose text was verified.
func (a *Amendment) had(role string) bool {
	return slices.ContainsFunc(a.Old.Roles(), func(r publish.Role) bool { return r.Name == role })
}

func customOf(md *targetsFile) (c custom, err error) {
	b, err := json.Marshal(md.Signed.UnrecognizedFields["custom"])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(b, &c)
}

// takes puts into a role what the server has, in any role of the channel, of the models
// that the delegations give to it: when a team begins or ends nothing that was published
// goes, and no floor falls. It tells whether that changed the role.
func (a *Amendment) takes(r *publish.Role, delegations, md *targetsFile, c *custom) (changed bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(a.Base.Roles)) {
		if of, _ := fleet.ChannelOf(name); of != r.Channel || name == r.Name || !a.had(name) {
			continue
		}
		other, theirs, err := a.base(&publish.Role{Name: name, Channel: r.Channel})
		if err != nil {
			return false, err
		}
		for path, t := range other.Signed.Targets {
			x, err := released(path, t)
			if err != nil {
				return false, err
			}
			if md.Signed.Targets[path] == nil && owner(delegations, r.Channel, x.Model) == r.Name {
				md.Signed.Targets[path], changed = t, true
			}
		}
		for model, floor := range theirs.Floors {
			if c.Floors[model] < floor && owner(delegations, r.Channel, model) == r.Name {
				c.raise(model, floor)
				changed = true
			}
		}
	}
	return changed, nil
}

func (c *custom) raise(model string, floor int64) {
	if c.Floors == nil {
		c.Floors = map[string]int64{}
	}
	c.Floors[model] = floor
}

func released(path string, t *metadata.TargetFiles) (bundle.Release, error) {
	var c bundle.Custom
	if t.Custom == nil || json.Unmarshal(*t.Custom, &c) != nil {
		return c.Release, suspect("%s says nothing of its release", path)
	}
	return c.Release, nil
}

// role is the next version of a role, nil where it stays: its releases as they were,
// with those of models that come to it, and its floors raised where that was asked for.
func (a *Amendment) role(r *publish.Role, delegations *targetsFile) (*paper, error) {
	file := r.File()
	e, ok := a.New.Editions[file]
	if !ok || a.Old.Editions[file] == e {
		return nil, nil
	}
	md, c, err := a.base(r)
	if err != nil {
		return nil, err
	}
	if next := max(md.Signed.Version, a.RoleFloors[r.Name]) + 1; e.Version != next {
		return nil, suspect("role %s goes from version %d to %d", r.Name, md.Signed.Version, e.Version)
	}
	md.Signed.Version, md.Signed.Expires = e.Version, e.Drafted.Add(publish.RoleLife)
	if _, err := a.takes(r, delegations, md, &c); err != nil {
		return nil, err
	}
	if err := raise(md, r, &c, a.floorsOf(r, delegations)); err != nil {
		return nil, err
	}
	md.Signed.UnrecognizedFields = map[string]any{"custom": c}
	md.ClearSignatures()
	return &paper{file: file, paper: md, expires: md.Signed.Expires, quorums: []quorum{{"new", publish.KindRelease, r.Threshold, &a.New, r.Members}}}, nil
}

// floorsOf are those of the amendment's floors that a role states.
func (a *Amendment) floorsOf(r *publish.Role, delegations *targetsFile) map[string]int64 {
	list := map[string]int64{}
	for model, floor := range a.Floors {
		if r.Channel == a.Channel && owner(delegations, r.Channel, model) == r.Name {
			list[model] = floor
		}
	}
	return list
}

// floorsChange wants every role whose floors rise to be among the papers.
func (a *Amendment) floorsChange(want map[string]*paper) error {
	wrong := suspect("its floors are of no role that it changes")
	if (a.Channel == "") != (len(a.Floors) == 0) {
		return wrong
	}
	is, err := drafts(&a.New)
	if err != nil {
		return err
	}
	for model := range a.Floors {
		if want[owner(is[publish.TargetsFile].Paper.(*targetsFile), a.Channel, model)+".json"] == nil {
			return wrong
		}
	}
	return nil
}

// raise puts higher floors into a role. None falls, and none forbids every release.
func raise(md *targetsFile, r *publish.Role, c *custom, floors map[string]int64) error {
	highest := map[string]int64{}
	for path, t := range md.Signed.Targets {
		x, err := released(path, t)
		if err != nil {
			return err
		}
		highest[x.Model] = max(highest[x.Model], x.Counter)
	}
	for model, floor := range floors {
		switch {
		case floor <= c.Floors[model]:
			return refuse("floor.falls", fmt.Sprintf("pass %d or more", c.Floors[model]+1), "the floor of %s in %s is %d and only rises", model, r.Channel, c.Floors[model])
		case floor > highest[model]:
			return refuse("floor.above", fmt.Sprintf("pass %d or less", highest[model]), "a floor of %d would forbid every release of %s in %s", floor, model, r.Channel)
		}
		c.raise(model, floor)
	}
	return nil
}

// Team adds a team, or ends one by its name when it has no models. What was published
// of its models goes with them to the role that signs them from now on.
func (b *Begin) Team(t publish.Team) (*Amendment, error) {
	act := fmt.Sprintf("team %s signs %v of %s", t.Name, t.Models, t.Channel)
	if len(t.Models) == 0 {
		act = fmt.Sprintf("end team %s of %s", t.Name, t.Channel)
	}
	return b.act(act, nil, func(a *Amendment) error {
		a.New.Teams = slices.DeleteFunc(slices.Clone(a.New.Teams), func(x publish.Team) bool {
			return len(t.Models) == 0 && x.Role() == t.Role()
		})
		if len(t.Models) > 0 {
			a.New.Teams = append(a.New.Teams, t)
		} else if len(a.New.Teams) == len(a.Old.Teams) {
			return refuse("team.unknown", "see 'dunlin keys status'", "%s has no team %q", t.Channel, t.Name)
		}
		return nil
	})
}

// leaves takes a holder out of every team, or puts another in their place.
func leaves(c *publish.Ceremony, holder, with string) error {
	for i := range c.Teams {
		t := &c.Teams[i]
		t.Members = slices.Clone(t.Members)
		n := slices.Index(t.Members, holder)
		switch {
		case n < 0:
		case with != "":
			t.Members[n] = with
		case len(t.Members) == t.Threshold:
			return refuse("team.threshold", fmt.Sprintf("replace the keys instead: 'dunlin keys replace --holder %s --with NAME', or end the team first: 'dunlin keys team remove %s --channel %s'", holder, t.Name, t.Channel),
				"%d members would be left of the %d who must sign for team %s", len(t.Members)-1, t.Threshold, t.Name)
		default:
			t.Members = slices.Delete(t.Members, n, n+1)
		}
	}
	return nil
}
