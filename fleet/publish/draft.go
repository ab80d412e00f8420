package publish

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// Lifetimes of what is signed offline.
const (
	RootLife = 365 * 24 * time.Hour
	RoleLife = 180 * 24 * time.Hour
)

// Files of a ceremony, each signed by the holders' keys of one kind.
const (
	CatalogRootFile  = "catalog-root.json"
	DirectorRootFile = "director-root.json"
	TargetsFile      = "targets.json"
)

// Draft is one file of a ceremony as it must be: everything but the signatures
// follows from ceremony.json.
type Draft struct {
	File      string
	Kind      string // of the keys that sign it
	Threshold int
	Expires   time.Time
	Paper     offline.Paper
	Members   []string // holders who may sign; nil: all
}

// May tells whether a holder is one of those who sign.
func (d *Draft) May(holder string) bool {
	return d.Members == nil || slices.Contains(d.Members, holder)
}

// Drafts makes all of them; equal ceremonies give equal drafts. After an amendment
// the roles of the channels are no longer among them.
func (c *Ceremony) Drafts() ([]Draft, error) {
	catalog, err := c.root(c.Online.Snapshot, c.Online.Timestamp)
	if err != nil {
		return nil, err
	}
	for i := range c.Joined {
		if err := addKey(&catalog.Signed, c.Joined[i].Release, metadata.TARGETS); err != nil {
			return nil, err
		}
	}
	catalog.Signed.Roles[metadata.TARGETS].Threshold = c.Threshold
	director, err := c.root(c.Online.Director, c.Online.Director)
	if err != nil {
		return nil, err
	}
	if err := addKey(&director.Signed, c.Online.Director, metadata.TARGETS); err != nil {
		return nil, err
	}
	targets, err := c.targets()
	if err != nil {
		return nil, err
	}
	catalog.Signed.Version, catalog.Signed.Expires = c.edition(CatalogRootFile, RootLife)
	director.Signed.Version, director.Signed.Expires = c.edition(DirectorRootFile, RootLife)
	targets.Signed.Version, targets.Signed.Expires = c.edition(TargetsFile, RoleLife)
	list := []Draft{
		{CatalogRootFile, KindRoot, c.Threshold, catalog.Signed.Expires, catalog, nil},
		{DirectorRootFile, KindRoot, c.Threshold, director.Signed.Expires, director, nil},
		{TargetsFile, KindRelease, c.Threshold, targets.Signed.Expires, targets, nil},
	}
	if len(c.Editions) > 0 {
		return list, nil // what the roles of channels hold by now does not follow from here
	}
	end := c.Drafted.Add(RoleLife)
	for _, r := range c.Roles() {
		md := metadata.Targets(end)
		md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": r.Channel}}
		list = append(list, Draft{r.File(), KindRelease, r.Threshold, end, md, r.Members})
	}
	return list, nil
}

// edition is a file's version and when it expires.
func (c *Ceremony) edition(file string, life time.Duration) (int64, time.Time) {
	e := c.Edition(file)
	return e.Version, e.Drafted.Add(life)
}

// root is a root with the holders' keys, and the online keys of snapshot and
// timestamp.
func (c *Ceremony) root(snapshot, timestamp ed25519.PublicKey) (*metadata.Metadata[metadata.RootType], error) {
	md := metadata.Root(c.Drafted.Add(RootLife))
	md.Signed.ConsistentSnapshot = true
	for i := range c.Joined {
		if err := addKey(&md.Signed, c.Joined[i].Root, metadata.ROOT); err != nil {
			return nil, err
		}
	}
	md.Signed.Roles[metadata.ROOT].Threshold = c.Threshold
	if err := addKey(&md.Signed, snapshot, metadata.SNAPSHOT); err != nil {
		return nil, err
	}
	return md, addKey(&md.Signed, timestamp, metadata.TIMESTAMP)
}

// targets delegates each channel to the holders' release keys, and models to teams.
func (c *Ceremony) targets() (*metadata.Metadata[metadata.TargetsType], error) {
	md := metadata.Targets(c.Drafted.Add(RoleLife))
	if c.Practice {
		md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"practice": true}}
	}
	md.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, r := range c.Roles() {
		if err := c.delegate(md.Signed.Delegations, &r); err != nil {
			return nil, err
		}
	}
	return md, nil
}

// ChannelThreshold: devices that matter take nothing that one person alone signed.
func (c *Ceremony) ChannelThreshold(channel string) int {
	if channel == fleet.Channels[len(fleet.Channels)-1] {
		return c.Threshold
	}
	return 1
}

func addKey(root *metadata.RootType, public []byte, role string) error {
	k, _, err := offline.TUFKey(public)
	if err != nil {
		return err
	}
	return root.AddKey(k, role)
}

func (c *Ceremony) writeDrafts(dir string) error {
	list, err := c.Drafts()
	if err != nil {
		return err
	}
	for _, d := range list {
		b, err := d.Paper.ToBytes(true)
		if err != nil {
			return fmt.Errorf("draft %s: %w", d.File, err)
		}
		if err := offline.ReplaceFile(filepath.Join(dir, d.File), b); err != nil {
			return err
		}
	}
	return nil
}
