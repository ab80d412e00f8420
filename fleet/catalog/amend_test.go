package catalog_test

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
)

// change is an amendment of the rig's fleet by what its holders are to be: the first
// holder has new keys of both kinds.
type change struct {
	*catalogtest.Publishers
	r         *rig
	old       *catalogtest.Publishers
	both      []ed25519.PrivateKey // a quorum of the old root keys and of the new
	root, dir *metadata.Metadata[metadata.RootType]
	targets   *catalogtest.Targets
	roles     map[string]*catalogtest.Targets
	by        map[string][]ed25519.PrivateKey // other signers than those, by file
	leave     []string                        // files that are left out
	amend     *catalog.Amendment              // in place of what is made
}

func (r *rig) change() *change {
	next := *r.pub
	next.Root, next.Release = slices.Clone(r.pub.Root), slices.Clone(r.pub.Release)
	next.Root[0], next.Release[0] = catalogtest.NewKey(), catalogtest.NewKey()
	c := &change{Publishers: &next, r: r, old: r.pub, roles: map[string]*catalogtest.Targets{}, by: map[string][]ed25519.PrivateKey{}}
	c.both = append(slices.Clone(r.pub.Root[:2]), next.Root[0])
	c.root, c.dir, c.targets = next.CatalogRoot(), next.DirectorRoot(), next.Delegations()
	c.root.Signed.Version, c.dir.Signed.Version, c.targets.Signed.Version = 2, 2, 2
	for _, ch := range fleet.Channels {
		c.roles[ch] = r.pub.Next(ch, nil)
	}
	return c
}

// made signs everything.
func (c *change) made() *catalog.Amendment {
	t := c.r.t
	by := func(file string, usual []ed25519.PrivateKey) []ed25519.PrivateKey {
		if keys, ok := c.by[file]; ok {
			return keys
		}
		return usual
	}
	release := c.Release[:2]
	a := &catalog.Amendment{
		CatalogRoot: catalogtest.Sign(t, c.root, by("root", c.both)...), DirectorRoot: catalogtest.Sign(t, c.dir, by("director", c.both)...),
		Targets: catalogtest.Sign(t, c.targets, by("targets", release)...), Roles: map[string][]byte{},
	}
	for ch, md := range c.roles {
		a.Roles[ch] = catalogtest.Sign(t, md, by(ch, release)...)
	}
	for _, file := range c.leave {
		delete(a.Roles, file)
		switch file {
		case "root":
			a.CatalogRoot = nil
		case "targets":
			a.Targets = nil
		case "director":
			a.DirectorRoot = nil
		}
	}
	return a
}

// TestAmend gives a holder new keys on a fleet that has published: afterwards the
// new keys publish and the old one does not, and the same amendment again changes
// nothing.
func TestAmend(t *testing.T) {
	r := installed(t)
	r.publish("dev", r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1}))
	c := r.change()
	a := c.made()
	must(t, r.Amend(t.Context(), a, "anna"))
	before := r.stored()
	must(t, r.Amend(t.Context(), a, "anna"))
	if after := r.stored(); len(after.Audit) != len(before.Audit) || after.Changes != before.Changes {
		t.Error("the same amendment changed something")
	}
	if acts := before.Audit; acts[0].Act != "catalog.amend" && acts[len(acts)-1].Act != "catalog.amend" {
		t.Errorf("%+v", acts)
	}
	for _, repo := range []string{catalog.Repo, catalog.RepoDirector} {
		if roots, err := r.db.Roots(t.Context(), repo); err != nil || len(roots) != 2 {
			t.Errorf("%s: %d roots, %v", repo, len(roots), err)
		}
	}
	for ch, md := range c.roles {
		r.pub.Published(ch, md)
	}
	next := r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.4.0"): 2})
	r.refuses(fleet.ErrCatalogRefused, func() error {
		_, err := r.Ingest(t.Context(), "dev", catalogtest.Sign(t, next, c.old.Release[:2]...), "eve")
		return err
	})
	_, err := r.Ingest(t.Context(), "dev", catalogtest.Sign(t, next, c.Release[:2]...), "anna")
	must(t, err)
}

