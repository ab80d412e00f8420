package publish

import (
	"bytes"
	"context"
	"io"
	"net/http"
)

// Do sends JSON, nil for nothing, and returns the bytes of a good answer.
// Refusals are *fleet.Error.
func (c *Client) Do(ctx context.Context, method, path string, in []byte) ([]byte, error) {
	var b *body
	if in != nil {
		b = &body{Reader: bytes.NewReader(in), size: int64(len(in)), kind: "application/json"}
	}
	return c.do(ctx, method, path, b)
}

// Create posts JSON under an idempotency key: sent again with the same key it makes
// nothing a second time, and gets the first answer.
func (c *Client) Create(ctx context.Context, path, key string, in []byte) ([]byte, error) {
	req, err := c.request(ctx, http.MethodPost, path, &body{Reader: bytes.NewReader(in), size: int64(len(in)), kind: "application/json"})
	if err != nil {
		return nil, err
	}
	req.Header.Set("Idempotency-Key", key)
	return c.answer(req)
}

// Stream opens an answer that goes on; the caller closes it.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, refuse("server.unreachable", "check --server (DUNLIN_SERVER) and --ca (DUNLIN_CA)", "ask the server: %v", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return nil, problem("GET "+path, resp.StatusCode, answer)
}
