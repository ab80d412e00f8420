package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Limits in bytes and numbers; the specification leaves them to the client.
const (
	maxRoot      = 512_000
	maxTimestamp = 16_384
	maxSnapshot  = 2_000_000
	maxTargets   = 5_000_000
	maxRotations = 256 // of roots in one refresh
)

func limit(role string) int64 {
	switch role {
	case metadata.ROOT:
		return maxRoot
	case metadata.TIMESTAMP:
		return maxTimestamp
	case metadata.SNAPSHOT:
		return maxSnapshot
	}
	return maxTargets
}

func rootName(version int64) string { return strconv.FormatInt(version, 10) + ".root.json" }

func roleName(role string) string { return role + ".json" }

// repo verifies one TUF repository in memory. Files that verified and are not yet
// on disk wait in fresh.
type repo struct {
	name  string
	dir   string
	fsys  durable.FS
	tm    *trustedmetadata.TrustedMetadata
	fresh map[string][]byte // by file name
	// rotated tells that a root changed the keys of timestamp or snapshot: the
	// versions seen under the old keys do not count any more.
	rotated bool
	roles   map[string]*metadata.Metadata[metadata.TargetsType] // delegated, verified
	// versions per role, of what is verified now.
	versions map[string]int64
	// lockbox leaves the dates of timestamp and snapshot unjudged, see RefreshLockbox.
	lockbox bool
	now     time.Time // that the other dates are judged at then
}

// guarded keeps a parser's panic from being more than a refusal.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = refuse(CodeMalformed, "the metadata is not understood: %v", r)
		}
	}()
	return f()
}

// openRepo replays the roots that are stored: the first one is the anchor, each
// later one must be signed by the one before. A damaged one ends the chain there.
func openRepo(fsys durable.FS, dir, name string) (*repo, error) {
	r := &repo{name: name, dir: filepath.Join(dir, name), fsys: fsys, fresh: map[string][]byte{}, roles: map[string]*metadata.Metadata[metadata.TargetsType]{}, versions: map[string]int64{}}
	first, err := durable.ReadFile(fsys, filepath.Join(r.dir, rootName(1)), maxRoot)
	if err != nil {
		return nil, fmt.Errorf("the first root of the %s: %w", name, err)
	}
	if err := Strict(first); err != nil {
		return nil, fmt.Errorf("the first root of the %s: %w", name, err)
	}
	if err := guarded(func() error { r.tm, err = trustedmetadata.New(first); return err }); err != nil {
		return nil, fmt.Errorf("the first root of the %s: %w", name, err)
	}
	for v := int64(2); ; v++ {
		b, err := durable.ReadFile(fsys, filepath.Join(r.dir, rootName(v)), maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil || r.root(b) != nil {
			break
		}
	}
	r.rotated = false // what is stored was judged when it came
	r.fresh = map[string][]byte{}
	r.versions[metadata.ROOT] = r.tm.Root.Signed.Version
	return r, nil
}

// root takes the next root.
func (r *repo) root(b []byte) error {
	if err := check(b, maxRoot); err != nil {
		return err
	}
	old := roleKeys(r.tm.Root)
	err := guarded(func() error { _, err := r.tm.UpdateRoot(b); return err })
	if err != nil {
		return classify(err, metadata.ROOT)
	}
	if now := roleKeys(r.tm.Root); !maps.EqualFunc(old, now, slices.Equal[[]string]) {
		r.rotated = true
	}
	v := r.tm.Root.Signed.Version
	r.versions[metadata.ROOT] = v
	r.fresh[rootName(v)] = b
	return nil
}

// roleKeys are the keys of the roles whose versions count as long as their keys do.
func roleKeys(root *metadata.Metadata[metadata.RootType]) map[string][]string {
	out := map[string][]string{}
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT} {
		if x := root.Signed.Roles[role]; x != nil {
			out[role] = slices.Sorted(slices.Values(x.KeyIDs))
		}
	}
	return out
}

func check(b []byte, limit int64) error {
	if int64(len(b)) > limit {
		return refuse(CodeTooLarge, "metadata of %d bytes, at most %d are read", len(b), limit)
	}
	if err := Strict(b); err != nil {
		return refuse(CodeMalformed, "metadata: %w", err)
	}
	return nil
}

// classify names the attack that an error of the TUF library stands for.
func classify(err error, role string) error {
	var r *Refusal
	if errors.As(err, &r) {
		return err
	}
	code := CodeMalformed
	switch {
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		code = CodeSignature
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		code = CodeFreeze
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		code = CodeMixAndMatch
	case errors.Is(err, &metadata.ErrBadVersionNumber{}), errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		code = CodeRollback
	case errors.Is(err, &metadata.ErrRepository{}):
		code = CodeMixAndMatch
	}
	return refuse(code, "%s: %w", role, err)
}

// stored reads a role's file; damage is absence.
func (r *repo) stored(role string) ([]byte, bool) {
	b, err := durable.ReadFile(r.fsys, filepath.Join(r.dir, roleName(role)), limit(role))
	return b, err == nil && Strict(b) == nil
}

