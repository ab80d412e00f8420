// Package lockbox makes sticks for devices without a network: the server's side
// resolves a selector into signed metadata and a list of blobs, the other side
// writes them into a folder and reads the receipts that come back. docs/usb.md is
// the format.
package lockbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Limits of an export.
const (
	ValidDefault = 30 * 24 * time.Hour
	ValidMost    = 90 * 24 * time.Hour
	MaxDevices   = 5000
	// Share is how many bytes a device's receipt may have.
	Share = 1 << 20
)

// Store is what an export reads.
type Store interface {
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	ReleaseByPath(ctx context.Context, path string) (*fleet.Release, error)
	Acked(ctx context.Context, device string, epoch uint64) ([]wire.Ack, error)
	Roots(ctx context.Context, repo string) ([][]byte, error)
}

// Director signs a device's wish for a lockbox.
type Director interface {
	Export(ctx context.Context, l fleet.Lockbox, note any, a fleet.Audit) ([]fleet.MetaRow, error)
}

// Blobs are those of the server.
type Blobs interface {
	// Open returns an error that wraps fs.ErrNotExist when the blob is not here.
	Open(digest string) (io.ReadCloser, error)
	Has(digest string) (size int64, ok bool, err error)
}

// Service exports. It is safe for concurrent use.
type Service struct {
	Store    Store
	Director Director
	// Catalog returns the files of a channel, roots first.
	Catalog func(ctx context.Context, channel string) ([]fleet.MetaRow, error)
	Blobs   Blobs
	Now     func() time.Time
}

// Export resolves the selector now and signs for each active device that it
// matches. Two exports at once are two lockboxes; a device believes the newer.
func (s *Service) Export(ctx context.Context, r fleet.LockboxRequest) (*fleet.LockboxExport, error) {
	if r.Valid == 0 {
		r.Valid = ValidDefault
	}
	if r.Valid < time.Hour || r.Valid > ValidMost {
		return nil, fleet.ErrBadRequest.With("a lockbox is valid for an hour to 90 days, not %v", r.Valid)
	}
	ds, err := s.Store.Devices(ctx, fleet.DeviceFilter{Selector: r.Selector, Channel: r.Channel, Status: fleet.DeviceActive, Limit: MaxDevices + 1})
	if err != nil {
		return nil, err
	}
	switch {
	case len(ds) == 0:
		return nil, fleet.ErrNoDevices.With("no active device matches %q", r.Selector)
	case len(ds) > MaxDevices:
		return nil, fleet.ErrBadRequest.With("a lockbox is for at most %d devices; narrow the selector", MaxDevices)
	}
	roots, err := s.Store.Roots(ctx, wire.RepoDirector)
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, fleet.ErrCatalogEmpty
	}
	now := s.Now().UTC()
	e := &export{Service: s, request: r, fleet: sha256.Sum256(roots[0]), now: now, releases: map[string]*release{}, channels: map[string]bool{}, blobs: map[string]bool{}}
	e.out = &fleet.LockboxExport{ID: fleet.NewID(fleet.PrefixLockbox, now), Expires: now.Add(r.Valid).Truncate(time.Second)}
	for _, d := range ds {
		if err := e.device(ctx, d); err != nil {
			return nil, fmt.Errorf("export %s: %w", d.ID, err)
		}
	}
	return e.out, e.finish(ctx, roots)
}

// export is one under way.
type export struct {
	*Service
	request  fleet.LockboxRequest
	fleet    [32]byte
	now      time.Time
	out      *fleet.LockboxExport
	releases map[string]*release // by path
	channels map[string]bool
	blobs    map[string]bool
}

// release is one with what every device needs of it.
type release struct {
	*fleet.Release
	always []string // the manifest and the contract: a slot keeps neither as a blob
	files  []string
}

func (e *export) device(ctx context.Context, d *fleet.Device) error {
	acked, err := e.Store.Acked(ctx, d.ID, d.Epoch)
	if err != nil {
		return err
	}
	note := wire.LockboxNote{ID: e.out.ID, Nonce: make([]byte, 16), Share: Share}
	rand.Read(note.Nonce) // never fails
	for _, a := range acked {
		note.Acked = append(note.Acked, wire.LockboxAck{Kind: a.Kind, Epoch: strconv.FormatUint(a.Epoch, 16), Sequence: a.Sequence})
	}
	l := fleet.Lockbox{ID: note.ID, Device: d.ID, Nonce: note.Nonce, Created: e.now, Expires: e.out.Expires}
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, e.now), At: e.now, Actor: e.request.By, Act: "usb.export", Object: d.ID, Detail: l.ID + " until " + l.Expires.Format(time.RFC3339)}
	rows, err := e.Director.Export(ctx, l, note, a)
	if errors.Is(err, fleet.ErrDeviceRevoked) {
		return nil // meanwhile
	}
	if err != nil {
		return err
	}
	f, err := e.file(d.ID, d.ID, rows)
	if err != nil {
		return err
	}
	e.out.Devices = append(e.out.Devices, f)
	e.channels[d.Channel] = true
	return e.lacks(ctx, d)
}

