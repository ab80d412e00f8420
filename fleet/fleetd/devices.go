package fleetd

import (
	"context"
	"encoding/hex"
	"os"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/broker"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// rows lists every metadata file that a device does not hold, the director's
// first.
func (s *server) rows(ctx context.Context, device string, h *wire.Held) ([]fleet.MetaRow, error) {
	d, err := s.db.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	if d.Status != fleet.DeviceActive { // its session is about to end
		return nil, fleet.ErrDeviceRevoked
	}
	out, err := s.director.Newer(ctx, device, director.Held(h.Director))
	if err != nil {
		return nil, err
	}
	more, err := s.catalog.Newer(ctx, d.Channel, heldOf(*h))
	return append(out, more...), err
}

func (s *server) newer(ctx context.Context, device string, h wire.Held) (bool, error) {
	rows, err := s.rows(ctx, device, &h)
	return len(rows) > 0, err
}

// Refresh implements broker.Metadata.
func (s *server) Refresh(ctx context.Context, device string, h *wire.Held) ([]wire.MetaFile, error) {
	rows, err := s.rows(ctx, device, h)
	if err != nil {
		return nil, err
	}
	out := make([]wire.MetaFile, len(rows))
	for i, r := range rows {
		out[i] = wire.MetaFile{Repo: r.Repo, Role: r.Role, Version: r.Version, Total: int64(len(r.Bytes)), Bytes: r.Bytes}
	}
	return out, nil
}

// blobFile is an open blob.
type blobFile struct {
	*os.File
	size int64
}

// Size implements broker.Blob.
func (b blobFile) Size() int64 { return b.size }

// OpenBlob implements broker.Blobs: a device reads only what its assignments name.
func (s *server) OpenBlob(ctx context.Context, device string, digest [32]byte) (broker.Blob, error) {
	name := "sha256:" + hex.EncodeToString(digest[:])
	may, err := s.director.MayRead(ctx, device, name)
	if err != nil {
		return nil, err
	}
	if d, err := s.db.Device(ctx, device); err == nil && d.Status != fleet.DeviceActive {
		return nil, fleet.ErrDeviceRevoked
	}
	if !may {
		return nil, fleet.ErrBlobNotAssigned.With("no assignment of %s names %s", device, name)
	}
	f, err := s.blobs.OpenAt(name)
	if err != nil {
		return nil, fleet.ErrBlobUnknown.With("%v", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return blobFile{f, st.Size()}, nil
}

func (s *server) wakeTell() {
	select {
	case s.told <- struct{}{}:
	default:
	}
}

// tellAgain is how often the outbox is looked at without being told to.
const tellAgain = 10 * time.Second

// tell hints devices that they have a new wish. A hint that is lost costs one
// heartbeat.
func (s *server) tell(ctx context.Context) error {
	tick := time.NewTicker(tellAgain)
	defer tick.Stop()
	for {
		devices, err := s.db.TakeOutbox(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("outbox is not readable", "err", err)
		}
		for _, d := range devices {
			if err := s.broker.Ask(d, &wire.Ask{ID: fleet.NewID("ask_", time.Now()), Verb: "hello"}); err != nil {
				s.log.Warn("hint is not sent", "device", d, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.told:
		case <-tick.C:
		}
	}
}
