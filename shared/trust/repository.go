package trust

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// maxDelegations is how many roles one search visits.
const maxDelegations = 32

// Files brings single files of one repository, as a folder or a plain web server
// does. Nothing that it brings is believed.
type Files interface {
	// File returns a role's file, the newest for version 0. It reads at most limit
	// bytes, and one more tells that there are too many. A file that is not there
	// is fs.ErrNotExist.
	File(ctx context.Context, role string, version, limit int64) ([]byte, error)
}

// Policy says where a Repository asks for less than a device does. A Client knows
// the zero Policy only.
type Policy struct {
	// BareMeta takes a timestamp and a snapshot that give no length and no SHA-256
	// of the files that they name. The specification leaves both away as it likes;
	// with them a device parses nothing that was not signed.
	BareMeta bool
}

// RepositoryConfig of a Repository.
type RepositoryConfig struct {
	FS     durable.FS
	Dir    string // of the files; holds the anchor as N.root.json
	Anchor int64  // version of the first root
	Policy Policy
}

// Repository is one TUF repository, read in the order of the specification
// (section 5): one of the two that a Client compares, on its own. It is what
// readers of foreign repositories and conformance tests use. It keeps what
// verified also when what follows does not, as the specification wants; a Client
// keeps all or nothing. It is not safe for concurrent use.
type Repository struct {
	repo
	anchor int64
}

// OpenRepository verifies the roots that are stored.
func OpenRepository(c RepositoryConfig) (*Repository, error) {
	r := &Repository{repo: repo{name: filepath.Base(c.Dir), dir: c.Dir, fsys: c.FS, policy: c.Policy}, anchor: c.Anchor}
	return r, r.open(c.Anchor)
}

// Refresh brings the newest top-level roles. A *Refusal names the attack.
func (r *Repository) Refresh(ctx context.Context, src Files, now time.Time) error {
	if err := r.open(r.anchor); err != nil {
		return err
	}
	err := r.newerRoots(ctx, src)
	if err == nil {
		err = r.verify(from(ctx, src), now)
	}
	return errors.Join(err, r.store())
}

// from asks for one file after the other.
func from(ctx context.Context, src Files) bringer {
	return func(role string, version, limit int64) ([]byte, error) {
		b, err := src.File(ctx, role, version, limit)
		if err == nil && int64(len(b)) > limit {
			err = refuse(CodeTooLarge, "%s is longer than %d bytes", role, limit)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = refuse(CodeMixAndMatch, "the repository has no %s of version %d: %w", role, version, err)
		}
		return b, err
	}
}

func (r *Repository) newerRoots(ctx context.Context, src Files) error {
	for range maxRotations {
		b, err := src.File(ctx, metadata.ROOT, r.versions[metadata.ROOT]+1, maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the next root: %w", err)
		}
		if err := r.root(b); err != nil {
			return err
		}
	}
	return nil
}

// ConsistentSnapshot tells whether targets are stored under names that begin with
// their hash.
func (r *Repository) ConsistentSnapshot() bool { return r.tm.Root.Signed.ConsistentSnapshot }

// ErrNoTarget says that no role speaks of a target.
var ErrNoTarget = errors.New("no such target")

// Find searches for a target, after a Refresh: depth first, in the order of the
// delegations, each role verified by the one that delegates to it here and now.
func (r *Repository) Find(ctx context.Context, src Files, target string) (*metadata.TargetFiles, error) {
	found, err := r.find(from(ctx, src), target)
	if err := errors.Join(err, r.store()); err != nil {
		return nil, fmt.Errorf("find %s: %w", target, err)
	}
	return found, nil
}

// delegation is a role by way of another.
type delegation struct{ role, by string }

func (r *repo) find(bring bringer, target string) (*metadata.TargetFiles, error) {
	next := []delegation{{metadata.TARGETS, metadata.ROOT}}
	visited := map[string]bool{}
	for len(next) > 0 && len(visited) < maxDelegations {
		d := next[0]
		next = next[1:]
		if visited[d.role] {
			continue
		}
		visited[d.role] = true
		if err := r.role(d.role, d.by, bring); err != nil {
			return nil, err
		}
		signed := r.roles[d.role].Signed
		if found := signed.Targets[target]; found != nil {
			return found, nil
		}
		var children []delegation
		for _, c := range responsible(signed.Delegations, target) {
			children = append(children, delegation{c.Name, d.role})
			if c.Terminating {
				next = nil
				break
			}
		}
		next = slices.Concat(children, next)
	}
	return nil, ErrNoTarget
}

// responsible are the roles that a path is delegated to, in order. Prefixes of
// hashes are hexadecimal, which the library overlooks.
func responsible(d *metadata.Delegations, target string) []metadata.RoleResult {
	switch {
	case d == nil:
		return nil
	case d.Roles == nil:
		return d.GetRolesForTarget(target)
	}
	var out []metadata.RoleResult
	sum := sha256.Sum256([]byte(target))
	hash := hex.EncodeToString(sum[:])
	for _, role := range d.Roles {
		if slices.ContainsFunc(role.Paths, func(p string) bool { return matches(p, target) }) ||
			slices.ContainsFunc(role.PathHashPrefixes, func(p string) bool { return strings.HasPrefix(hash, p) }) {
			out = append(out, metadata.RoleResult{Name: role.Name, Terminating: role.Terminating})
		}
	}
	return out
}

// matches compares part by part: a wildcard does not cross a slash.
func matches(pattern, target string) bool {
	return slices.EqualFunc(strings.Split(pattern, "/"), strings.Split(target, "/"), func(p, t string) bool {
		ok, err := path.Match(p, t)
		return ok && err == nil
	})
}
