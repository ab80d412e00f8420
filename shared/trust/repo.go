package trust

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	maxRoleName  = 200 // bytes, escaped
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

// roleName is the file of a role, which may have any name that nameable takes.
func roleName(role string) string { return url.PathEscape(role) + ".json" }

// nameable refuses delegated roles whose file would be another role's.
func nameable(role string) error {
	if slices.Contains([]string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT}, role) || strings.HasSuffix(role, "."+metadata.ROOT) || role == "" || len(roleName(role)) > maxRoleName {
		return refuse(CodeMalformed, "no delegated role may be called %.80q", role)
	}
	return nil
}

// bringer returns a role's file as it was brought, nil when it was not. The
// version is the one that is named by what came before it, 0 for the newest; more
// than limit bytes are too many.
type bringer func(role string, version, limit int64) ([]byte, error)

// nothing is brought.
func nothing(string, int64, int64) ([]byte, error) { return nil, nil }

// repo verifies one TUF repository in memory. Files that verified and are not yet
// on disk wait in fresh.
type repo struct {
	name   string
	dir    string
	fsys   durable.FS
	policy Policy
	tm     *trustedmetadata.TrustedMetadata
	fresh  map[string][]byte // by file name
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
	r := &repo{name: name, dir: filepath.Join(dir, name), fsys: fsys}
	return r, r.open(1)
}

