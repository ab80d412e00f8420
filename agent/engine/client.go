package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/elements"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Limits of what an engine says.
const (
	maxSaid   = 1 << 20 // bytes of anything but tensors
	perNumber = 32      // bytes of a number as JSON, with what is around it
	idle      = 16      // connections that are kept
)

// client speaks the Open Inference Protocol with one engine on this machine.
type client struct {
	base   string
	http   *http.Client
	binary atomic.Bool // it takes and gives raw tensors
}

// errEngine is wrapped by everything that an engine does wrong.
var errEngine = errors.New("the engine")

// said is an answer that is no success.
type said struct {
	status int
	text   string
}

func (e *said) Error() string { return fmt.Sprintf("the engine answered %d: %s", e.status, e.text) }
func (e *said) Unwrap() error { return errEngine }

// dial reads the address of an engine: http://127.0.0.1:9000 or unix:///run/engine.sock.
func dial(address string) (*client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{MaxIdleConnsPerHost: idle, IdleConnTimeout: time.Minute, DisableCompression: true}
	c := &client{base: strings.TrimSuffix(address, "/"), http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if u.Scheme == "unix" {
		c.base = "http://engine"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", u.Path)
		}
	}
	return c, nil
}

// CheckAddress refuses what is no engine on this machine.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return err
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	case u.Scheme != "http" || u.Path != "" && u.Path != "/" || u.RawQuery != "":
		return fmt.Errorf("%q: http://127.0.0.1:PORT or unix:///PATH is wanted", address)
	case u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback():
		return fmt.Errorf("%q is not this machine: what devices see stays on them", address)
	}
	return nil
}

// do sends a request and reads at most limit bytes of its answer.
func (c *client) do(ctx context.Context, method, path string, header http.Header, body []byte, limit int64) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header = header
	if header == nil {
		req.Header = http.Header{"Content-Type": {"application/json"}}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%w does not answer: %w", errEngine, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%w stopped in an answer: %w", errEngine, err)
	case int64(len(b)) > limit:
		return nil, nil, fmt.Errorf("%w answers with more than %d bytes", errEngine, limit)
	case resp.StatusCode != http.StatusOK:
		return nil, nil, &said{resp.StatusCode, sentence(b)}
	}
	return b, resp.Header, nil
}

