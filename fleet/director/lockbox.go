package director

import (
	"context"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Export signs a device's wish for a lockbox, with the lockbox's validity and with
// note beside it. Version and generation are of the sequence of what the network
// brings, so whichever is newer wins on the device.
func (s *Service) Export(ctx context.Context, l fleet.Lockbox, note any, a fleet.Audit) ([]fleet.MetaRow, error) {
	return s.Store.ExportLockbox(ctx, l, a, func(w *fleet.Wish) ([]fleet.MetaRow, error) {
		return s.sign(ctx, w, l.Expires, note)
	})
}
