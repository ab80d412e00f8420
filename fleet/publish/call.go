package publish

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Call sends in as JSON, nil for nothing, and reads a JSON answer into out, nil
// for none. Refusals are *fleet.Error.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var b *body
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		b = &body{Reader: bytes.NewReader(text), size: int64(len(text)), kind: "application/json"}
	}
	answer, err := c.do(ctx, method, path, b)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return refuse("server.answer", "check that server and dunlin are of versions that fit", "%s %s: %v", method, path, err)
	}
	return nil
}

// maxEvent bounds one server-sent event.
const maxEvent = 4 << 20

// Events reads server-sent events and gives the data of each to take, until the
// stream ends or take returns an error.
func (c *Client) Events(ctx context.Context, path string, take func(data []byte) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return refuse("server.unreachable", "check --server (DUNLIN_SERVER) and --ca (DUNLIN_CA)", "ask the server: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxEvent))
		if err != nil {
			return err
		}
		return problem("GET "+path, resp.StatusCode, answer)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if err := take([]byte(data)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}
