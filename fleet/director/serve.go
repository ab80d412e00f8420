package director

import (
	"context"
	"fmt"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Held are the versions that a device holds; 0: none.
type Held struct {
	Root, Timestamp, Snapshot, Targets int64
}

// Newer returns every file of the device's repository that it does not hold,
// roots first, then timestamp, snapshot, targets. What is past half of its life,
// or was never made, is signed now.
func (s *Service) Newer(ctx context.Context, device string, h Held) ([]fleet.MetaRow, error) {
	roots, err := s.Store.Roots(ctx, Repo)
	if err != nil || len(roots) == 0 {
		return nil, err
	}
	if h.Root > int64(len(roots)) {
		return nil, nil // its root is newer than ours: it would refuse what we sign
	}
	rows, _, err := s.fresh(ctx, device)
	if err != nil {
		return nil, err
	}
	var out []fleet.MetaRow
	for i := max(0, h.Root); i < int64(len(roots)); i++ {
		out = append(out, fleet.MetaRow{Repo: Repo, Role: metadata.ROOT, Version: i + 1, Bytes: roots[i]})
	}
	all := len(out) > 0 // under new keys versions begin anew
	for _, x := range []struct {
		role string
		held int64
	}{{metadata.TIMESTAMP, h.Timestamp}, {metadata.SNAPSHOT, h.Snapshot}, {metadata.TARGETS, h.Targets}} {
		i := slices.IndexFunc(rows, func(r fleet.MetaRow) bool { return r.Role == x.role })
		if i >= 0 && (all || rows[i].Version > x.held) {
			out = append(out, rows[i])
		}
	}
	return out, nil
}

// maxRefusals is after how many devices in a row Resign gives up.
const maxRefusals = 10

// Resign signs anew whatever of active devices is past half of its life, and
// tells how many devices that were. It is called in regular pauses, so that what
// the server holds is fresh also for devices that do not ask. It goes on after an
// error; the first is returned.
func (s *Service) Resign(ctx context.Context) (signed int, err error) {
	roots, err := s.Store.Roots(ctx, Repo)
	if err != nil || len(roots) == 0 {
		return 0, err
	}
	devices, err := s.Store.Devices(ctx, fleet.DeviceFilter{})
	if err != nil {
		return 0, err
	}
	var first error
	refusals := 0
	for _, d := range devices {
		if d.Status != fleet.DeviceActive {
			continue
		}
		_, anew, err := s.fresh(ctx, d.ID)
		switch {
		case err == nil:
			refusals = 0
		case refusals == maxRefusals:
			return signed, first
		default:
			refusals++
			if first == nil {
				first = err
			}
		}
		if anew {
			signed++
		}
	}
	return signed, first
}

// fresh returns a device's three files, signed anew where that is due; anew tells
// whether it was.
func (s *Service) fresh(ctx context.Context, device string) (rows []fleet.MetaRow, anew bool, err error) {
	rows, err = s.Store.AllMetadata(ctx, Repo, device)
	if err != nil {
		return nil, false, err
	}
	if i := slices.IndexFunc(rows, func(r fleet.MetaRow) bool { return r.Role == metadata.TIMESTAMP }); i >= 0 {
		ts, err := metadata.Timestamp().FromBytes(rows[i].Bytes) // of our own making
		if err == nil && ts.Signed.Expires.Sub(s.Now()) > Life/2 && s.signed(ts.Signatures) {
			return rows, false, nil
		}
	}
	err = s.Store.Resign(ctx, device, func(w *fleet.Wish) ([]fleet.MetaRow, error) { return s.Sign(ctx, w) })
	if err != nil {
		return nil, false, fmt.Errorf("sign the wish of %s anew: %w", device, err)
	}
	rows, err = s.Store.AllMetadata(ctx, Repo, device)
	return rows, err == nil, err
}

// signed tells whether signatures are of the key in use.
func (s *Service) signed(list []metadata.Signature) bool {
	k, err := metadata.KeyFromPublicKey(s.key().Public())
	if err != nil {
		return false
	}
	id, err := k.ID()
	return err == nil && slices.ContainsFunc(list, func(x metadata.Signature) bool { return x.KeyID == id })
}

// MayRead tells whether a device's assignments name a blob: only those may it
// read.
func (s *Service) MayRead(ctx context.Context, device, digest string) (bool, error) {
	w, err := s.Store.Wish(ctx, device)
	if err != nil {
		return false, err
	}
	for _, it := range w.Items {
		for _, path := range []string{it.Path, it.Runtime} {
			r, err := s.Store.ReleaseByPath(ctx, path)
			if err != nil {
				return false, err
			}
			if slices.Contains(r.Blobs, digest) {
				return true, nil
			}
		}
	}
	return false, nil
}
