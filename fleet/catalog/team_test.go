package catalog_test

import (
	"crypto/ed25519"
	"maps"
	"slices"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
)

const (
	runtimeModel = "runtime-litert-arm64"
	team         = "dev.engines"
)

// engines is a team of two of three that signs the runtimes of dev.
func engines() catalogtest.Team {
	keys := []ed25519.PrivateKey{catalogtest.NewKey(), catalogtest.NewKey(), catalogtest.NewKey()}
	return catalogtest.Team{Channel: "dev", Name: "engines", Models: []string{runtimeModel}, Threshold: 2, Keys: keys}
}

// floor states a floor in a role.
func floor(md *catalogtest.Targets, model string, n int64) {
	md.Signed.UnrecognizedFields["custom"] = catalog.RoleCustom{Channel: "dev", Floors: map[string]int64{model: n}}
}

// TestTeamOfCeremony publishes what a team signs, by its threshold and nobody else's.
func TestTeamOfCeremony(t *testing.T) {
	r := newRig(t, 2, 3)
	r.pub.Teams = []catalogtest.Team{engines()}
	must(t, r.Install(t.Context(), r.pub.Ceremony(), "anna"))
	next := r.pub.Next(team, map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1})
	keys := r.pub.Teams[0].Keys
	for name, b := range map[string][]byte{
		"one of the team": catalogtest.Sign(t, next, keys[0]), "one of them twice": catalogtest.Sign(t, next, keys[0], keys[0]),
		"the channel's holders": r.pub.SignRole(next), "one of each": catalogtest.Sign(t, next, keys[0], r.pub.Release[0]),
	} {
		t.Run(name, func(t *testing.T) {
			r.refuses(fleet.ErrCatalogRefused, func() error { _, err := r.Ingest(t.Context(), team, b, "eve"); return err })
		})
	}
	r.refuses(fleet.ErrCatalogRefused, func() error { // what devices would not ask of the channel's role
		md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1})
		_, err := r.Ingest(t.Context(), "dev", r.pub.SignRole(md), "eve")
		return err
	})
	r.publish(team, next)
	r.refuses(fleet.ErrCatalogRefused, func() error { // nor a floor
		md := r.pub.Next("dev", nil)
		floor(md, runtimeModel, 1)
		_, err := r.Ingest(t.Context(), "dev", r.pub.SignRole(md), "eve")
		return err
	})
	rows, err := r.Newer(t.Context(), "dev", catalog.Held{Root: 1, Roles: map[string]int64{"dev": 1}})
	must(t, err)
	var roles []string
	for _, row := range rows {
		roles = append(roles, row.Role)
	}
	if want := []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS, team}; !slices.Equal(roles, want) {
		t.Errorf("a device gets %v, want %v", roles, want)
	}
	if role, _, _, err := r.Ahead(t.Context(), "dev", catalog.Held{Root: 1, Roles: map[string]int64{team: 3}}); err != nil || role != team {
		t.Errorf("ahead: %q, %v", role, err)
	}
	ends, err := r.Deadlines(t.Context())
	if must(t, err); !slices.ContainsFunc(ends, func(d catalog.Deadline) bool { return d.Role == team }) {
		t.Errorf("nothing tells when %s ends: %v", team, ends)
	}
}

// begins is the amendment by which a team takes over a model that was published with a
// floor.
func begins(r *rig) *change {
	md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1})
	floor(md, runtimeModel, 1)
	r.publish("dev", md)
	c := r.change()
	c.Teams = []catalogtest.Team{engines()}
	c.targets = c.Delegations()
	c.targets.Signed.Version = 2
	role := c.Role(team)
	maps.Copy(role.Signed.Targets, md.Signed.Targets)
	floor(role, runtimeModel, 1)
	c.roles[team], c.by[team] = role, c.Teams[0].Keys[:2]
	return c
}

