package publish

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// ReleaseConfig says what to publish, where and under whose signatures.
type ReleaseConfig struct {
	Dir     string // of the bundle
	Channel string
	Keys    []*offline.Key
	Trust   *Trust
	Floor   int64 // the model's new floor in the channel; 0: as it is
	Force   bool  // publish although the file is not what the contract says

	Signature *modelsig.Policy // whose model.sig the bundle must carry; nil: nobody's
}

// Published is what was published.
type Published struct {
	Path     string   `json:"path"`
	Digest   string   `json:"digest"`
	Counter  int64    `json:"counter"`
	Floor    int64    `json:"floor,omitempty"`
	Version  int64    `json:"role_version"`
	Signers  []string `json:"signers"`
	Uploaded int      `json:"uploaded"`          // blobs that the server did not have
	Already  bool     `json:"already,omitempty"` // it was there; nothing was changed
	Signing  *Signing `json:"signing,omitempty"`
}

// Publish signs a bundle under a channel and brings it to the server. What is
// there already under the same digest is success; under another it is
// release.exists. Nothing is sent before the signatures reach the threshold, and
// the signed role comes last.
func (c *Client) Publish(ctx context.Context, conf ReleaseConfig, now time.Time) (*Published, error) {
	p, prop, b, err := c.prepare(ctx, conf, now)
	if err != nil || p.Already {
		return p, err
	}
	if err := prop.enough(); err != nil {
		return nil, err
	}
	if p.Uploaded, err = c.upload(ctx, b); err != nil {
		return nil, err
	}
	return p, c.Complete(ctx, prop)
}

// Propose signs as Publish does, with however few keys, and brings the bundle to the
// server. Nothing is published yet: others sign the proposal, which is nil where
// the release was published before.
func (c *Client) Propose(ctx context.Context, conf ReleaseConfig, now time.Time) (*Published, *Proposal, error) {
	p, prop, b, err := c.prepare(ctx, conf, now)
	if err != nil || p.Already {
		return p, nil, err
	}
	p.Uploaded, err = c.upload(ctx, b)
	return p, prop, err
}

func (c *Client) prepare(ctx context.Context, conf ReleaseConfig, now time.Time) (*Published, *Proposal, *bundle.Bundle, error) {
	b, err := openWhole(conf.Dir, conf.Force)
	if err != nil {
		return nil, nil, nil, err
	}
	if conf.Signature != nil {
		if _, err := modelsig.VerifyBundle(b, conf.Signature, now); err != nil {
			return nil, nil, nil, err
		}
	}
	ch, err := c.channel(ctx, conf.Channel, b.Release(0).Model, conf.Trust)
	if err != nil {
		return nil, nil, nil, err
	}
	x := addition{release: b.Release(0), digest: b.Digest, length: int64(len(b.Raw))}
	p, prop, err := ch.propose(x, conf.Floor, conf.Keys, now)
	return p, prop, b, err
}

// openWhole opens a bundle, reads all of it and, unless forced, judges it.
func openWhole(dir string, force bool) (*bundle.Bundle, error) {
	b, err := bundle.OpenLayout(os.DirFS(filepath.Clean(dir)))
	if err != nil {
		return nil, err
	}
	if err := b.Verify(); err != nil {
		return nil, err
	}
	if force {
		return b, nil
	}
	return b, b.Check()
}

// addition is a release that is to be in a channel; its counter is given there.
type addition struct {
	release bundle.Release
	digest  string // of the manifest
	length  int64
}

// propose makes the next version of the role with a release and a floor, signed by
// keys.
func (c *channel) propose(x addition, floor int64, keys []*offline.Key, now time.Time) (*Published, *Proposal, error) {
	if err := c.mayAll(keys); err != nil {
		return nil, nil, err
	}
	p, err := c.add(x, floor)
	if err != nil || p.Already {
		return p, nil, err
	}
	now = now.UTC().Truncate(time.Second)
	c.md.Signed.Version, c.md.Signed.Expires = c.next, now.Add(RoleLife)
	c.md.ClearSignatures()
	prop := &Proposal{Format: proposalFormat, Channel: c.name, Team: c.team, Made: now, Base: c.base, ch: c, md: c.md}
	if err := prop.Sign(keys); err != nil {
		return nil, nil, err
	}
	p.Version = c.next
	p.Signing = prop.Signing()
	p.Signers = p.Signing.By
	return p, prop, nil
}

// add puts the release into the role under the next counter of its model.
func (c *channel) add(x addition, floor int64) (*Published, error) {
	model := x.release.Model
	p := &Published{Path: bundle.TargetPath(c.name, model, x.release.Version), Digest: x.digest, Floor: floor, Version: c.md.Signed.Version}
	high, err := c.highest(model)
	if err != nil {
		return nil, err
	}
	have := c.md.Signed.Targets[p.Path]
	if have != nil {
		r, err := released(p.Path, have)
		if err != nil {
			return nil, err
		}
		if digest := "sha256:" + have.Hashes["sha256"].String(); digest != x.digest {
			return nil, fleet.ErrReleaseExists.With("%s is published as %s, this bundle is %s", p.Path, digest, x.digest)
		}
		p.Counter = r.Counter
	} else {
		p.Counter = high + 1
		if c.md.Signed.Targets[p.Path], err = x.target(p.Counter); err != nil {
			return nil, err
		}
	}
	if floor > p.Counter {
		return nil, refuse("floor.above", fmt.Sprintf("pass --floor %d or less", p.Counter), "a floor of %d would forbid %s itself, whose counter is %d", floor, p.Path, p.Counter)
	}
	raised, err := c.raise(model, floor)
	p.Already = have != nil && !raised
	return p, err
}

// target is what the role says about a release: its manifest's length and SHA-256,
// and what the contract says that devices ask about.
func (x *addition) target(counter int64) (*metadata.TargetFiles, error) {
	hash, err := hex.DecodeString(strings.TrimPrefix(x.digest, "sha256:"))
	if err != nil {
		return nil, err
	}
	r := x.release
	r.Counter = counter
	custom, err := json.Marshal(bundle.Custom{Release: r})
	if err != nil {
		return nil, err
	}
	raw := json.RawMessage(custom)
	return &metadata.TargetFiles{Length: x.length, Hashes: metadata.Hashes{"sha256": hash}, Custom: &raw}, nil
}

// released reads what a target says about its release.
func released(path string, t *metadata.TargetFiles) (bundle.Release, error) {
	var c bundle.Custom
	if t.Custom == nil {
		return c.Release, untrusted("%s has no custom object", path)
	}
	if err := json.Unmarshal(*t.Custom, &c); err != nil {
		return c.Release, untrusted("%s: %v", path, err)
	}
	return c.Release, nil
}
