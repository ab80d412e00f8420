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

// TestInstall takes in a ceremony of three of whom two sign, and one of practice;
// the catalog then has every role, each version 1, and both roots.
func TestInstall(t *testing.T) {
	for name, n := range map[string][2]int{"2 of 3": {2, 3}, "practice": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, n[0], n[1])
			if _, err := r.Metadata(t.Context()); err == nil {
				t.Error("there is a catalog before the ceremony")
			}
			c := r.pub.Ceremony()
			must(t, r.Install(t.Context(), c, "anna"))
			rows, err := r.Metadata(t.Context())
			must(t, err)
			var roles []string
			for _, m := range rows {
				if roles = append(roles, m.Role); m.Version != 1 {
					t.Errorf("%s has version %d", m.Role, m.Version)
				}
			}
			if want := []string{"dev", "production", "root", "snapshot", "staging", "targets", "timestamp"}; !slices.Equal(roles, want) {
				t.Errorf("roles %v, want %v", roles, want)
			}
			for repo, want := range map[string][]byte{catalog.Repo: c.CatalogRoot, catalog.RepoDirector: c.DirectorRoot} {
				if roots, err := r.db.Roots(t.Context(), repo); err != nil || len(roots) != 1 || string(roots[0]) != string(want) {
					t.Errorf("%s: %d roots, %v", repo, len(roots), err)
				}
			}
			if s := r.stored(); r.changes != 1 || len(s.Audit) != 1 || s.Audit[0].Act != "catalog.install" || s.Audit[0].Actor != "anna" {
				t.Errorf("told %d times, audit %+v", r.changes, s.Audit)
			}
			r.refuses(fleet.ErrCatalogStale, func() error { return r.Install(t.Context(), c, "eve") })
		})
	}
}

// TestInstallRefuses bends one thing of a good ceremony after the other.
func TestInstallRefuses(t *testing.T) {
	type ceremony = catalog.Ceremony
	one := func(keys []ed25519.PrivateKey) []ed25519.PrivateKey { return keys[:1] }
	for name, bend := range map[string]func(*rig, *ceremony){
		"catalog root by one holder": func(r *rig, c *ceremony) {
			c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot(), one(r.pub.Root)...)
		},
		"catalog root by one holder twice": func(r *rig, c *ceremony) {
			c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot(), r.pub.Root[0], r.pub.Root[0])
		},
		"director's root by one holder": func(r *rig, c *ceremony) {
			c.DirectorRoot = catalogtest.Sign(r.t, r.pub.DirectorRoot(), one(r.pub.Root)...)
		},
		"root by strangers": func(r *rig, c *ceremony) {
			c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot(), catalogtest.NewKey(), catalogtest.NewKey())
		},
		"root by the release keys": func(r *rig, c *ceremony) {
			c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot(), r.pub.Release...)
		},
		"root not signed":         func(r *rig, c *ceremony) { c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot()) },
		"roots exchanged":         func(_ *rig, c *ceremony) { c.CatalogRoot, c.DirectorRoot = c.DirectorRoot, c.CatalogRoot },
		"targets in root's place": func(_ *rig, c *ceremony) { c.CatalogRoot = c.Targets },
		"root of version 2": func(r *rig, c *ceremony) {
			root := r.pub.CatalogRoot()
			root.Signed.Version = 2
			c.CatalogRoot = catalogtest.Sign(r.t, root, r.pub.Root...)
		},
		"root with another server's timestamp key": func(r *rig, c *ceremony) {
			o := r.pub.Online
			r.pub.Online = catalogtest.NewOnline()
			c.CatalogRoot = catalogtest.Sign(r.t, r.pub.CatalogRoot(), r.pub.Root...)
			r.pub.Online = o
		},
		"director's root that holders sign targets of": func(r *rig, c *ceremony) {
			root := r.pub.DirectorRoot()
			root.Signed.Roles[metadata.TARGETS].KeyIDs = root.Signed.Roles[metadata.ROOT].KeyIDs
			c.DirectorRoot = catalogtest.Sign(r.t, root, r.pub.Root...)
		},
		"root with a fifth role": func(r *rig, c *ceremony) {
			root := r.pub.CatalogRoot()
			root.Signed.Roles["mirrors"] = root.Signed.Roles[metadata.ROOT]
			c.CatalogRoot = catalogtest.Sign(r.t, root, r.pub.Root...)
		},
		"targets by one holder": func(r *rig, c *ceremony) {
			c.Targets = catalogtest.Sign(r.t, r.pub.Delegations(), one(r.pub.Release)...)
		},
		"targets with a target": func(r *rig, c *ceremony) {
			md := r.pub.Delegations()
			md.Signed.Targets["dev/a/1.0.0"] = r.runtime("2.3.0").Target(r.t, 1)
			c.Targets = catalogtest.Sign(r.t, md, r.pub.Release...)
		},
		"production by one holder": func(r *rig, c *ceremony) {
			c.Roles["production"] = catalogtest.Sign(r.t, r.pub.Role("production"), one(r.pub.Release)...)
		},
		"a channel is missing":   func(_ *rig, c *ceremony) { delete(c.Roles, "staging") },
		"another channel's role": func(_ *rig, c *ceremony) { c.Roles["production"] = c.Roles["dev"] },
		"a role that publishes already": func(r *rig, c *ceremony) {
			md := r.pub.Role("dev")
			md.Signed.Targets["dev/a/1.0.0"] = r.runtime("2.3.0").Target(r.t, 1)
			c.Roles["dev"] = r.pub.SignRole(md)
		},
		"a role that delegates": func(r *rig, c *ceremony) {
			md := r.pub.Role("dev")
			md.Signed.Delegations = r.pub.Delegations().Signed.Delegations
			c.Roles["dev"] = r.pub.SignRole(md)
		},
		"everything a year later": func(r *rig, _ *ceremony) { r.now = r.now.Add(365 * 24 * time.Hour) },
		"roles half a year later": func(r *rig, _ *ceremony) { r.now = r.now.Add(180*24*time.Hour + time.Second) },
		"empty":                   func(_ *rig, c *ceremony) { *c = ceremony{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, 3)
			c := r.pub.Ceremony()
			bend(r, c)
			r.refuses(fleet.ErrCatalogRefused, func() error { return r.Install(t.Context(), c, "eve") })
		})
	}
}