// open begins anew at the anchor, which is the root of that version.
func (r *repo) open(anchor int64) error {
	r.fresh, r.roles, r.versions = map[string][]byte{}, map[string]*metadata.Metadata[metadata.TargetsType]{}, map[string]int64{}
	first, err := durable.ReadFile(r.fsys, filepath.Join(r.dir, rootName(anchor)), maxRoot)
	if err == nil {
		err = Strict(first)
	}
	if err == nil {
		err = guarded(func() error { r.tm, err = trustedmetadata.New(first); return err })
	}
	if err != nil {
		return fmt.Errorf("the first root of the %s: %w", r.name, err)
	}
	for v := anchor + 1; ; v++ {
		b, err := durable.ReadFile(r.fsys, filepath.Join(r.dir, rootName(v)), maxRoot)
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
	return nil
}

// root takes the next root.
func (r *repo) root(b []byte) error {
	if err := check(b, maxRoot); err != nil {
		return err
	}
	old := roleKeys(r.tm.Root)
	err := guarded(func() error {
		root, err := r.tm.UpdateRoot(b)
		if err == nil {
			err = supported(root.Signed.SpecVersion)
		}
		return err
	})
	if err != nil {
		return r.refusedRoot(b, err)
	}
	if now := roleKeys(r.tm.Root); !maps.EqualFunc(old, now, slices.Equal[[]string]) {
		r.rotated = true
	}
	v := r.tm.Root.Signed.Version
	r.versions[metadata.ROOT] = v
	r.fresh[rootName(v)] = b
	return nil
}

// refusedRoot names what is wrong with a root that the library refused.
func (r *repo) refusedRoot(b []byte, err error) error {
	var next *metadata.Metadata[metadata.RootType]
	parsed := guarded(func() (err error) { next, err = metadata.Root().FromBytes(b); return err })
	switch {
	case parsed != nil:
	case errors.Is(err, &metadata.ErrBadVersionNumber{}) && next.Signed.Version > r.versions[metadata.ROOT]:
		return refuse(CodeRootGap, "root: %w", err)
	case next.Signed.Roles[metadata.ROOT] != nil:
		err = understood(next.Signed.Keys, next.Signed.Roles[metadata.ROOT].KeyIDs, err)
	}
	return classify(err, metadata.ROOT)
}

// understood names a failure that comes from a key of a type that the library
// does not know: it can then verify nothing that the key may sign.
func understood(keys map[string]*metadata.Key, ids []string, err error) error {
	if errors.Is(err, &metadata.ErrRepository{}) {
		return err // what the library has judged
	}
	for _, id := range ids {
		if k := keys[id]; k != nil && !slices.Contains(keyTypes, k.Type) {
			return refuse(CodeUnknownKey, "a key of type %.40q: %w", k.Type, err)
		}
	}
	return err
}

var keyTypes = []string{metadata.KeyTypeEd25519, metadata.KeyTypeECDSA_SHA2_P256, metadata.KeyTypeECDSA_SHA2_P256_COMPAT, metadata.KeyTypeRSASSA_PSS_SHA256}

// refused names what is wrong with a role that the library refused, by the keys
// that its delegator gives it.
func (r *repo) refused(err error, role, delegator string) error {
	if delegator == metadata.ROOT {
		if x := r.tm.Root.Signed.Roles[role]; x != nil {
			err = understood(r.tm.Root.Signed.Keys, x.KeyIDs, err)
		}
	} else if md := r.roles[delegator]; md != nil && md.Signed.Delegations != nil {
		for _, x := range md.Signed.Delegations.Roles {
			if x.Name == role {
				err = understood(md.Signed.Delegations.Keys, x.KeyIDs, err)
			}
		}
	}
	return classify(err, role)
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

// supported wants the major version of the specification that this is written for:
// the next one may mean something else by the same fields.
func supported(spec string) error {
	if !strings.HasPrefix(spec, "1.") {
		return refuse(CodeSpecVersion, "the metadata is of version %.20q of the specification, 1 is understood", spec)
	}
	return nil
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
// what is stored, if that still verifies, then what is brought. With stored
// alone, expiry is judged by nobody: pass the zero time.
func (r *repo) verify(bring bringer, now time.Time) error {
	r.tm.RefTime = now.Add(1) // what expires now has expired: the library sees it an instant later
	if r.lockbox {
		if err := r.undated(r.tm.RefTime); err != nil {
			return err
		}
	}
	if err := r.timestamp(bring); err != nil {
		return err
	}
	if err := r.snapshot(bring); err != nil {
		return err
	}
	return r.role(metadata.TARGETS, metadata.ROOT, bring)
}

func (r *repo) timestamp(bring bringer) error {
	var stale error
	if old, ok := r.stored(metadata.TIMESTAMP); ok {
		// A failure of what is stored is no failure of the device; an expired one
		// still counts against a rollback.
		stale = guarded(func() error { _, err := r.tm.UpdateTimestamp(old); return err })
	} else {
		stale = refuse(CodeFreeze, "no timestamp is held")
	}
	b, err := bring(metadata.TIMESTAMP, 0, maxTimestamp)
	if err != nil {
		return err
	}
	if b != nil {
		if err := check(b, maxTimestamp); err != nil {
			return err
		}
		err := guarded(func() error {
			ts, err := r.tm.UpdateTimestamp(b)
			if err == nil {
				err = supported(ts.Signed.SpecVersion)
			}
			return err
		})
		switch {
		case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		case err != nil:
			return r.refused(err, metadata.TIMESTAMP, metadata.ROOT)
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
	if err := r.described("timestamp", r.tm.Timestamp.Signed.Meta); err != nil {
		return err
	}
	r.versions[metadata.TIMESTAMP] = r.tm.Timestamp.Signed.Version
	return nil
}

func (r *repo) snapshot(bring bringer) error {
	unusable := refuse(CodeMixAndMatch, "the snapshot that the timestamp names is missing")
	if old, have := r.stored(metadata.SNAPSHOT); have {
		err := guarded(func() error { _, err := r.tm.UpdateSnapshot(old, true); return err })
		if err == nil || errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			unusable = err
		}
	}
	if unusable != nil {
		b, err := r.named(metadata.SNAPSHOT, r.tm.Timestamp.Signed.Meta["snapshot.json"], bring)
		if err != nil {
			return err
		}
		if b == nil {
			return classify(unusable, metadata.SNAPSHOT)
		}
		err = guarded(func() error {
			sn, err := r.tm.UpdateSnapshot(b, false)
			if err == nil {
				err = supported(sn.Signed.SpecVersion)
			}
			return err
		})
		if err != nil {
			return r.refused(r.otherVersion(b, err), metadata.SNAPSHOT, metadata.ROOT)
		}
		r.fresh[roleName(metadata.SNAPSHOT)] = b
	}
	if err := r.described("snapshot", r.tm.Snapshot.Signed.Meta); err != nil {
		return err
	}
	r.versions[metadata.SNAPSHOT] = r.tm.Snapshot.Signed.Version
	return nil
}

// otherVersion tells a snapshot that is not the named one from one that names
// older roles than were seen: the library calls both a wrong version.
func (r *repo) otherVersion(b []byte, err error) error {
	if !errors.Is(err, &metadata.ErrBadVersionNumber{}) {
		return err
	}
	var sn *metadata.Metadata[metadata.SnapshotType]
	parsed := guarded(func() (err error) { sn, err = metadata.Snapshot().FromBytes(b); return err })
	if parsed == nil && sn.Signed.Version != r.tm.Timestamp.Signed.Meta["snapshot.json"].Version {
		return refuse(CodeMixAndMatch, "the snapshot is not the one that the timestamp names: %w", err)
	}
	return err
}

// described wants length and SHA-256 of every file that is named.
func (r *repo) described(by string, files map[string]*metadata.MetaFiles) error {
	for name, m := range files {
		if m == nil || !r.policy.BareMeta && (m.Length <= 0 || len(m.Hashes) != 1 || len(m.Hashes["sha256"]) != sha256.Size) {
			return refuse(CodeMalformed, "the %s gives no length and SHA-256 of %s", by, name)
		}
	}
	return nil
}

// named brings a file that another names.
func (r *repo) named(role string, m *metadata.MetaFiles, bring bringer) ([]byte, error) {
	most := limit(role)
	if m.Length > 0 {
		most = min(most, m.Length)
	}
	var version int64
	if r.tm.Root.Signed.ConsistentSnapshot {
		version = m.Version
	}
	b, err := bring(role, version, most)
	if err == nil && b != nil {
		err = check(b, limit(role))
	}
	return b, err
}

// role verifies a targets role against its delegator, every time anew.
func (r *repo) role(name, delegator string, bring bringer) error {
	if err := nameable(name); err != nil {
		return err
	}
	m := r.tm.Snapshot.Signed.Meta[name+".json"]
	if m == nil {
		return refuse(CodeMixAndMatch, "the snapshot does not name the role %s", name)
	}
	var md *metadata.Metadata[metadata.TargetsType]
	update := func(b []byte) error {
		return guarded(func() (err error) {
			if md, err = r.tm.UpdateDelegatedTargets(b, name, delegator); err == nil {
				err = supported(md.Signed.SpecVersion)
			}
			return err
		})
	}
	unusable := refuse(CodeMixAndMatch, "the role %s that the snapshot names is missing", name)
	if old, have := r.stored(name); have {
		if err := update(old); err == nil || errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			unusable = err
		}
	}
	if unusable != nil {
		b, err := r.named(name, m, bring)
		if err != nil {
			return err
		}
		if b == nil {
			return classify(unusable, name)
		}
		if err := update(b); err != nil {
			if errors.Is(err, &metadata.ErrBadVersionNumber{}) {
				return refuse(CodeMixAndMatch, "%s: %w", name, err) // the snapshot named another
			}
			return r.refused(err, name, delegator)
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
