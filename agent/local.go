package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/dunlin-edge/dunlin/agent/bond"
	"github.com/dunlin-edge/dunlin/agent/capture"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Status is what the local API and `dunlin-agent status` tell.
type Status struct {
	Device     string        `json:"device"`
	Agent      string        `json:"agent"`
	Channel    string        `json:"channel"`
	Server     string        `json:"server"`
	Trouble    string        `json:"trouble,omitempty"` // why it is not at the address that it shall use
	Connected  bool          `json:"connected"`
	Clock      string        `json:"clock"` // "synchronised" or "floor"
	Now        time.Time     `json:"now"`   // trusted
	Generation int64         `json:"generation"`
	Models     []ModelStatus `json:"models"`
	Queues     []QueueStatus `json:"queues"`
	Posture    []LayerStatus `json:"posture"`
	Listen     string        `json:"listen"`
	Damage     []string      `json:"damage,omitempty"` // what was found damaged at start and how it was mended

	Certificate bond.CertificateStatus `json:"certificate"`
	Capture     capture.Status         `json:"capture"` // what inputs may and do leave the device
}

// ModelStatus is one model on this device.
type ModelStatus struct {
	Model     string      `json:"model"`
	Active    *SlotStatus `json:"active,omitempty"`
	Candidate *SlotStatus `json:"candidate,omitempty"`
	Previous  *SlotStatus `json:"previous,omitempty"` // the way back
	Step      string      `json:"step,omitempty"`     // of the journey under way
	Rollout   string      `json:"rollout,omitempty"`
	Answered  uint64      `json:"answered"` // live requests since the active slot serves
	PID       int         `json:"pid,omitempty"`
	Restarts  int         `json:"restarts"`
	LastWords string      `json:"last_words,omitempty"` // of the last worker that died
}

// SlotStatus is a pair in a place.
type SlotStatus struct {
	Place   string `json:"place,omitempty"`
	Path    string `json:"path"`
	Version string `json:"version"`
	Bundle  string `json:"bundle"`
	Runtime string `json:"runtime"`
	Verdict string `json:"verdict"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`

	Proof *bundle.Proof `json:"proof,omitempty"` // what it showed on this device
}

// QueueStatus is one queue on disk.
type QueueStatus struct {
	Kind    string `json:"kind"`
	Last    uint64 `json:"last"`
	Acked   uint64 `json:"acked"`
	Dropped uint64 `json:"dropped"`
}

// LayerStatus is one protective layer round the workers.
type LayerStatus struct {
	Layer  string `json:"layer"`
	Have   bool   `json:"have"`
	Detail string `json:"detail,omitempty"`
}

// problem is the body of a local API error.
type problem struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// device is what the local API asks of the running agent.
type device interface {
	Status() Status
	// Rollback returns a model to its previous slot by hand.
	Rollback(ctx context.Context, model string) error
	// Import takes in a stick, see Agent.Import.
	Import(ctx context.Context, path string, wait time.Duration) (*Import, error)
}

// localHandler serves the agent's own socket. Who may open the socket may do
// everything: its mode is 0600.
func localHandler(d device, c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, d.Status()) })
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Write([]byte(c.YAML()))
	})
	mux.HandleFunc("POST /v1/models/{model}/rollback", func(w http.ResponseWriter, r *http.Request) {
		err := d.Rollback(r.Context(), r.PathValue("model"))
		answer(w, err, func() any { return d.Status() })
	})
	mux.HandleFunc("POST /v1/import", func(w http.ResponseWriter, r *http.Request) {
		wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
		path := r.URL.Query().Get("path")
		if err != nil || !filepath.IsAbs(path) {
			reply(w, http.StatusBadRequest, problem{"import.request", "an absolute path and a duration to wait are wanted", "use 'dunlin-agent import PATH'"})
			return
		}
		in, err := d.Import(r.Context(), path, wait)
		answer(w, err, func() any { return in })
	})
	return mux
}

// answer replies with a coded error, or with what good returns.
func answer(w http.ResponseWriter, err error, good func() any) {
	var coded *codedError
	switch {
	case errors.As(err, &coded):
		reply(w, http.StatusConflict, problem{coded.code, coded.Error(), coded.next})
	case err != nil:
		reply(w, http.StatusInternalServerError, problem{"internal.error", err.Error(), "look into the agent's log"})
	default:
		reply(w, http.StatusOK, good())
	}
}

// codedError is an error with a code and a next step for people.
type codedError struct {
	code, next string
	err        error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// listenUnix replaces a socket that a dead agent left; a living one is refused.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, errors.New("listen on " + path + ": another agent is running")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serveHTTP serves until ctx ends, then lets requests under way finish for at
// most five seconds.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true) // gRPC
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	<-done
	return err
}
