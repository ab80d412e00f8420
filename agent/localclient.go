package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Local talks to the agent that runs on this device.
type Local struct {
	agent, infer *http.Client
}

// NewLocal returns a client for the sockets that c names.
func NewLocal(c Config) *Local {
	over := func(path string) *http.Client {
		return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}
	}
	return &Local{agent: over(c.AgentSocket()), infer: over(c.InferSocket())}
}

// LocalError is an answer of the agent that is not a success.
type LocalError struct {
	Code, Detail, Next string
}

// Codes that callers tell apart.
const (
	CodeNotRunning = "agent.not_running"
	CodeInferBusy  = "infer.busy"
)

// Error implements error.
func (e *LocalError) Error() string { return e.Detail + " (" + e.Code + ")" }

const maxLocalReply = 64 << 20

func do(ctx context.Context, c *http.Client, method, path string, in []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://local"+path, bytes.NewReader(in))
	if err != nil {
		return 0, nil, err
	}
	return send(c, req)
}

func send(c *http.Client, req *http.Request) (int, []byte, error) {
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, &LocalError{CodeNotRunning, "the agent does not answer: " + err.Error(), "start it with 'dunlin-agent run' or look at 'systemctl status dunlin-agent'"}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxLocalReply))
	if err != nil {
		return 0, nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return resp.StatusCode, b, nil
}

func (l *Local) status(ctx context.Context, method, path string) (*Status, error) {
	return local[Status](ctx, l, method, path)
}

func local[T any](ctx context.Context, l *Local, method, path string) (*T, error) {
	code, b, err := do(ctx, l.agent, method, path, nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		var p problem
		if json.Unmarshal(b, &p) != nil {
			p = problem{"agent.answer", fmt.Sprintf("the agent answered %d", code), "look into the agent's log"}
		}
		return nil, &LocalError{p.Code, p.Detail, p.Next}
	}
	out := new(T)
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return out, nil
}

// Import has the running agent take in a stick.
func (l *Local) Import(ctx context.Context, path string, wait time.Duration) (*Import, error) {
	return local[Import](ctx, l, http.MethodPost, "/v1/import?"+url.Values{"path": {path}, "wait": {wait.String()}}.Encode())
}

// Status asks for the device's status.
func (l *Local) Status(ctx context.Context) (*Status, error) {
	return l.status(ctx, http.MethodGet, "/v1/status")
}

// Rollback returns a model to its previous slot and tells the status after it.
func (l *Local) Rollback(ctx context.Context, model string) (*Status, error) {
	return l.status(ctx, http.MethodPost, "/v1/models/"+model+"/rollback")
}

// Config asks for the configuration in effect.
func (l *Local) Config(ctx context.Context) (string, error) {
	_, b, err := do(ctx, l.agent, http.MethodGet, "/v1/config", nil)
	return string(b), err
}

// Infer sends an Open Inference Protocol request body and returns the answer's
// body. A refusal is a *LocalError that carries the front's own sentence.
func (l *Local) Infer(ctx context.Context, model string, body []byte) ([]byte, error) {
	return l.InferTensors(ctx, model, body, nil)
}

// InferTensors is Infer with binary tensors behind the JSON.
func (l *Local) InferTensors(ctx context.Context, model string, body, tensors []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://local/v2/models/"+model+"/infer", io.MultiReader(bytes.NewReader(body), bytes.NewReader(tensors)))
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(body) + len(tensors))
	if tensors != nil {
		req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(body)))
	}
	return l.asked(req, model)
}

// InferFile sends a picture or a sound as it is, with its content type; the query may
// hold top and offset. The answer is as that of Infer, with results by name if the
// model has some.
func (l *Local) InferFile(ctx context.Context, model, contentType string, file []byte, query url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://local/v2/models/"+model+"/infer?"+query.Encode(), bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	return l.asked(req, model)
}

// asked sends an infer request.
func (l *Local) asked(req *http.Request, model string) ([]byte, error) {
	code, b, err := send(l.infer, req)
	if err != nil {
		return nil, err
	}
	var e struct {
		Error string `json:"error"`
	}
	switch code {
	case http.StatusOK:
		return b, nil
	case http.StatusServiceUnavailable:
		json.Unmarshal(b, &e)
		return nil, &LocalError{CodeInferBusy, e.Error, "ask again, or look at 'dunlin-agent status'"}
	}
	json.Unmarshal(b, &e)
	return nil, &LocalError{"infer.refused", e.Error, "compare the input with 'dunlin-agent ask " + model + "' without a file"}
}

// Feedback sends a JSON body about an answer, see docs/truth.md, and returns the
// answer's.
func (l *Local) Feedback(ctx context.Context, body []byte) ([]byte, error) {
	code, b, err := do(ctx, l.infer, http.MethodPost, "/v1/feedback", body)
	if err != nil || code == http.StatusOK {
		return b, err
	}
	p := problem{"agent.answer", fmt.Sprintf("the agent answered %d", code), "look into the agent's log"}
	json.Unmarshal(b, &p) // what is no problem stays this one
	return nil, &LocalError{p.Code, p.Detail, p.Next}
}

// Metadata returns the Open Inference Protocol metadata of a model.
func (l *Local) Metadata(ctx context.Context, model string) ([]byte, error) {
	code, b, err := do(ctx, l.infer, http.MethodGet, "/v2/models/"+model, nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, &LocalError{"model.unknown", "this device serves no model " + model, "see 'dunlin-agent status'"}
	}
	return b, nil
}
