package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// maxTarget is the longest target that is downloaded, in bytes.
const maxTarget = 64 << 20

// client keeps what trust.Repository stores in a folder of its own below dir. The
// suite looks at dir itself, where each role has one file without a version: the
// copies of what is trusted.
type client struct {
	dir, metadataURL, targetURL, targetDir string

	repo *trust.Repository
}

func (c *client) store() string { return filepath.Join(c.dir, "trusted") }

// init stores the first root, as it is: a refresh verifies it.
func (c *client) init(root string) error {
	b, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	var r struct {
		Signed struct {
			Version int64 `json:"version"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(b, &r); err != nil || r.Signed.Version < 1 {
		return errors.Join(errors.New("the root has no version"), err)
	}
	if err := os.MkdirAll(c.store(), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.store(), strconv.FormatInt(r.Signed.Version, 10)+".root.json"), b, 0o600); err != nil {
		return err
	}
	return c.show()
}

// roots are the versions of the roots that are stored, in order.
func (c *client) roots() ([]int64, error) {
	names, err := filepath.Glob(filepath.Join(c.store(), "*.root.json"))
	var out []int64
	for _, name := range names {
		v, bad := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), ".root.json"), 10, 64)
		if bad == nil {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	if len(out) == 0 && err == nil {
		err = errors.New("there is no root: init comes first")
	}
	return out, err
}

// show copies what is trusted to where the suite looks.
func (c *client) show() error {
	roots, err := c.roots()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(c.store())
	if err != nil {
		return err
	}
	newest := strconv.FormatInt(roots[len(roots)-1], 10) + ".root.json"
	for _, e := range entries {
		to := e.Name()
		if strings.HasSuffix(to, ".root.json") {
			if to != newest {
				continue
			}
			to = "root.json"
		}
		b, err := os.ReadFile(filepath.Join(c.store(), e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(c.dir, to), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *client) refresh(ctx context.Context, now time.Time) error {
	roots, err := c.roots()
	if err != nil {
		return err
	}
	// The suite's repositories give no length and hash of snapshot and targets.
	policy := trust.Policy{BareMeta: true}
	c.repo, err = trust.OpenRepository(trust.RepositoryConfig{FS: durable.OS{}, Dir: c.store(), Anchor: roots[0], Policy: policy})
	if err != nil {
		return err
	}
	err = c.repo.Refresh(ctx, web(c.metadataURL), now)
	return errors.Join(err, c.show())
}

func (c *client) download(ctx context.Context, targets []string) error {
	for _, t := range targets {
		found, err := c.repo.Find(ctx, web(c.metadataURL), t)
		if err := errors.Join(err, c.show()); err != nil {
			return err
		}
		if err := c.target(ctx, t, found); err != nil {
			return fmt.Errorf("download %s: %w", t, err)
		}
	}
	return nil
}

// target stores a verified target, unless it is here already.
func (c *client) target(ctx context.Context, name string, t *metadata.TargetFiles) error {
	to := filepath.Join(c.targetDir, "target-"+url.PathEscape(name))
	if b, err := os.ReadFile(to); err == nil && t.VerifyLengthHashes(b) == nil {
		return nil
	}
	if t.Length > maxTarget || len(t.Hashes) == 0 {
		return fmt.Errorf("%d bytes with %d hashes", t.Length, len(t.Hashes))
	}
	from := strings.Split(name, "/")
	for i, part := range from {
		from[i] = url.PathEscape(part)
	}
	if last := len(from) - 1; c.repo.ConsistentSnapshot() {
		from[last] = hash(t) + "." + from[last]
	}
	b, err := get(ctx, c.targetURL, strings.Join(from, "/"), t.Length)
	if err == nil {
		err = t.VerifyLengthHashes(b)
	}
	if err == nil {
		err = durable.WriteFile(durable.OS{}, "tufconform.target", to, b, 0o600)
	}
	return err
}

// hash is the one that the file's name begins with: any that the target has.
func hash(t *metadata.TargetFiles) string {
	for _, h := range t.Hashes {
		return h.String()
	}
	return ""
}

// web is a folder of metadata on a web server.
type web string

// File implements trust.Files.
func (w web) File(ctx context.Context, role string, version, limit int64) ([]byte, error) {
	name := url.PathEscape(role) + ".json"
	if version > 0 {
		name = strconv.FormatInt(version, 10) + "." + name
	}
	return get(ctx, string(w), name, limit)
}

// get reads at most limit bytes and one more.
func get(ctx context.Context, base, name string, limit int64) ([]byte, error) {
	u := strings.TrimSuffix(base, "/") + "/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(resp.Body, limit+1))
	case http.StatusNotFound:
		return nil, fmt.Errorf("get %s: %w", u, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("get %s: %s", u, resp.Status)
}
