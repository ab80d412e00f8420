package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

const catalogRepo = "catalog"

// maxRoleJump bounds by how much a server that came back from a backup may have
// the next version skip those that may be lost.
const maxRoleJump = 10_000

// channel is a role that speaks for a channel, as the server has it, verified up to the
// root that the publisher trusts: nobody but the holders of keys wrote what is in it.
type channel struct {
	name        string // of the channel
	team        string // whose role it is; empty: the channel's
	base        files  // what was verified
	md          *metadata.Metadata[metadata.TargetsType]
	next        int64 // version
	delegations *metadata.Metadata[metadata.TargetsType]
	role        metadata.DelegatedRole
	names       map[string]string // holders by key id, where known
}

// metaList is the answer to GET /v1/catalog/metadata: the newest of every role.
type metaList struct {
	Items []metaFile `json:"items"`
}

type metaFile struct {
	Repo    string `json:"repo"`
	Role    string `json:"role"`
	Version int64  `json:"version"`
	Bytes   []byte `json:"bytes"`
	Floor   int64  `json:"floor"` // the next version is above it
}

// files are the parts of a catalog that say who may sign for a channel, and what is
// published there, as bytes.
type files struct {
	Root    []byte `json:"root"`
	Targets []byte `json:"targets"`
	Role    []byte `json:"role"`
	Floor   int64  `json:"floor,omitempty"` // the next version of the role is above it
}

// fetch asks the server for the newest of every role of the catalog, by name.
func (c *Client) fetch(ctx context.Context) (map[string]metaFile, error) {
	var list metaList
	if err := c.get(ctx, "/v1/catalog/metadata", &list); err != nil {
		return nil, err
	}
	all := map[string]metaFile{}
	for _, m := range list.Items {
		if m.Repo == catalogRepo {
			all[m.Role] = m
		}
	}
	return all, nil
}

// filesOf are those that belong to one role.
func filesOf(all map[string]metaFile, role string) files {
	return files{Root: all[metadata.ROOT].Bytes, Targets: all[metadata.TARGETS].Bytes, Role: all[role].Bytes, Floor: all[role].Floor}
}

// channel fetches the role that a model's releases in a channel are signed with, and
// verifies it.
func (c *Client) channel(ctx context.Context, name, model string, t *Trust) (*channel, error) {
	if !fleet.ValidChannel(name) {
		return nil, refuse("channel.unknown", "pass one of: "+strings.Join(fleet.Channels, ", "), "there is no channel %q", name)
	}
	all, err := c.fetch(ctx)
	if err != nil {
		return nil, err
	}
	f := filesOf(all, name)
	targets, err := t.targets(f)
	if err != nil {
		return nil, err
	}
	role := owner(targets, name, model)
	return t.channel(role, filesOf(all, role))
}

// owner is the role that a model's releases in a channel are signed with.
func owner(targets *metadata.Metadata[metadata.TargetsType], channel, model string) string {
	return trust.Owner(targets.Signed.Delegations, channel, bundle.TargetPath(channel, model, "0"))
}

// targets verifies the catalog's targets.
func (t *Trust) targets(f files) (*metadata.Metadata[metadata.TargetsType], error) {
	root, err := t.newest(f.Root)
	if err != nil {
		return nil, err
	}
	targets, err := offline.Parse[metadata.TargetsType]("the catalog's targets", f.Targets)
	if err != nil {
		return nil, err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, targets); err != nil {
		return nil, untrusted("the catalog's targets: %v", err)
	}
	return targets, nil
}

// channel verifies a role that speaks for a channel. A server that was broken into
// could otherwise have the publisher sign releases of its own making.
func (t *Trust) channel(name string, f files) (*channel, error) {
	of, ok := fleet.ChannelOf(name)
	if !ok {
		return nil, untrusted("role %q is no channel's and no team's", name)
	}
	targets, err := t.targets(f)
	if err != nil {
		return nil, err
	}
	md, err := offline.Parse[metadata.TargetsType]("role "+name, f.Role)
	if err != nil {
		return nil, err
	}
	if err := targets.VerifyDelegate(name, md); err != nil {
		return nil, untrusted("role %s: %v", name, err)
	}
	if f.Floor-md.Signed.Version > maxRoleJump {
		return nil, untrusted("the server wants role %s above version %d, it is at %d", name, f.Floor, md.Signed.Version)
	}
	next := max(md.Signed.Version, f.Floor) + 1
	i := slices.IndexFunc(targets.Signed.Delegations.Roles, func(r metadata.DelegatedRole) bool { return r.Name == name })
	team := strings.TrimPrefix(strings.TrimPrefix(name, of), ".")
	return &channel{name: of, team: team, base: f, md: md, next: next, delegations: targets, role: targets.Signed.Delegations.Roles[i], names: t.Names}, nil
}

func untrusted(format string, args ...any) error {
	return refuse("catalog.untrusted", "do not sign; find out who changed the server's catalog, and whether --root is this server's", format, args...)
}

// custom is the custom object of a channel's role.
type custom struct {
	Channel string           `json:"channel"`
	Floors  map[string]int64 `json:"floors,omitempty"`
}

