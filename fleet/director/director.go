// Package director is the server's side of the TUF repositories that say which
// device shall run what (Uptane's Director): one per device, signed with one
// online key. It can direct a device to nothing that the catalog does not hold.
package director

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Repo is the repository's name.
const Repo = "director"

// Life of everything that the director signs; it is signed anew at half of it.
const Life = 7 * 24 * time.Hour

// Signer makes the metadata of a wish.
type Signer = func(*fleet.Wish) ([]fleet.MetaRow, error)

// Store is what the director needs kept.
type Store interface {
	AllMetadata(ctx context.Context, repo, owner string) ([]fleet.MetaRow, error)
	Roots(ctx context.Context, repo string) ([][]byte, error)
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	ReleaseByPath(ctx context.Context, path string) (*fleet.Release, error)
	Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error)
	// Resign stores a wish's metadata anew under the next version.
	Resign(ctx context.Context, device string, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
	// ExportLockbox signs a wish under the next version and remembers the lockbox.
	ExportLockbox(ctx context.Context, l fleet.Lockbox, a fleet.Audit, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) ([]fleet.MetaRow, error)
	// Reconcile stores what change makes of a wish, signed, in one transaction;
	// change sees the generation that a backup knew, and the device's memberships
	// in rollouts that are under way.
	Reconcile(ctx context.Context, device string, told fleet.Told, now time.Time, change func(w *fleet.Wish, known int64, ms []fleet.Member) (*fleet.Reconciliation, error), sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
	// Retire ends a device for good and empties its wish, signed.
	Retire(ctx context.Context, device string, a fleet.Audit, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
	// CommitRollout stores one action of a rollout, see fleet.Commit.
	CommitRollout(ctx context.Context, c fleet.Commit, now time.Time, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
}

// Service is the director. It is safe for concurrent use.
type Service struct {
	Store Store
	Key   ed25519.PrivateKey
	Now   func() time.Time
	// Changed tells that a device has a new wish; may be nil.
	Changed func(device string)

	mu   sync.RWMutex
	took ed25519.PrivateKey // in place of Key
}

// Use signs with another key from now on. What the former one signed is signed anew
// when it is asked for.
func (s *Service) Use(key ed25519.PrivateKey) {
	s.mu.Lock()
	s.took = key
	s.mu.Unlock()
}

func (s *Service) key() ed25519.PrivateKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.took != nil {
		return s.took
	}
	return s.Key
}

// Custom is the custom object of all three roles of a device's repository.
type Custom struct {
	Device     string `json:"device"`
	Generation int64  `json:"generation"`
	Issued     int64  `json:"issued"` // seconds
	// Lockbox is set in what travels in one: a wire.LockboxNote.
	Lockbox any `json:"lockbox,omitempty"`
}

// Retire ends a device for good: nothing is directed to it any more.
func (s *Service) Retire(ctx context.Context, device string, a fleet.Audit) error {
	return s.Store.Retire(ctx, device, a, func(w *fleet.Wish) ([]fleet.MetaRow, error) { return s.Sign(ctx, w) })
}

// Sign makes the three files of a wish. All carry the wish's version, the device
// and the generation; an empty wish is signed like any other.
func (s *Service) Sign(ctx context.Context, w *fleet.Wish) ([]fleet.MetaRow, error) {
	return s.sign(ctx, w, s.Now().Add(Life), nil)
}

func (s *Service) sign(ctx context.Context, w *fleet.Wish, expires time.Time, note any) ([]fleet.MetaRow, error) {
	now := s.Now().UTC().Truncate(time.Second)
	expires = expires.UTC().Truncate(time.Second)
	custom := map[string]any{"custom": Custom{w.Device, w.Generation, now.Unix(), note}}
	targets := metadata.Targets(expires)
	targets.Signed.Version, targets.Signed.UnrecognizedFields = w.Version, custom
	items := w.Items
	if w.Withheld {
		items = nil
	}
	for _, it := range items {
		if err := s.add(ctx, targets.Signed.Targets, w, it); err != nil {
			return nil, err
		}
	}
	tr, err := signRow(s, w, metadata.TARGETS, targets)
	if err != nil {
		return nil, err
	}
	snap := metadata.Snapshot(expires)
	snap.Signed.Version, snap.Signed.UnrecognizedFields = w.Version, custom
	if snap.Signed.Meta["targets.json"], err = metaFile(tr); err != nil {
		return nil, err
	}
	sr, err := signRow(s, w, metadata.SNAPSHOT, snap)
	if err != nil {
		return nil, err
	}
	ts := metadata.Timestamp(expires)
	ts.Signed.Version, ts.Signed.UnrecognizedFields = w.Version, custom
	if ts.Signed.Meta["snapshot.json"], err = metaFile(sr); err != nil {
		return nil, err
	}
	tsr, err := signRow(s, w, metadata.TIMESTAMP, ts)
	return []fleet.MetaRow{tr, sr, tsr}, err
}

// add puts a model and the runtime that it is paired with into the targets.
func (s *Service) add(ctx context.Context, into map[string]*metadata.TargetFiles, w *fleet.Wish, it fleet.Item) error {
	assign := &bundle.Assign{Generation: w.Generation, Attempt: it.Attempt, Rollout: it.Rollout, Arm: it.Arm, Runtime: it.Runtime}
	if err := s.target(ctx, into, it.Path, assign); err != nil {
		return err
	}
	if into[it.Runtime] != nil {
		return nil
	}
	return s.target(ctx, into, it.Runtime, nil)
}

func (s *Service) target(ctx context.Context, into map[string]*metadata.TargetFiles, path string, assign *bundle.Assign) error {
	r, err := s.Store.ReleaseByPath(ctx, path)
	if err != nil {
		return err
	}
	hash, err := hex.DecodeString(strings.TrimPrefix(r.Digest, "sha256:"))
	if err != nil {
		return fmt.Errorf("release %s: %w", path, err)
	}
	b, err := json.Marshal(bundle.Custom{Release: r.Release, Assign: assign})
	if err != nil {
		return err
	}
	raw := json.RawMessage(b)
	into[path] = &metadata.TargetFiles{Length: r.Length, Hashes: metadata.Hashes{"sha256": hash}, Custom: &raw}
	return nil
}

func signRow[T metadata.Roles](s *Service, w *fleet.Wish, role string, md *metadata.Metadata[T]) (fleet.MetaRow, error) {
	signer, err := signature.LoadED25519Signer(s.key())
	if err != nil {
		return fleet.MetaRow{}, err
	}
	if _, err := md.Sign(signer); err != nil {
		return fleet.MetaRow{}, fmt.Errorf("sign %s of %s: %w", role, w.Device, err)
	}
	b, err := md.ToBytes(false)
	return fleet.MetaRow{Repo: Repo, Owner: w.Device, Role: role, Version: w.Version, Bytes: b}, err
}

// metaFile describes a file with length and hash: a device compares both before
// it parses.
func metaFile(r fleet.MetaRow) (*metadata.MetaFiles, error) {
	hash, err := hex.DecodeString(strings.TrimPrefix(bundle.DigestOf(r.Bytes), "sha256:"))
	return &metadata.MetaFiles{Version: r.Version, Length: int64(len(r.Bytes)), Hashes: metadata.Hashes{"sha256": hash}}, err
}

// Commit stores an action of a rollout with the changed wish signed in the same
// transaction.
func (s *Service) Commit(ctx context.Context, c fleet.Commit) error {
	err := s.Store.CommitRollout(ctx, c, s.Now(), func(w *fleet.Wish) ([]fleet.MetaRow, error) { return s.Sign(ctx, w) })
	if err == nil && c.Change != nil && s.Changed != nil {
		s.Changed(c.Device)
	}
	return err
}

// ErrNoRuntime says that a device has nothing to run a release with.
var ErrNoRuntime = errors.New("the channel has no runtime for this device")

// Runtime chooses the runtime that a device pairs with a release: the newest of
// the channel for the device's architecture that the release can use.
func (s *Service) Runtime(ctx context.Context, d *fleet.Device, rel *fleet.Release) (string, error) {
	rs, err := s.Store.Releases(ctx, fleet.ReleaseFilter{Channel: rel.Channel, Kind: bundle.KindRuntime})
	if err != nil {
		return "", err
	}
	var best *fleet.Release
	for _, r := range rs {
		fits := r.ABI != nil && r.ABI.Arch == d.Facts["arch"] &&
			(rel.Needs == nil || r.ABI.Name == rel.Needs.Name && bundle.CompareNumbers(r.ABI.Version, rel.Needs.Min) >= 0)
		if fits && (best == nil || r.Counter > best.Counter) {
			best = r
		}
	}
	if best == nil {
		return "", fmt.Errorf("%s, architecture %q: %w", d.ID, d.Facts["arch"], ErrNoRuntime)
	}
	return best.Path(), nil
}
