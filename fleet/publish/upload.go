package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// upload brings the blobs that the server lacks, and tells how many these were.
func (c *Client) upload(ctx context.Context, b *bundle.Bundle) (int, error) {
	sent := 0
	for _, d := range b.Manifest.Blobs() {
		done, err := c.put(ctx, d, func() (io.ReadCloser, error) { return b.Blob(d) })
		if err != nil {
			return sent, err
		}
		sent += done
	}
	manifest := bundle.Descriptor{Digest: b.Digest, Size: int64(len(b.Raw))}
	done, err := c.put(ctx, manifest, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Raw)), nil })
	return sent + done, err
}

// put uploads one blob unless it is there; it returns how many it sent.
func (c *Client) put(ctx context.Context, d bundle.Descriptor, open func() (io.ReadCloser, error)) (int, error) {
	path := "/v1/blobs/" + d.Digest
	_, err := c.do(ctx, http.MethodHead, path, nil)
	if err == nil {
		return 0, nil
	}
	var refused *fleet.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		return 0, err
	}
	r, err := open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if _, err := c.do(ctx, http.MethodPut, path, &body{r, d.Size, "application/octet-stream"}); err != nil {
		return 0, fmt.Errorf("upload %s: %w", d.Digest, err)
	}
	return 1, nil
}