// TestAmendRefuses bends one thing of a good amendment after the other; what is
// refused changes nothing.
func TestAmendRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		want *fleet.Error
		bend func(c *change)
	}{
		"root by the old keys alone":        {fleet.ErrCatalogRefused, func(c *change) { c.by["root"] = c.old.Root[:2] }},
		"root by the new keys alone":        {fleet.ErrCatalogRefused, func(c *change) { c.by["root"] = c.Root[:2] }},
		"root by one stolen key":            {fleet.ErrCatalogRefused, func(c *change) { c.by["root"] = c.old.Root[:1] }},
		"root by one key twice":             {fleet.ErrCatalogRefused, func(c *change) { c.by["root"] = []ed25519.PrivateKey{c.old.Root[1], c.old.Root[1]} }},
		"root by the release keys":          {fleet.ErrCatalogRefused, func(c *change) { c.by["root"] = c.old.Release }},
		"director's root by one stolen key": {fleet.ErrCatalogRefused, func(c *change) { c.by["director"] = c.old.Root[1:2] }},
		"a gap in the chain of roots":       {fleet.ErrCatalogStale, func(c *change) { c.root.Signed.Version = 3 }},
		"the same version of the root":      {fleet.ErrCatalogStale, func(c *change) { c.root.Signed.Version = 1 }},
		"a root that has expired":           {fleet.ErrCatalogRefused, func(c *change) { c.root.Signed.Expires = c.r.now.Add(-time.Second) }},
		"a root without consistent files":   {fleet.ErrCatalogRefused, func(c *change) { c.root.Signed.ConsistentSnapshot = false }},
		"another server's keys": {fleet.ErrCatalogRefused, func(c *change) {
			other := *c.Publishers
			other.Online = catalogtest.NewOnline()
			c.root = other.CatalogRoot()
			c.root.Signed.Version = 2
		}},
		"another server's keys, while next ones are ready": {fleet.ErrCatalogRefused, func(c *change) {
			c.ready()
			other := *c.Publishers
			other.Online = catalogtest.NewOnline()
			c.root, c.dir = other.CatalogRoot(), other.DirectorRoot()
			c.root.Signed.Version, c.dir.Signed.Version = 2, 2
		}},
		"one root with the next keys, one without": {fleet.ErrCatalogRefused, func(c *change) {
			next := *c.Publishers
			next.Online = c.ready()
			c.root = next.CatalogRoot()
			c.root.Signed.Version = 2
		}},
		"another director": {fleet.ErrCatalogRefused, func(c *change) {
			other := *c.Publishers
			other.Online = catalogtest.NewOnline()
			c.dir = other.DirectorRoot()
			c.dir.Signed.Version = 2
		}},
		"targets by the key that goes":      {fleet.ErrCatalogRefused, func(c *change) { c.by["targets"] = c.old.Release[:2] }},
		"targets without their root":        {fleet.ErrCatalogRefused, func(c *change) { c.leave = []string{"root"} }},
		"targets that go back":              {fleet.ErrCatalogStale, func(c *change) { c.targets.Signed.Version = 1 }},
		"targets of their own":              {fleet.ErrCatalogRefused, func(c *change) { c.targets.Signed.Targets["dev/x/1.0.0"] = c.r.runtime("9.0.0").Target(c.r.t, 9) }},
		"targets without delegations":       {fleet.ErrCatalogRefused, func(c *change) { c.targets.Signed.Delegations = nil }},
		"a role left with the old keys":     {fleet.ErrCatalogRefused, func(c *change) { c.leave = []string{"dev"} }},
		"a role by the key that goes":       {fleet.ErrCatalogRefused, func(c *change) { c.by["dev"] = c.old.Release[:2] }},
		"a role by one":                     {fleet.ErrCatalogRefused, func(c *change) { c.by["production"] = c.Release[:1] }},
		"a role that publishes":             {fleet.ErrCatalogRefused, func(c *change) { c.roles["dev"].Signed.Targets["dev/x/1.0.0"] = c.r.runtime("9.0.0").Target(c.r.t, 9) }},
		"a role that forgets":               {fleet.ErrReleaseExists, func(c *change) { clear(c.roles["dev"].Signed.Targets) }},
		"a role whose release is another's": {fleet.ErrReleaseExists, func(c *change) { c.swap() }},
		"a role of a later version":         {fleet.ErrCatalogStale, func(c *change) { c.roles["dev"].Signed.Version = 9 }},
		"a role of another channel":         {fleet.ErrCatalogRefused, func(c *change) { c.roles["production"] = c.roles["staging"] }},
		"a channel that is none":            {fleet.ErrCatalogRefused, func(c *change) { c.roles["root"] = c.roles["staging"] }},
		"nothing":                           {fleet.ErrCatalogRefused, func(c *change) { c.amend = &catalog.Amendment{} }},
		"no JSON":                           {fleet.ErrCatalogRefused, func(c *change) { c.amend = &catalog.Amendment{CatalogRoot: []byte("{")} }},
	} {
		t.Run(name, func(t *testing.T) {
			r := installed(t)
			r.publish("dev", r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1}))
			c := r.change()
			x.bend(c)
			a := c.amend
			if a == nil {
				a = c.made()
			}
			r.refuses(x.want, func() error { return r.Amend(t.Context(), a, "eve") })
		})
	}
}