// TestTeamBeginsAndEnds hands a published model over to a team and back: nothing that
// was published goes, and each time the others can sign no more of it.
func TestTeamBeginsAndEnds(t *testing.T) {
	r := installed(t)
	c := begins(r)
	must(t, r.Amend(t.Context(), c.made(), "anna"))
	r.pub = c.Publishers
	for role, md := range c.roles {
		r.pub.Published(role, md)
	}
	r.refuses(fleet.ErrCatalogRefused, func() error {
		md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.4.0"): 2})
		_, err := r.Ingest(t.Context(), "dev", r.pub.SignRole(md), "eve")
		return err
	})
	next := r.pub.Next(team, map[*catalogtest.Bundle]int64{r.runtime("2.4.0"): 2})
	floor(next, runtimeModel, 2)
	r.publish(team, next)

	back := func() *change {
		c := r.change()
		c.Teams = nil
		c.targets = c.Delegations()
		c.targets.Signed.Version = 3
		c.root.Signed.Version, c.dir.Signed.Version = 3, 3
		maps.Copy(c.roles["dev"].Signed.Targets, next.Signed.Targets)
		floor(c.roles["dev"], runtimeModel, 2)
		return c
	}
	for name, bend := range map[string]func(c *change){
		"a release is left out": func(c *change) { delete(c.roles["dev"].Signed.Targets, "dev/"+runtimeModel+"/2.4.0") },
		"the floor is lower":    func(c *change) { floor(c.roles["dev"], runtimeModel, 1) },
		"the role stays":        func(c *change) { c.roles[team], c.by[team] = r.pub.Next(team, nil), r.pub.Teams[0].Keys[:2] },
	} {
		t.Run(name, func(t *testing.T) {
			c := back()
			bend(c)
			r.refuses(fleet.ErrCatalogRefused, func() error { return r.Amend(t.Context(), c.made(), "eve") })
		})
	}
	must(t, r.Amend(t.Context(), back().made(), "anna"))
	rows, err := r.Newer(t.Context(), "dev", catalog.Held{})
	if must(t, err); slices.ContainsFunc(rows, func(m fleet.MetaRow) bool { return m.Role == team }) {
		t.Error("devices still get the role of the team that ended")
	}
}

// TestTeamRefused bends one thing of the amendment by which a team begins.
func TestTeamRefused(t *testing.T) {
	delegated := func(f func(r *metadata.DelegatedRole)) func(c *change) {
		return func(c *change) { f(&c.targets.Signed.Delegations.Roles[0]) }
	}
	for name, bend := range map[string]func(c *change){
		"its role is missing":  func(c *change) { delete(c.roles, team) },
		"it forgets a release": func(c *change) { clear(c.roles[team].Signed.Targets) },
		"its floor is lower": func(c *change) {
			c.roles[team].Signed.UnrecognizedFields["custom"] = catalog.RoleCustom{Channel: "dev"}
		},
		"it publishes": func(c *change) { c.roles[team].Signed.Targets["dev/x/1.0.0"] = c.r.runtime("9.0.0").Target(c.r.t, 9) },
		"another channel's": func(c *change) {
			c.roles[team].Signed.UnrecognizedFields["custom"] = catalog.RoleCustom{Channel: "staging"}
		},
		"one signature":           func(c *change) { c.by[team] = c.by[team][:1] },
		"it delegates":            func(c *change) { c.roles[team].Signed.Delegations = c.targets.Signed.Delegations },
		"paths of other channels": delegated(func(r *metadata.DelegatedRole) { r.Paths = []string{"production/x/*"} }),
		"all models":              delegated(func(r *metadata.DelegatedRole) { r.Paths = []string{"dev/*/*"} }),
		"hashes of paths":         delegated(func(r *metadata.DelegatedRole) { r.Paths, r.PathHashPrefixes = nil, []string{"00"} }),
		"the search goes on":      delegated(func(r *metadata.DelegatedRole) { r.Terminating = false }),
		"a name that is none":     delegated(func(r *metadata.DelegatedRole) { r.Name = "dev.En gines" }),
		"a team of no channel":    delegated(func(r *metadata.DelegatedRole) { r.Name = "home.engines" }),
		"a team of a team":        delegated(func(r *metadata.DelegatedRole) { r.Name = "dev.engines.small" }),
		"behind its channel": func(c *change) {
			d := c.targets.Signed.Delegations
			d.Roles = append(d.Roles[1:], d.Roles[0])
		},
		"twice": func(c *change) {
			d := c.targets.Signed.Delegations
			d.Roles = append(d.Roles[:1], d.Roles...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := installed(t)
			c := begins(r)
			bend(c)
			r.refuses(fleet.ErrCatalogRefused, func() error { return r.Amend(t.Context(), c.made(), "eve") })
		})
	}
}
