package publish

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// ReleaseConfig says what to publish, where and under whose signatures.
type ReleaseConfig struct {
	Dir     string // of the bundle
	Channel string
	Keys    []*Key
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
}

// Publish signs a bundle under a channel and brings it to the server. What is
// there already under the same digest is success; under another it is
// release.exists. Nothing is sent before the signatures reach the threshold, and
// the signed role comes last.
func (c *Client) Publish(ctx context.Context, conf ReleaseConfig, now time.Time) (*Published, error) {
	b, err := openWhole(conf.Dir, conf.Force)
	if err != nil {
		return nil, err
	}
	if conf.Signature != nil {
		if _, err := modelsig.VerifyBundle(b, conf.Signature, now); err != nil {
			return nil, err
		}
	}
	ch, err := c.channel(ctx, conf.Channel, conf.Trust)
	if err != nil {
		return nil, err
	}
	p, err := ch.add(b, conf.Floor)
	if err != nil || p.Already {
		return p, err
	}
	ch.md.Signed.Version++
	ch.md.Signed.Expires = now.UTC().Truncate(time.Second).Add(RoleLife)
	p.Version = ch.md.Signed.Version
	if p.Signers, err = ch.sign(conf.Keys); err != nil {
		return nil, err
	}
	role, err := ch.md.ToBytes(false)
	if err != nil {
		return nil, err
	}
	if p.Uploaded, err = c.upload(ctx, b); err != nil {
		return nil, err
	}
	_, err = c.do(ctx, http.MethodPut, "/v1/catalog/roles/"+conf.Channel, &body{bytes.NewReader(role), int64(len(role)), "application/json"})
	return p, err
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

// add puts the bundle into the role under the next counter of its model.
func (c *channel) add(b *bundle.Bundle, floor int64) (*Published, error) {
	model := b.Contract.Model
	p := &Published{Path: bundle.TargetPath(c.name, model, b.Contract.Version), Digest: b.Digest, Floor: floor, Version: c.md.Signed.Version}
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
		if digest := "sha256:" + have.Hashes["sha256"].String(); digest != b.Digest {
			return nil, fleet.ErrReleaseExists.With("%s is published as %s, this bundle is %s", p.Path, digest, b.Digest)
		}
		p.Counter = r.Counter
	} else {
		p.Counter = high + 1
		if c.md.Signed.Targets[p.Path], err = target(b, p.Counter); err != nil {
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

// target is what the role says about a bundle: its manifest's length and SHA-256,
// and the release.
func target(b *bundle.Bundle, counter int64) (*metadata.TargetFiles, error) {
	hash, err := hex.DecodeString(strings.TrimPrefix(b.Digest, "sha256:"))
	if err != nil {
		return nil, err
	}
	custom, err := json.Marshal(bundle.Custom{Release: b.Release(counter)})
	if err != nil {
		return nil, err
	}
	raw := json.RawMessage(custom)
	return &metadata.TargetFiles{Length: int64(len(b.Raw)), Hashes: metadata.Hashes{"sha256": hash}, Custom: &raw}, nil
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