// sentence is what an engine says of an error, for people.
func sentence(b []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	text := string(b)
	if json.Unmarshal(b, &e) == nil && e.Error != "" {
		text = e.Error
	}
	const longest = 300
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// hello asks what the engine can do.
func (c *client) hello(ctx context.Context) error {
	b, _, err := c.do(ctx, http.MethodGet, "/v2", nil, nil, maxSaid)
	if err != nil {
		return err
	}
	var s struct {
		Extensions []string `json:"extensions"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w's metadata: %w", errEngine, err)
	}
	c.binary.Store(slices.Contains(s.Extensions, "binary_tensor_data"))
	return nil
}

// load asks for a model and waits until it is ready. An engine that does not load on
// request is waited for: it may look at its folder by itself.
func (c *client) load(ctx context.Context, name string) error {
	_, _, err := c.do(ctx, http.MethodPost, "/v2/repository/models/"+name+"/load", nil, []byte("{}"), maxSaid)
	var s *said
	if err != nil && !(errors.As(err, &s) && (s.status == http.StatusNotFound || s.status == http.StatusMethodNotAllowed || s.status == http.StatusNotImplemented)) {
		return err
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ready := c.ready(ctx, name)
		if ready == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ready, ctx.Err())
		case <-timer.C:
		}
	}
}

func (c *client) ready(ctx context.Context, name string) error {
	_, _, err := c.do(ctx, http.MethodGet, "/v2/models/"+name+"/ready", nil, nil, maxSaid)
	return err
}

// unload is best effort: an engine may not know how.
func (c *client) unload(ctx context.Context, name string) error {
	_, _, err := c.do(ctx, http.MethodPost, "/v2/repository/models/"+name+"/unload", nil, []byte("{}"), maxSaid)
	return err
}

// tensor is one of an engine's metadata, or of a request or an answer.
type tensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int           `json:"shape"`
	Parameters map[string]any  `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

type metadata struct {
	Inputs  []tensor `json:"inputs"`
	Outputs []tensor `json:"outputs"`
}

func (c *client) metadata(ctx context.Context, name string) (m metadata, err error) {
	b, _, err := c.do(ctx, http.MethodGet, "/v2/models/"+name, nil, nil, maxSaid)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w's metadata of %s: %w", errEngine, name, err)
	}
	return m, nil
}

// headerLength is how long the JSON before raw tensors is, in the binary tensor
// extension.
const headerLength = "Inference-Header-Content-Length"

type message struct {
	Inputs  []tensor `json:"inputs,omitempty"`
	Outputs []tensor `json:"outputs,omitempty"`
}

// infer runs a model on inputs in the contract's order and returns the outputs in
// theirs, each as long as its tensor.
func (c *client) infer(ctx context.Context, name string, of *bundle.Contract, inputs [][]byte) ([][]byte, error) {
	body, header, err := c.request(of, inputs)
	if err != nil {
		return nil, err
	}
	limit := int64(maxSaid)
	for i := range of.Outputs {
		limit += most(&of.Outputs[i])
	}
	b, got, err := c.do(ctx, http.MethodPost, "/v2/models/"+name+"/infer", header, body, limit)
	if err != nil {
		return nil, err
	}
	out, err := outputs(of, b, got.Get(headerLength))
	if err != nil {
		return nil, fmt.Errorf("%w's answer: %w", errEngine, err)
	}
	return out, nil
}

func (c *client) request(of *bundle.Contract, inputs [][]byte) (body []byte, header http.Header, err error) {
	var m message
	var raw []byte
	binary := c.binary.Load()
	for i := range of.Inputs {
		t := &of.Inputs[i]
		shape, err := shapeOf(t, len(inputs[i]))
		if err != nil {
			return nil, nil, err
		}
		x := tensor{Name: t.Name, Datatype: t.DType, Shape: shape}
		if binary {
			x.Parameters = map[string]any{"binary_data_size": len(inputs[i])}
			raw = append(raw, inputs[i]...)
		} else {
			x.Data = elements.JSON(t.DType, inputs[i])
		}
		m.Inputs = append(m.Inputs, x)
	}
	for i := range of.Outputs {
		m.Outputs = append(m.Outputs, tensor{Name: of.Outputs[i].Name, Parameters: map[string]any{"binary_data": binary}})
	}
	head, err := json.Marshal(asked(m))
	if err != nil {
		return nil, nil, err
	}
	header = http.Header{"Content-Type": {"application/json"}}
	if binary {
		header = http.Header{"Content-Type": {"application/octet-stream"}, headerLength: {strconv.Itoa(len(head))}}
	}
	return append(head, raw...), header, nil
}

// asked is a request: wanted outputs have a name and parameters only.
func asked(m message) any {
	type wanted struct {
		Name       string         `json:"name"`
		Parameters map[string]any `json:"parameters,omitempty"`
	}
	var out []wanted
	for _, x := range m.Outputs {
		out = append(out, wanted{x.Name, x.Parameters})
	}
	return struct {
		Inputs  []tensor `json:"inputs"`
		Outputs []wanted `json:"outputs"`
	}{m.Inputs, out}
}

// outputs reads an answer.
func outputs(of *bundle.Contract, b []byte, length string) ([][]byte, error) {
	head, raw := b, []byte(nil)
	if length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(b) {
			return nil, fmt.Errorf("a header of %q bytes", length)
		}
		head, raw = b[:n], b[n:]
	}
	var m message
	if err := json.Unmarshal(head, &m); err != nil {
		return nil, err
	}
	have := map[string][]byte{}
	for i := range m.Outputs {
		x := &m.Outputs[i]
		data, rest, err := x.bytes(raw)
		if err != nil {
			return nil, fmt.Errorf("output %.64q: %w", x.Name, err)
		}
		raw = rest
		t := of.Output(x.Name)
		if t == nil {
			continue // nobody asked for it
		}
		if _, err := shapeOf(t, len(data)); err != nil || x.Datatype != t.DType || !fits(t.Shape, x.Shape) {
			return nil, fmt.Errorf("output %s is %s %v with %d bytes, %s %v is wanted", t.Name, x.Datatype, x.Shape, len(data), t.DType, t.Shape)
		}
		have[t.Name] = data
	}
	out := make([][]byte, len(of.Outputs))
	for i := range of.Outputs {
		var ok bool
		if out[i], ok = have[of.Outputs[i].Name]; !ok {
			return nil, fmt.Errorf("output %s is missing", of.Outputs[i].Name)
		}
	}
	return out, nil
}

// bytes is a tensor's data, raw from behind the JSON or in it.
func (x *tensor) bytes(raw []byte) (data, rest []byte, err error) {
	if n, ok := x.Parameters["binary_data_size"].(float64); ok {
		if n < 0 || n > float64(len(raw)) || n != float64(int(n)) {
			return nil, nil, fmt.Errorf("%v raw bytes of %d", n, len(raw))
		}
		return raw[:int(n)], raw[int(n):], nil
	}
	n := 1
	for _, d := range x.Shape {
		if d < 0 || d > maxElements || n > maxElements/max(d, 1) {
			return nil, nil, fmt.Errorf("shape %v", x.Shape)
		}
		n *= d
	}
	data, err = elements.Pack(x.Datatype, x.Shape, n, string(x.Data))
	return data, raw, err
}

const maxElements = 1 << 26

// openSize is what an answer may have for an output with an open dimension, in bytes.
const openSize = 64 << 20

// most is how many bytes an output may have in an answer.
func most(t *bundle.Tensor) int64 {
	n := int64(perNumber)
	for _, d := range t.Shape {
		if d < 0 || n > openSize {
			return openSize
		}
		n *= int64(d)
	}
	return n
}

// shapeOf is the shape of so many bytes of a tensor, of which one dimension may be open.
func shapeOf(t *bundle.Tensor, length int) ([]int, error) {
	shape, open, n := slices.Clone(t.Shape), -1, bundle.DTypeSize(t.DType)
	for i, d := range shape {
		if d < 0 {
			if open >= 0 {
				return nil, fmt.Errorf("tensor %s: more than one dimension is open", t.Name)
			}
			open = i
			continue
		}
		n *= d
	}
	switch {
	case open >= 0 && n > 0 && length%n == 0:
		shape[open] = length / n
	case open >= 0 || length != n:
		return nil, fmt.Errorf("tensor %s has %d bytes, its shape is %v", t.Name, length, t.Shape)
	}
	return shape, nil
}

// fits tells whether a shape is one that the contract's allows.
func fits(want, have []int) bool {
	return slices.EqualFunc(want, have, func(a, b int) bool { return a == b || a < 0 || b < 0 })
}
