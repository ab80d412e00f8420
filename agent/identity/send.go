package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ServerError is the server's refusal to enrol or to renew.
type ServerError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// Error implements error.
func (e *ServerError) Error() string { return e.Detail + " (" + e.Code + ")" }

const maxReply = 4 << 20

// send posts a body of JSON and reads the answer into out. A refusal with a code
// is a *ServerError.
func send(ctx context.Context, c *tls.Config, url string, body []byte, out any) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: c}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return err
	}
	if len(b) > maxReply {
		return fmt.Errorf("the server's answer is longer than %d bytes", maxReply)
	}
	if resp.StatusCode != http.StatusOK {
		e := &ServerError{}
		if json.Unmarshal(b, e) != nil || e.Code == "" {
			return fmt.Errorf("the server answered %s", resp.Status)
		}
		return e
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}
