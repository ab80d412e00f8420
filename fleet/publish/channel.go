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
)

const catalogRepo = "catalog"

// maxRoleJump bounds by how much a server that came back from a backup may have
// the next version skip those that may be lost.
const maxRoleJump = 10_000

// channel is a channel's role as the server has it, verified up to the root that
// the publisher trusts: nobody but the holders of keys wrote what is in it.
type channel struct {
	name  string
	md    *metadata.Metadata[metadata.TargetsType]
	role  metadata.DelegatedRole
	names map[string]string // holders by key id, where known
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

// channel fetches a channel's role and verifies it. A server that was broken into
// could otherwise have the publisher sign releases of its own making.
func (c *Client) channel(ctx context.Context, name string, t *Trust) (*channel, error) {
	if !fleet.ValidChannel(name) {
		return nil, refuse("channel.unknown", "pass one of: "+strings.Join(fleet.Channels, ", "), "there is no channel %q", name)
	}
	var list metaList
	if err := c.get(ctx, "/v1/catalog/metadata", &list); err != nil {
		return nil, err
	}
	files, floors := map[string][]byte{}, map[string]int64{}
	for _, f := range list.Items {
		if f.Repo == catalogRepo {
			files[f.Role], floors[f.Role] = f.Bytes, f.Floor
		}
	}
	root, err := t.newest(files[metadata.ROOT])
	if err != nil {
		return nil, err
	}
	targets, err := parse[metadata.TargetsType]("the catalog's targets", files[metadata.TARGETS])
	if err != nil {
		return nil, err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, targets); err != nil {
		return nil, untrusted("the catalog's targets: %v", err)
	}
	md, err := parse[metadata.TargetsType]("role "+name, files[name])
	if err != nil {
		return nil, err
	}
	if err := targets.VerifyDelegate(name, md); err != nil {
		return nil, untrusted("role %s: %v", name, err)
	}
	if floors[name]-md.Signed.Version > maxRoleJump {
		return nil, untrusted("the server wants role %s above version %d, it is at %d", name, floors[name], md.Signed.Version)
	}
	md.Signed.Version = max(md.Signed.Version, floors[name]) // sign adds one
	i := slices.IndexFunc(targets.Signed.Delegations.Roles, func(r metadata.DelegatedRole) bool { return r.Name == name })
	return &channel{name: name, md: md, role: targets.Signed.Delegations.Roles[i], names: t.Names}, nil
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

// sign replaces all signatures by those of keys, which must reach the threshold.
func (c *channel) sign(keys []*Key) (signers []string, err error) {
	var by []string
	for _, k := range keys {
		if !slices.Contains(c.role.KeyIDs, k.ID) {
			return nil, refuse("publish.key", "use keys of: "+c.who(nil), "key %s may not sign for channel %s", k.ID, c.name)
		}
		if !slices.Contains(by, k.ID) {
			by = append(by, k.ID)
		}
	}
	if len(by) < c.role.Threshold {
		return nil, refuse("publish.threshold", "pass one more --key, of: "+c.who(by), "channel %s wants %d signatures, %d keys were given", c.name, c.role.Threshold, len(by))
	}
	c.md.ClearSignatures()
	for _, k := range keys {
		if err := sign(c.md, k); err != nil {
			return nil, fmt.Errorf("sign %s: %w", c.name, err)
		}
	}
	for _, id := range by {
		signers = append(signers, c.holder(id))
	}
	return signers, nil
}

// who names those who may sign and have not.
func (c *channel) who(have []string) string {
	var list []string
	for _, id := range c.role.KeyIDs {
		if !slices.Contains(have, id) {
			list = append(list, c.holder(id))
		}
	}
	return strings.Join(list, ", ")
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
	trusted, err := parse[metadata.RootType]("the trusted root", t.Root)
	if err != nil {
		return nil, err
	}
	root, err := parse[metadata.RootType]("the server's root", b)
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
	b, err := readBounded(root, maxPaper)
	if err != nil {
		return nil, refuse("publish.root", "pass --root with the "+catalogRootFile+" of the ceremony, or keep the key in its folder "+KeysDir, "read the trusted root: %v", err)
	}
	t := &Trust{Root: b, Names: map[string]string{}}
	if c, err := LoadCeremony(ceremonyDir); err == nil {
		for i := range c.Joined {
			_, id, err := tufKey(c.Joined[i].Release)
			if err != nil {
				return nil, err
			}
			t.Names[id] = c.Joined[i].Name
		}
		for i := range c.Machines {
			_, id, err := tufKey(c.Machines[i].Key)
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
