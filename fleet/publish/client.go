package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// ClientConfig says which server to talk to.
type ClientConfig struct {
	Server string // https://host:8443
	Token  string // access token
	CA     string // file with the server's CA, the only one trusted; empty: the system's
}

// Client is the publisher's connection to the server. It is safe for concurrent
// use.
type Client struct {
	base, token string
	http        *http.Client
}

// maxAnswer bounds what is read of an answer, in bytes: all metadata of a catalog.
const maxAnswer = 64 << 20

// NewClient checks the configuration; nothing is sent yet.
func NewClient(c ClientConfig) (*Client, error) {
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, refuse("server.address", "set DUNLIN_SERVER or pass --server, like https://fleet.example:8443", "the server's address %q is not understood", c.Server)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, refuse("server.ca", "fetch it from the server's /v1/ca and compare its fingerprint", "read the server's CA: %v", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, refuse("server.ca", "name the PEM file with --ca or DUNLIN_CA", "%s holds no certificate", c.CA)
		}
	}
	return &Client{base: strings.TrimSuffix(c.Server, "/"), token: c.Token, http: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: 2 * time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// body is what a request carries; its size is known beforehand.
type body struct {
	io.Reader
	size int64
	kind string // media type
}

// do sends a request and returns the bytes of a good answer. Anything else is a
// *fleet.Error with the server's own code and next step where it gave them.
func (c *Client) do(ctx context.Context, method, path string, b *body) ([]byte, error) {
	req, err := c.request(ctx, method, path, b)
	if err != nil {
		return nil, err
	}
	return c.answer(req)
}

func (c *Client) request(ctx context.Context, method, path string, b *body) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	if b != nil {
		req.Body, req.ContentLength = io.NopCloser(b), b.size
		req.Header.Set("Content-Type", b.kind)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func (c *Client) answer(req *http.Request) ([]byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, refuse("server.unreachable", "check --server (DUNLIN_SERVER) and --ca (DUNLIN_CA)", "ask the server: %v", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return nil, refuse("server.answer", "check --server (DUNLIN_SERVER)", "the server's answer has more than %d bytes", maxAnswer)
	}
	if resp.StatusCode/100 == 2 {
		return answer, nil
	}
	return nil, problem(req.Method+" "+req.URL.Path, resp.StatusCode, answer)
}

// problem is the server's refusal as RFC 9457 has it.
func problem(asked string, status int, answer []byte) error {
	var p struct{ Code, Detail, Next string }
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		p.Code, p.Detail, p.Next = "server.answer", fmt.Sprintf("%s: the server answered %d %s", asked, status, http.StatusText(status)), "check --server (DUNLIN_SERVER) and look into the server's log"
	}
	return &fleet.Error{Code: p.Code, Message: p.Detail, Next: p.Next, Status: status}
}

// get reads a JSON answer into v.
func (c *Client) get(ctx context.Context, path string, v any) error {
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return refuse("server.answer", "check that server and dunlin are of versions that fit", "GET %s: %v", path, err)
	}
	return nil
}

// Online asks for the public keys that the server signs with.
func (c *Client) Online(ctx context.Context) (*Online, error) {
	o := &Online{}
	return o, c.get(ctx, "/v1/keys/online", o)
}
