// Package trust decides what a device believes: metadata in, verified wishes and
// verified blobs out. It is an Uptane client with full verification on every
// device: the director says what this device shall run, the catalog says what may
// exist, and both must agree. It knows two TUF repositories and a Source, no
// network and no clock.
//
// Verification has no off switch. Nothing of the director is stored before all
// three of its files verify and name this device. What is stored and damaged
// counts as absent; the greatest versions, generation and floors ever seen are
// kept apart from it, so damage never makes the device accept less than before.
//
// A Client is safe for concurrent use.
package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Names of the two repositories.
const (
	Director = "director"
	Catalog  = "catalog"
)

// Versions of one repository's top-level roles; 0: none.
type Versions struct {
	Root, Timestamp, Snapshot, Targets int64
}

// Held is what a device has verified and stored, as a Source is told.
type Held struct {
	Director, Catalog Versions
	Roles             map[string]int64 // delegated roles of the catalog
}

// File is one metadata file.
type File struct {
	Repo    string // Director or Catalog
	Role    string
	Version int64 // claimed; roots are applied in its order
	Bytes   []byte
}

// Range is Length bytes from Offset.
type Range struct {
	Offset, Length int64
}

// Blob is what a digest names.
type Blob struct {
	Digest [32]byte // SHA-256
	Length int64
}

// Source brings files and blobs, from anywhere: nothing that it brings is
// believed.
type Source interface {
	// Refresh returns every metadata file newer than held, in one round trip.
	Refresh(ctx context.Context, held Held) ([]File, error)
	// Fetch writes the missing ranges of a blob through w, in any order. What was
	// written before an error is kept.
	Fetch(ctx context.Context, b Blob, missing []Range, w io.WriterAt) error
}

// Target is one release that the device shall run or pair with.
type Target struct {
	Path       string          // channel/model/version
	Digest     string          // of the manifest, "sha256:…"
	Length     int64           // of the manifest
	Custom     json.RawMessage // the director's: release and assignment
	BelowFloor bool            // may go on serving, but not be newly activated
}

// Wish is everything that the device shall run, verified.
type Wish struct {
	Generation int64
	Targets    []Target // by path
}

// Config of a Client.
type Config struct {
	FS      durable.FS
	Dir     string // of metadata; holds the first roots, see Install
	Blobs   string // of downloads
	Device  string
	Channel string
	// Now is the time that expiry is judged at.
	Now func() time.Time
	// NowUnder, when set, is asked instead once the director's root is known, with
	// the key that signs its time: what a key that was replaced has said about the
	// time counts no more.
	NowUnder func(key string) time.Time
}

// Evidence is what the newest wish says about the time.
type Evidence struct {
	Issued  time.Time // when the director signed it; zero: never
	Horizon time.Time // when the catalog's root expires: it cannot be later than that
	Key     string    // of the director's timestamp
}

// Client holds what is believed.
type Client struct {
	c  Config
	mu sync.Mutex // one refresh at a time
	// noteEvery is how many bytes of a blob come between two durable notes.
	noteEvery int64

	downloads downloads

	state sync.Mutex // guards the fields below
	wish  Wish
	held  Held
	// evidence is what the newest wish says about the time.
	evidence Evidence
	note     json.RawMessage // see Note
}

// Install stores the first roots, whose digests the caller has checked against
// its enrolment token, and any later ones, which Open verifies.
func Install(fsys durable.FS, dir string, catalogRoots, directorRoots [][]byte) error {
	for repo, roots := range map[string][][]byte{Catalog: catalogRoots, Director: directorRoots} {
		d := filepath.Join(dir, repo)
		if err := durable.MkdirAll(fsys, "trust.dir", d, 0o700); err != nil {
			return fmt.Errorf("store roots: %w", err)
		}
		for i, b := range roots {
			if err := durable.WriteFile(fsys, "trust.root", filepath.Join(d, rootName(int64(i+1))), b, 0o600); err != nil {
				return fmt.Errorf("store roots: %w", err)
			}
		}
	}
	return nil
}

// Open reads what was believed before. Damage is no error as long as the first
// roots are there; what is damaged is fetched again.
func Open(c Config) (*Client, error) {
	cl := &Client{c: c, noteEvery: syncEvery}
	for _, d := range []string{c.Dir, filepath.Join(c.Dir, Catalog), filepath.Join(c.Dir, Director), c.Blobs} {
		if err := durable.MkdirAll(c.FS, "trust.dir", d, 0o700); err != nil {
			return nil, fmt.Errorf("open trust: %w", err)
		}
		if err := durable.Sweep(c.FS, "trust.sweep", d); err != nil {
			return nil, fmt.Errorf("open trust: %w", err)
		}
	}
	v, err := cl.load()
	if err != nil {
		return nil, fmt.Errorf("open trust: %w", err)
	}
	// What was believed stays believed when it expires: it goes on serving.
	if w, err := v.agree(); err == nil {
		cl.wish, cl.evidence, cl.note = w, v.evidence(), v.note
	}
	cl.held = v.held()
	return cl, nil
}

// Wish is the newest verified wish.
func (c *Client) Wish() Wish {
	c.state.Lock()
	defer c.state.Unlock()
	return c.wish
}

// Held tells what is held.
func (c *Client) Held() Held {
	c.state.Lock()
	defer c.state.Unlock()
	return c.held
}

// Evidence is what the newest wish says about the time.
func (c *Client) Evidence() Evidence {
	c.state.Lock()
	defer c.state.Unlock()
	return c.evidence
}

// Refresh brings newer metadata, verifies and stores it. On any error the wish
// that was held stays; a *Refusal names the attack.
func (c *Client) Refresh(ctx context.Context, src Source) (Wish, error) {
	return c.refresh(ctx, src, false)
}

func (c *Client) refresh(ctx context.Context, src Source, lockbox bool) (Wish, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.load()
	if err != nil {
		return Wish{}, err
	}
	v.lockbox = lockbox
	// What was learnt from files that a power cut left without a note must be
	// noted before newer files take their place.
	if err := v.storeSeen(v.seen); err != nil {
		return Wish{}, fmt.Errorf("refresh: %w", err)
	}
	files, err := src.Refresh(ctx, v.held())
	if err != nil {
		return Wish{}, fmt.Errorf("refresh: %w", err)
	}
	if err := v.take(files); err != nil {
		return Wish{}, fmt.Errorf("refresh: %w", err)
	}
	w, err := v.agree()
	if err != nil {
		return Wish{}, fmt.Errorf("refresh: %w", err)
	}
	if err := v.store(); err != nil {
		return Wish{}, fmt.Errorf("refresh: %w", err)
	}
	c.state.Lock()
	c.wish, c.held, c.evidence, c.note = w, v.held(), v.evidence(), v.note
	c.state.Unlock()
	return w, nil
}