// verify walks timestamp, snapshot and targets at the given time. Each is first
// what is stored, if that still verifies, then what was brought. With stored
// alone, expiry is judged by nobody: pass the zero time.
func (r *repo) verify(brought map[string][]byte, now time.Time) error {
	r.tm.RefTime = now
	if r.lockbox {
		if err := r.undated(now); err != nil {
			return err
		}
	}
	if err := r.timestamp(brought[metadata.TIMESTAMP]); err != nil {
		return err
	}
	if err := r.snapshot(brought[metadata.SNAPSHOT]); err != nil {
		return err
	}
	return r.role(metadata.TARGETS, metadata.ROOT, brought[metadata.TARGETS])
}

func (r *repo) timestamp(b []byte) error {
	var stale error
	if old, ok := r.stored(metadata.TIMESTAMP); ok {
		// A failure of what is stored is no failure of the device; an expired one
		// still counts against a rollback.
		stale = guarded(func() error { _, err := r.tm.UpdateTimestamp(old); return err })
	} else {
		stale = refuse(CodeFreeze, "no timestamp is held")
	}
	if b != nil {
		if err := check(b, maxTimestamp); err != nil {
			return err
		}
		err := guarded(func() error { _, err := r.tm.UpdateTimestamp(b); return err })
		switch {
		case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		case err != nil:
			return classify(err, metadata.TIMESTAMP)
		default:
			r.fresh[roleName(metadata.TIMESTAMP)], stale = b, nil
		}
	}
	if stale != nil {
		return classify(stale, metadata.TIMESTAMP)
	}
	if r.tm.Timestamp == nil || r.tm.Timestamp.Signed.Meta["snapshot.json"] == nil {
		return refuse(CodeMalformed, "the timestamp names no snapshot")
	}
	if m := r.tm.Timestamp.Signed.Meta["snapshot.json"]; m.Length <= 0 || len(m.Hashes) == 0 {
		return refuse(CodeMalformed, "the timestamp gives no length and hash of the snapshot")
	}
	r.versions[metadata.TIMESTAMP] = r.tm.Timestamp.Signed.Version
	return nil
}

func (r *repo) snapshot(b []byte) error {
	unusable := refuse(CodeMixAndMatch, "the snapshot that the timestamp names is missing")
	if old, have := r.stored(metadata.SNAPSHOT); have {
		err := guarded(func() error { _, err := r.tm.UpdateSnapshot(old, true); return err })
		if err == nil || errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			unusable = err
		}
	}
	if unusable != nil {
		if b == nil {
			return classify(unusable, metadata.SNAPSHOT)
		}
		if err := check(b, maxSnapshot); err != nil {
			return err
		}
		if err := guarded(func() error { _, err := r.tm.UpdateSnapshot(b, false); return err }); err != nil {
			return classify(err, metadata.SNAPSHOT)
		}
		r.fresh[roleName(metadata.SNAPSHOT)] = b
	}
	for name, m := range r.tm.Snapshot.Signed.Meta {
		if m == nil || m.Length <= 0 || len(m.Hashes) == 0 {
			return refuse(CodeMalformed, "the snapshot gives no length and hash of %s", name)
		}
	}
	r.versions[metadata.SNAPSHOT] = r.tm.Snapshot.Signed.Version
	return nil
}

// role verifies a targets role against its delegator, every time anew.
func (r *repo) role(name, delegator string, b []byte) error {
	var md *metadata.Metadata[metadata.TargetsType]
	update := func(b []byte) error {
		return guarded(func() (err error) { md, err = r.tm.UpdateDelegatedTargets(b, name, delegator); return err })
	}
	unusable := refuse(CodeMixAndMatch, "the role %s that the snapshot names is missing", name)
	if old, have := r.stored(name); have {
		if err := update(old); err == nil || errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			unusable = err
		}
	}
	if unusable != nil {
		if b == nil {
			return classify(unusable, name)
		}
		if err := check(b, maxTargets); err != nil {
			return err
		}
		if err := update(b); err != nil {
			return classify(err, name)
		}
		r.fresh[roleName(name)] = b
	}
	if r.lockbox && md.Signed.IsExpired(r.now) {
		return refuse(CodeFreeze, "%s has expired", name)
	}
	r.roles[name] = md
	r.versions[name] = md.Signed.Version
	return nil
}

// store writes what is fresh: roots in order first, timestamp last, so that what
// is named is there before it is named.
func (r *repo) store() error {
	names := slices.Sorted(maps.Keys(r.fresh))
	slices.SortStableFunc(names, func(a, b string) int { return order(a) - order(b) })
	for _, name := range names {
		if err := durable.WriteFile(r.fsys, "trust."+r.name, filepath.Join(r.dir, name), r.fresh[name], 0o600); err != nil {
			return fmt.Errorf("store %s of the %s: %w", name, r.name, err)
		}
	}
	r.fresh = map[string][]byte{}
	return nil
}

func order(name string) int {
	switch {
	case name == roleName(metadata.TIMESTAMP):
		return 3
	case name == roleName(metadata.SNAPSHOT):
		return 2
	case filepath.Ext(name[:len(name)-len(".json")]) == ".root":
		return 0
	}
	return 1
}
