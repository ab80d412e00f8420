// Package catalogtest plays the publishers in tests of the catalog and of what
// stands on it: their keys, their ceremony and everything that they sign, right or
// wrong. The keys are made anew for each test.
package catalogtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"maps"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
)

// Targets is a document of TUF that lists targets.
type Targets = metadata.Metadata[metadata.TargetsType]

// Online are the keys of the server that the roots name.
type Online struct {
	catalog.Keys
	Director ed25519.PrivateKey
}

// NewOnline makes keys for a server.
func NewOnline() Online {
	return Online{catalog.Keys{Snapshot: NewKey(), Timestamp: NewKey()}, NewKey()}
}

// NewKey makes a key.
func NewKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(random(ed25519.SeedSize))
}

func random(n int) []byte { b := make([]byte, n); rand.Read(b); return b } // never fails

// Publishers are holders of whom Threshold must sign.
type Publishers struct {
	t         testing.TB
	Threshold int
	Root      []ed25519.PrivateKey // by holder
	Release   []ed25519.PrivateKey // by holder
	Online    Online
	Now       time.Time
	Teams     []Team

	roles map[string]*Targets // as last published
}

// Team signs some models of a channel.
type Team struct {
	Channel, Name string
	Models        []string
	Threshold     int
	Keys          []ed25519.PrivateKey
}

// Role is the team's in the catalog.
func (m *Team) Role() string { return fleet.TeamRole(m.Channel, m.Name) }

// New makes keys for holders.
func New(t testing.TB, threshold, holders int, online Online, now time.Time) *Publishers {
	p := &Publishers{t: t, Threshold: threshold, Online: online, Now: now, roles: map[string]*Targets{}}
	for range holders {
		p.Root, p.Release = append(p.Root, NewKey()), append(p.Release, NewKey())
	}
	return p
}

// Quorum are just enough of the keys.
func (p *Publishers) Quorum(keys []ed25519.PrivateKey) []ed25519.PrivateKey {
	return keys[:p.Threshold]
}

// Ceremony signs all that a server is to install.
func (p *Publishers) Ceremony() *catalog.Ceremony {
	targets := p.Delegations()
	c := &catalog.Ceremony{
		CatalogRoot:  Sign(p.t, p.CatalogRoot(), p.Quorum(p.Root)...),
		DirectorRoot: Sign(p.t, p.DirectorRoot(), p.Quorum(p.Root)...),
		Targets:      Sign(p.t, targets, p.Quorum(p.Release)...),
		Roles:        map[string][]byte{},
	}
	for _, role := range catalog.Roles(targets) {
		c.Roles[role] = p.SignAs(role, p.Role(role))
	}
	return c
}

// CatalogRoot is the catalog's first root, not signed.
func (p *Publishers) CatalogRoot() *metadata.Metadata[metadata.RootType] {
	r := p.root(p.Online.Snapshot, p.Online.Timestamp)
	for _, k := range p.Release {
		must(p.t, r.Signed.AddKey(tufKey(p.t, k), metadata.TARGETS))
	}
	r.Signed.Roles[metadata.TARGETS].Threshold = p.Threshold
	return r
}

// DirectorRoot is the director's first root, not signed.
func (p *Publishers) DirectorRoot() *metadata.Metadata[metadata.RootType] {
	r := p.root(p.Online.Director, p.Online.Director)
	must(p.t, r.Signed.AddKey(tufKey(p.t, p.Online.Director), metadata.TARGETS))
	return r
}

func (p *Publishers) root(snapshot, timestamp ed25519.PrivateKey) *metadata.Metadata[metadata.RootType] {
	r := metadata.Root(p.Now.Add(365 * 24 * time.Hour))
	r.Signed.ConsistentSnapshot = true
	for _, k := range p.Root {
		must(p.t, r.Signed.AddKey(tufKey(p.t, k), metadata.ROOT))
	}
	r.Signed.Roles[metadata.ROOT].Threshold = p.Threshold
	must(p.t, r.Signed.AddKey(tufKey(p.t, snapshot), metadata.SNAPSHOT))
	must(p.t, r.Signed.AddKey(tufKey(p.t, timestamp), metadata.TIMESTAMP))
	return r
}

// Delegations is the catalog's targets, which give each channel to the holders, and
// models to the teams before.
func (p *Publishers) Delegations() *Targets {
	md := metadata.Targets(p.Now.Add(180 * 24 * time.Hour))
	md.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	give := func(role metadata.DelegatedRole, keys []ed25519.PrivateKey) {
		role.Terminating = true
		for _, private := range keys {
			k := tufKey(p.t, private)
			id, err := k.ID()
			must(p.t, err)
			md.Signed.Delegations.Keys[id] = k
			role.KeyIDs = append(role.KeyIDs, id)
		}
		md.Signed.Delegations.Roles = append(md.Signed.Delegations.Roles, role)
	}
	for i := range p.Teams {
		m := &p.Teams[i]
		role := metadata.DelegatedRole{Name: m.Role(), Threshold: m.Threshold}
		for _, model := range m.Models {
			role.Paths = append(role.Paths, m.Channel+"/"+model+"/*")
		}
		give(role, m.Keys)
	}
	for _, ch := range fleet.Channels {
		give(metadata.DelegatedRole{Name: ch, Threshold: p.Threshold, Paths: []string{ch + "/*/*"}}, p.Release)
	}
	return md
}

// Role is the first, empty version of the role of a channel or a team, not signed.
func (p *Publishers) Role(role string) *Targets {
	channel, _ := fleet.ChannelOf(role)
	md := metadata.Targets(p.Now.Add(180 * 24 * time.Hour))
	md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": channel}}
	return md
}

// Next is the next version of a role, not signed: what Published took in last, and
// these bundles, each under the counter behind it.
func (p *Publishers) Next(role string, add map[*Bundle]int64) *Targets {
	channel, _ := fleet.ChannelOf(role)
	md := p.Role(role)
	if had := p.roles[role]; had != nil {
		md.Signed.Version, md.Signed.UnrecognizedFields = had.Signed.Version, maps.Clone(had.Signed.UnrecognizedFields)
		maps.Copy(md.Signed.Targets, had.Signed.Targets)
	}
	md.Signed.Version++
	for b, counter := range add {
		md.Signed.Targets[b.Path(channel)] = b.Target(p.t, counter)
	}
	return md
}

// Published remembers what the server has taken in.
func (p *Publishers) Published(role string, md *Targets) { p.roles[role] = md }

// SignRole signs a channel's role with just enough release keys.
func (p *Publishers) SignRole(md *Targets) []byte { return Sign(p.t, md, p.Quorum(p.Release)...) }

// SignAs signs the role of a channel or a team with just enough keys of those who may.
func (p *Publishers) SignAs(role string, md *Targets) []byte {
	for i := range p.Teams {
		if m := &p.Teams[i]; m.Role() == role {
			return Sign(p.t, md, m.Keys[:m.Threshold]...)
		}
	}
	return p.SignRole(md)
}

// Sign signs a document with these keys and no others.
func Sign[T metadata.Roles](t testing.TB, md *metadata.Metadata[T], keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	md.Signatures = nil
	for _, k := range keys {
		s, err := signature.LoadED25519Signer(k)
		must(t, err)
		_, err = md.Sign(s)
		must(t, err)
	}
	b, err := md.ToBytes(false)
	must(t, err)
	return b
}

func tufKey(t testing.TB, k ed25519.PrivateKey) *metadata.Key {
	t.Helper()
	out, err := metadata.KeyFromPublicKey(k.Public())
	must(t, err)
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
