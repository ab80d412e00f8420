package publish

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Lifetimes of what is signed offline.
const (
	RootLife = 365 * 24 * time.Hour
	RoleLife = 180 * 24 * time.Hour
)

// Files of a ceremony, each signed by the holders' keys of one kind.
const (
	catalogRootFile  = "catalog-root.json"
	directorRootFile = "director-root.json"
	targetsFile      = "targets.json"
)

// draft is one file of a ceremony as it must be: everything but the signatures
// follows from ceremony.json.
type draft struct {
	file      string
	kind      string // of the keys that sign it
	threshold int
	expires   time.Time
	paper     Paper
}

// drafts makes all of them; equal ceremonies give equal drafts.
func (c *Ceremony) drafts() ([]draft, error) {
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
	root, role := c.Drafted.Add(RootLife), c.Drafted.Add(RoleLife)
	list := []draft{
		{catalogRootFile, rootKey, c.Threshold, root, catalog},
		{directorRootFile, rootKey, c.Threshold, root, director},
		{targetsFile, releaseKey, c.Threshold, role, targets},
	}
	for _, ch := range fleet.Channels {
		md := metadata.Targets(role)
		md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"channel": ch}}
		list = append(list, draft{ch + ".json", releaseKey, c.channelThreshold(ch), role, md})
	}
	return list, nil
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

// targets delegates each channel to the holders' release keys.
func (c *Ceremony) targets() (*metadata.Metadata[metadata.TargetsType], error) {
	md := metadata.Targets(c.Drafted.Add(RoleLife))
	if c.Practice {
		md.Signed.UnrecognizedFields = map[string]any{"custom": map[string]any{"practice": true}}
	}
	md.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, ch := range fleet.Channels {
		role := metadata.DelegatedRole{Name: ch, Threshold: c.channelThreshold(ch), Terminating: true, Paths: []string{ch + "/*/*"}}
		for i := range c.Joined {
			k, id, err := TUFKey(c.Joined[i].Release)
			if err != nil {
				return nil, err
			}
			md.Signed.Delegations.Keys[id] = k
			role.KeyIDs = append(role.KeyIDs, id)
		}
		for i := range c.Machines {
			if c.Machines[i].Channel != ch {
				continue
			}
			k, id, err := TUFKey(c.Machines[i].Key)
			if err != nil {
				return nil, err
			}
			md.Signed.Delegations.Keys[id] = k
			role.KeyIDs = append(role.KeyIDs, id)
		}
		md.Signed.Delegations.Roles = append(md.Signed.Delegations.Roles, role)
	}
	return md, nil
}

// channelThreshold: devices that matter take nothing that one person alone signed.
func (c *Ceremony) channelThreshold(channel string) int {
	if channel == fleet.Channels[len(fleet.Channels)-1] {
		return c.Threshold
	}
	return 1
}

func addKey(root *metadata.RootType, public []byte, role string) error {
	k, _, err := TUFKey(public)
	if err != nil {
		return err
	}
	return root.AddKey(k, role)
}

func (c *Ceremony) writeDrafts(dir string) error {
	list, err := c.drafts()
	if err != nil {
		return err
	}
	for _, d := range list {
		b, err := d.paper.ToBytes(true)
		if err != nil {
			return fmt.Errorf("draft %s: %w", d.file, err)
		}
		if err := ReplaceFile(filepath.Join(dir, d.file), b); err != nil {
			return err
		}
	}
	return nil
}