// lacks adds what the device needs for its wish and does not have by what it last
// reported.
func (e *export) lacks(ctx context.Context, d *fleet.Device) error {
	w, err := e.Store.Wish(ctx, d.ID)
	if err != nil {
		return err
	}
	for _, it := range w.Items {
		pair, err := e.pair(ctx, it.Path, it.Runtime)
		if err != nil {
			return err
		}
		has, done, err := e.has(ctx, d, it.Model, pair)
		if err != nil {
			return err
		}
		if done && !e.request.Full {
			continue
		}
		for _, r := range pair {
			for _, digest := range r.always {
				e.blobs[digest] = true
			}
			for _, digest := range r.files {
				if e.request.Full || !has[digest] {
					e.blobs[digest] = true
				}
			}
		}
	}
	return nil
}

func (e *export) pair(ctx context.Context, paths ...string) (out []*release, err error) {
	for _, path := range paths {
		r, err := e.release(ctx, path)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// has lists the files of what serves on the device; done when that is the pair.
func (e *export) has(ctx context.Context, d *fleet.Device, model string, pair []*release) (files map[string]bool, done bool, err error) {
	files = map[string]bool{}
	for _, m := range d.Models {
		if m.Model != model || m.Active == nil {
			continue
		}
		if m.Active.Bundle == pair[0].Digest && m.Active.Runtime == pair[1].Digest {
			return nil, true, nil
		}
		r, err := e.release(ctx, m.Active.Path)
		if errors.Is(err, fleet.ErrReleaseUnknown) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if r.Digest == m.Active.Bundle {
			for _, digest := range r.files {
				files[digest] = true
			}
		}
		if m.Active.Runtime == pair[1].Digest {
			for _, digest := range pair[1].files {
				files[digest] = true
			}
		}
	}
	return files, false, nil
}

// release reads the manifest of a release.
func (e *export) release(ctx context.Context, path string) (*release, error) {
	if r := e.releases[path]; r != nil {
		return r, nil
	}
	rel, err := e.Store.ReleaseByPath(ctx, path)
	if err != nil {
		return nil, err
	}
	f, err := e.Blobs.Open(rel.Digest)
	if err != nil {
		return nil, fleet.ErrBlobUnknown.With("release %s: %v", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, rel.Length+1))
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", path, err)
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", path, err)
	}
	r := &release{Release: rel, always: []string{rel.Digest, m.Contract().Digest}}
	for _, d := range m.Blobs() {
		if d.Digest != m.Config.Digest && d.Digest != m.Contract().Digest {
			r.files = append(r.files, d.Digest)
		}
	}
	e.releases[path] = r
	return r, nil
}

// file encodes metadata under the name of a device or channel.
func (e *export) file(of, name string, rows []fleet.MetaRow) (fleet.LockboxFile, error) {
	set := &wire.MetaSet{}
	for _, r := range rows {
		set.Files = append(set.Files, wire.MetaFile{Repo: r.Repo, Role: r.Role, Version: r.Version, Total: int64(len(r.Bytes)), Bytes: r.Bytes})
	}
	b, err := wire.Encode(set)
	return fleet.LockboxFile{Of: of, Name: wire.LockboxName(e.fleet, name), Bytes: b}, err
}

// finish adds what the devices share.
func (e *export) finish(ctx context.Context, directorRoots [][]byte) error {
	var chain []fleet.MetaRow
	for i, b := range directorRoots {
		chain = append(chain, fleet.MetaRow{Repo: wire.RepoDirector, Role: "root", Version: int64(i + 1), Bytes: b})
	}
	for _, channel := range slices.Sorted(maps.Keys(e.channels)) {
		rows, err := e.Catalog(ctx, channel)
		if err != nil {
			return err
		}
		f, err := e.file(channel, channel, append(slices.Clone(chain), rows...))
		if err != nil {
			return err
		}
		e.out.Channels = append(e.out.Channels, f)
	}
	for _, digest := range slices.Sorted(maps.Keys(e.blobs)) {
		size, ok, err := e.Blobs.Has(digest)
		if err != nil {
			return err
		}
		if !ok {
			return fleet.ErrBlobUnknown.With("the export needs %s, which is not here", digest)
		}
		e.out.Blobs = append(e.out.Blobs, fleet.LockboxBlob{Digest: digest, Size: size})
	}
	return nil
}
