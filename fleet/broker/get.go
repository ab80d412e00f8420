package broker

import (
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// partSize is how many bytes of metadata go into one message.
const partSize = 100 << 10

// refresh answers with everything newer than held, in as many parts as it needs.
func (b *Broker) refresh(device string, g *wire.Get) error {
	files, err := b.c.Metadata.Refresh(b.ctx, device, g.Refresh)
	if err != nil {
		return errors.Join(err, b.send(device, wire.KindMeta, &wire.Meta{Request: g.Request, Error: code(err)}))
	}
	parts := split(files)
	for i, p := range parts {
		if err := b.send(device, wire.KindMeta, &wire.Meta{Request: g.Request, Files: p, More: i < len(parts)-1}); err != nil {
			return err
		}
	}
	return nil
}

// split cuts files into parts of at most partSize bytes, a long file into pieces;
// there is at least one part.
func split(files []wire.MetaFile) [][]wire.MetaFile {
	parts := [][]wire.MetaFile{nil}
	room := partSize
	for _, f := range files {
		f.Total = int64(len(f.Bytes))
		for off := int64(0); ; {
			if room < 1<<10 {
				parts, room = append(parts, nil), partSize
			}
			n := min(int64(room), f.Total-off)
			piece := f
			piece.Offset, piece.Bytes = off, f.Bytes[off:off+n]
			parts[len(parts)-1] = append(parts[len(parts)-1], piece)
			room -= int(n) + 128
			if off += n; off >= f.Total {
				break
			}
		}
	}
	return parts
}

const (
	// maxPending is how many bytes may wait for one device before it is asked to
	// come again: well below what nats-server allows.
	maxPending = 1 << 20
	busyMillis = 500
)

// blocks answers each range with one block, and a device that reads too slowly
// with busy.
func (b *Broker) blocks(device string, g *wire.Get) error {
	if b.pending(device) > maxPending {
		return b.send(device, wire.KindBusy, &wire.Busy{Request: g.Request, AfterMS: busyMillis})
	}
	blob, err := b.c.Blobs.OpenBlob(b.ctx, device, g.Blob.Digest)
	if err != nil {
		busy := &wire.Busy{Request: g.Request, AfterMS: busyMillis}
		var e *fleet.Error
		if errors.As(err, &e) {
			busy.Code = e.Code
		}
		return errors.Join(err, b.send(device, wire.KindBusy, busy))
	}
	defer blob.Close()
	for _, r := range g.Blob.Ranges {
		if r.Offset > blob.Size()-r.Length {
			return fmt.Errorf("range at %d of %d bytes: %w", r.Offset, blob.Size(), wire.ErrMalformed)
		}
		data := make([]byte, r.Length)
		if _, err := blob.ReadAt(data, r.Offset); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read blob: %w", err)
		}
		h := wire.BlockHeader{Request: g.Request, Digest: [16]byte(g.Blob.Digest[:16]), Offset: r.Offset, Total: blob.Size()}
		if err := b.publish(device, wire.KindBlock, wire.EncodeBlock(h, data)); err != nil {
			return err
		}
	}
	return nil
}

// pending is how many bytes wait to be read by a device.
func (b *Broker) pending(device string) int {
	b.mu.Lock()
	var id uint64
	for id = range b.live[device] {
		break
	}
	b.mu.Unlock()
	if id == 0 {
		return 0
	}
	z, err := b.srv.Connz(&server.ConnzOptions{CID: id, Account: account})
	if err != nil || len(z.Conns) != 1 {
		return 0
	}
	return z.Conns[0].Pending
}
