package trust

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// RefreshLockbox is Refresh from a lockbox: an export that travels for weeks. The
// dates of the catalog's timestamp and snapshot are not judged, for both are short
// and nobody could renew them on the way; their versions are, and so are all other
// dates: the director's, who signs a lockbox for as long as it may travel, the
// channel's and the roots'. What is stored is what Refresh would store, so a device
// in a network goes on as if nothing had been.
func (c *Client) RefreshLockbox(ctx context.Context, src Source) (Wish, error) {
	return c.refresh(ctx, src, true)
}

// Note is what the director signed beside the newest wish for a device that it
// reaches by lockbox only, as JSON; nil when the wish came another way.
func (c *Client) Note() json.RawMessage {
	c.state.Lock()
	defer c.state.Unlock()
	return c.note
}

// undated sets the repository up to judge no dates but those of root and of the
// targets' roles. The library judges none at the zero time.
func (r *repo) undated(now time.Time) error {
	if r.tm.Root.Signed.IsExpired(now) {
		return refuse(CodeFreeze, "the newest root has expired")
	}
	r.now, r.tm.RefTime = now, time.Time{}
	return nil
}

// Fleet is the SHA-256 of the director's first root in the folder of a Client: what
// a lockbox names the fleet by.
func Fleet(fsys durable.FS, dir string) ([sha256.Size]byte, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, Director, rootName(1)), maxRoot)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("the first root of the director: %w", err)
	}
	return sha256.Sum256(b), nil
}