// ready makes next keys of the server.
func (c *change) ready() catalogtest.Online {
	o := catalogtest.NewOnline()
	c.r.Next = func() (*catalog.Online, error) {
		return &catalog.Online{Keys: o.Keys, Director: o.Director.Public().(ed25519.PublicKey)}, nil
	}
	return o
}

// TestNextKeys names the server's next keys in both roots: it signs with them from
// then on.
func TestNextKeys(t *testing.T) {
	r := installed(t)
	c := r.change()
	next := *c.Publishers
	next.Online = c.ready()
	var took *catalog.Online
	r.Took = func(o *catalog.Online) error { took = o; return nil }
	c.root, c.dir = next.CatalogRoot(), next.DirectorRoot()
	c.root.Signed.Version, c.dir.Signed.Version = 2, 2
	now, err := r.Next()
	must(t, err)
	if named, err := r.Named(t.Context(), now); err != nil || named {
		t.Error("named before the amendment", err)
	}
	must(t, r.Amend(t.Context(), c.made(), "anna"))
	if named, err := r.Named(t.Context(), now); err != nil || !named || took == nil || !took.Director.Equal(now.Director) {
		t.Errorf("named %v, took %v, %v", named, took, err)
	}
	rows, err := r.Metadata(t.Context())
	must(t, err)
	for _, m := range rows {
		if m.Role == metadata.TIMESTAMP {
			ts, err := metadata.Timestamp().FromBytes(m.Bytes)
			must(t, err)
			must(t, c.root.VerifyDelegate(metadata.TIMESTAMP, ts))
		}
	}
}

// swap puts another bundle under a published path.
func (c *change) swap() {
	for path := range c.roles["dev"].Signed.Targets {
		c.roles["dev"].Signed.Targets[path] = c.r.runtime("2.9.0").Target(c.r.t, 1)
	}
}

// TestAmendBeforeCeremony amends what is not there.
func TestAmendBeforeCeremony(t *testing.T) {
	r := newRig(t, 2, 3)
	r.refuses(fleet.ErrCatalogEmpty, func() error { return r.Amend(t.Context(), &catalog.Amendment{Targets: []byte("{}")}, "eve") })
}