func (c *channel) custom() (v custom, err error) {
	b, err := json.Marshal(c.md.Signed.UnrecognizedFields["custom"])
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Channel != c.name {
		return v, untrusted("role %s does not name its channel", c.name)
	}
	return v, nil
}

// raise sets a model's floor; it never falls.
func (c *channel) raise(model string, floor int64) (changed bool, err error) {
	v, err := c.custom()
	if err != nil || floor == 0 || floor == v.Floors[model] {
		return false, err
	}
	if floor < v.Floors[model] {
		return false, refuse("floor.falls", fmt.Sprintf("pass --floor %d or more, or leave it away", v.Floors[model]), "the floor of %s in %s is %d and never falls", model, c.name, v.Floors[model])
	}
	floors := map[string]int64{model: floor}
	for m, f := range v.Floors {
		floors[m] = max(f, floors[m])
	}
	c.md.Signed.UnrecognizedFields["custom"] = custom{Channel: c.name, Floors: floors}
	return true, nil
}

// title is the role for people.
func (c *channel) title() string {
	if c.team != "" {
		return "team " + c.team + " of channel " + c.name
	}
	return "channel " + c.name
}

// mayAll refuses keys that may not sign for the channel.
func (c *channel) mayAll(keys []*offline.Key) error {
	for _, k := range keys {
		if !slices.Contains(c.role.KeyIDs, k.ID) {
			return refuse("publish.key", "use keys of: "+c.who(nil), "key %s may not sign for %s", k.ID, c.title())
		}
	}
	return nil
}

// signedBy are the ids of the keys of the channel that have signed a version.
func (c *channel) signedBy(md *metadata.Metadata[metadata.TargetsType]) []string {
	var ids []string
	for _, id := range c.role.KeyIDs {
		if k := c.delegations.Signed.Delegations.Keys[id]; k != nil && offline.SignedBy(md, k, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// who names those who may sign and have not.
func (c *channel) who(have []string) string { return strings.Join(c.open(have), ", ") }

func (c *channel) open(have []string) []string {
	list := []string{}
	for _, id := range c.role.KeyIDs {
		if !slices.Contains(have, id) {
			list = append(list, c.holder(id))
		}
	}
	return list
}

func (c *channel) holders(ids []string) []string {
	list := []string{}
	for _, id := range ids {
		list = append(list, c.holder(id))
	}
	return list
}

func (c *channel) holder(id string) string {
	if n := c.names[id]; n != "" {
		return n
	}
	return "key " + id
}

// Trust is where a publisher's own trust begins.
type Trust struct {
	Root  []byte            // a root of the catalog, from the ceremony
	Names map[string]string // holders by key id; may be empty
}

// newest returns the server's root if the trusted one vouches for it.
func (t *Trust) newest(b []byte) (*metadata.Metadata[metadata.RootType], error) {
	trusted, err := offline.Parse[metadata.RootType]("the trusted root", t.Root)
	if err != nil {
		return nil, err
	}
	root, err := offline.Parse[metadata.RootType]("the server's root", b)
	if err != nil {
		return nil, err
	}
	if err := trusted.VerifyDelegate(metadata.ROOT, root); err != nil {
		return nil, untrusted("the server's root is not signed by the holders of the trusted one: %v", err)
	}
	if err := root.VerifyDelegate(metadata.ROOT, root); err != nil {
		return nil, untrusted("the server's root: %v", err)
	}
	if root.Signed.Version < trusted.Signed.Version {
		return nil, untrusted("the server's root has version %d, the trusted one %d", root.Signed.Version, trusted.Signed.Version)
	}
	return root, nil
}

// ReadTrust reads a trusted root, and the holders' names from the ceremony beside
// it if that is there.
func ReadTrust(root, ceremonyDir string) (*Trust, error) {
	b, err := offline.ReadBounded(root, offline.MaxPaper)
	if err != nil {
		return nil, refuse("publish.root", "pass --root with the "+CatalogRootFile+" of the ceremony, or keep the key in its folder "+KeysDir, "read the trusted root: %v", err)
	}
	t := &Trust{Root: b, Names: map[string]string{}}
	if c, err := LoadCeremony(ceremonyDir); err == nil {
		for i := range c.Joined {
			_, id, err := offline.TUFKey(c.Joined[i].Release)
			if err != nil {
				return nil, err
			}
			t.Names[id] = c.Joined[i].Name
		}
		for i := range c.Machines {
			_, id, err := offline.TUFKey(c.Machines[i].Key)
			if err != nil {
				return nil, err
			}
			t.Names[id] = c.Machines[i].Name
		}
	}
	return t, nil
}

// highest is the greatest counter of a model in the channel.
func (c *channel) highest(model string) (int64, error) {
	var high int64
	for _, path := range slices.Sorted(maps.Keys(c.md.Signed.Targets)) {
		r, err := released(path, c.md.Signed.Targets[path])
		if err != nil {
			return 0, err
		}
		if r.Model == model {
			high = max(high, r.Counter)
		}
	}
	return high, nil
}
