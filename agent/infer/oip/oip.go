// Package oip is the front of the inference server: the Open Inference Protocol,
// version 2, over HTTP and gRPC, with the extensions that clients of Triton use: binary
// tensors, classification, statistics, repository index, model configuration and
// system shared memory. A bad request gets a 4xx and one sentence that says what
// was wanted; a request is never half accepted.
package oip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/stats"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Engine answers requests.
type Engine interface {
	Models() []string
	Active(model string) (infer.Slot, bool)
	Ready(model string) bool
	Infer(ctx context.Context, model string, inputs [][]byte) (infer.Answer, error)
}

const (
	maxBody = 64 << 20         // bytes of a request, whatever the model wants
	timeout = 30 * time.Second // of a request; a run has a shorter one of its own
)

// platform is what runs the models, as metadata names it.
const platform = "litert"

// Config of the front.
type Config struct {
	Engine  Engine
	Version string // the server's own
	// SharedMemory lets clients on this machine give tensors in named regions.
	SharedMemory bool
	// Answered is told of every answer before it is sent; it must not block. nil:
	// nobody is.
	Answered func(Answered)
}

// front is the handler's state.
type front struct {
	e        Engine
	version  string
	answered func(Answered) // nil: nobody is told
	memory   *regions       // nil: not allowed
	bodies   *semaphore.Weighted
	pixels   *semaphore.Weighted // of pictures that are decoded
	stats    stats.Statistics
	names    labelFiles
}

// Handler serves the protocol.
func Handler(c Config) http.Handler {
	f := &front{e: c.Engine, version: c.Version, answered: c.Answered, bodies: semaphore.NewWeighted(maxBodies), pixels: semaphore.NewWeighted(maxDecoding)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", f.server)
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /v2/health/ready", f.serverReady)
	mux.HandleFunc("GET /v2/models/stats", f.allStatistics)
	mux.HandleFunc("POST /v2/repository/index", f.index)
	mux.HandleFunc("POST /v2/repository/models/{model}/{act}", f.manage)
	for _, path := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.HandleFunc("GET "+path, f.metadata)
		mux.HandleFunc("GET "+path+"/ready", f.ready)
		mux.HandleFunc("GET "+path+"/stats", f.statistics)
		mux.HandleFunc("GET "+path+"/config", f.configuration)
		mux.HandleFunc("POST "+path+"/infer", f.infer)
	}
	if c.SharedMemory {
		f.memory = newRegions()
	}
	f.memoryRoutes(mux)
	f.grpcRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %s %s in the Open Inference Protocol", r.Method, r.URL.Path))
	})
	return mux
}

// find returns the active slot of a model, which must be of the version unless that
// is empty.
func (f *front) find(model, version string) (infer.Slot, error) {
	s, ok := f.e.Active(model)
	switch {
	case !ok:
		return s, &refused{http.StatusNotFound, fmt.Sprintf("this device serves no model %.80q; it serves %v", model, f.e.Models())}
	case version != "" && version != s.Version:
		return s, &refused{http.StatusNotFound, fmt.Sprintf("model %s is served in version %s, not %.80q", model, s.Version, version)}
	}
	return s, nil
}

// allReady tells whether every model can answer now.
func (f *front) allReady() bool {
	for _, m := range f.e.Models() {
		if !f.e.Ready(m) {
			return false
		}
	}
	return true
}

// extensions are the names of what is served beyond the protocol itself.
func (f *front) extensions() []string {
	out := []string{"binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics"}
	if f.memory != nil {
		out = append(out, "system_shared_memory")
	}
	return out
}

// tensorMeta describes a tensor.
type tensorMeta struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	// Parameters has the meaning, as model.yaml writes it.
	Parameters map[string]string `json:"parameters,omitempty"`
}

func describe(ts []bundle.Tensor) []tensorMeta {
	out := []tensorMeta{}
	for _, t := range ts {
		m := tensorMeta{Name: t.Name, Datatype: t.DType, Shape: t.Shape}
		if t.Meaning != nil {
			m.Parameters = map[string]string{"meaning": t.Meaning.String()}
		}
		out = append(out, m)
	}
	return out
}

// refused is a request that is not answered, with the HTTP status that says why.
type refused struct {
	status int
	text   string
}

func (e *refused) Error() string { return e.text }

// bad is a request that is wrong.
func bad(err error) error { return &refused{http.StatusBadRequest, err.Error()} }

// run asks the engine and makes the answer. A request that was checked against a
// slot that has been switched meanwhile is checked again.
func (f *front) run(ctx context.Context, s infer.Slot, version string, req *request) (*answer, error) {
	if err := f.memory.fill(req, s.Contract); err != nil {
		return nil, bad(err)
	}
	limit := timeout
	if req.timeout > 0 {
		limit = min(limit, req.timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		began := time.Now()
		inputs, shown, err := f.inputs(ctx, req, s.Contract)
		if err != nil {
			return nil, err
		}
		if shown != nil {
			ctx = infer.WithSource(ctx, shown.Width, shown.Height)
		}
		asked := time.Now()
		from, err := f.ask(ctx, s, inputs)
		by, out, answered := from.Slot, from.Outputs, time.Now()
		if errors.Is(err, infer.ErrInputs) || err == nil && !checked(version, s, by) {
			before, gone := s.Key, error(nil)
			if s, gone = f.find(s.Key.Model, version); gone != nil {
				return nil, gone
			}
			if err == nil || s.Key != before {
				continue
			}
		}
		if err != nil {
			f.stats.Fail(s, time.Since(began))
			return nil, err
		}
		a, err := f.answer(req, by, out, shown)
		if err != nil {
			return nil, bad(err)
		}
		f.stats.Add(by, stats.Spent{Input: asked.Sub(began), Queue: max(answered.Sub(asked)-from.Took, 0), Infer: from.Took, Output: time.Since(answered)})
		f.tell(a, req, inputs, out, time.Since(asked))
		return a, nil
	}
}

// inputs checks a request against a contract and returns the inputs in its order, and
// what the picture among them was.
func (f *front) inputs(ctx context.Context, r *request, c *bundle.Contract) ([][]byte, *named.Shown, error) {
	if r.named {
		if err := named.Check(c); err != nil {
			return nil, nil, bad(err)
		}
	}
	r, shown, err := f.fitted(ctx, r, c)
	if err != nil {
		return nil, nil, err
	}
	inputs, err := r.bytes(c)
	if err != nil {
		return nil, nil, bad(err)
	}
	return inputs, shown, nil
}

// ask runs the model, unless the request's time is over.
func (f *front) ask(ctx context.Context, s infer.Slot, inputs [][]byte) (infer.Answer, error) {
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return infer.Answer{}, context.DeadlineExceeded // its timer may not have noticed
	}
	return f.e.Infer(ctx, s.Key.Model, inputs)
}

// checked tells whether a request that was checked against one slot may have been
// answered by another: the version when it named one, else the same inputs.
func checked(version string, s, by infer.Slot) bool {
	if s.Key == by.Key {
		return true
	}
	if version != "" && version != by.Version {
		return false
	}
	return slices.EqualFunc(s.Contract.Inputs, by.Contract.Inputs, func(a, b bundle.Tensor) bool {
		return a.Name == b.Name && a.DType == b.DType && slices.Equal(a.Shape, b.Shape) &&
			reflect.DeepEqual(a.Meaning, b.Meaning) && reflect.DeepEqual(a.Quant, b.Quant)
	})
}

// bodyLimit is generous: room for indented lists of numbers with all their digits, and
// for pictures and sounds where they may come instead.
func bodyLimit(c *bundle.Contract) int64 {
	const perElement, around = 64, 64 << 10
	total := int64(around)
	for _, t := range c.Inputs {
		n := int64(perElement)
		for _, d := range t.Shape {
			if d < 0 || n > maxBody {
				return maxBody
			}
			n *= int64(d)
		}
		if m := t.Meaning; m != nil && (m.Kind == "image" || m.Kind == "audio") {
			n += maxForeign
		}
		total += n
	}
	return min(total, maxBody)
}

// statusOf separates what the caller can wait for from what it cannot.
func statusOf(err error) int {
	var d *infer.Death
	var r *refused
	switch {
	case errors.As(err, &r):
		return r.status
	case errors.Is(err, infer.ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, infer.ErrInputs): // a dynamic dimension that this build of the model has not
		return http.StatusBadRequest
	case errors.Is(err, infer.ErrBusy), errors.Is(err, infer.ErrReset), errors.Is(err, infer.ErrEngine), errors.As(err, &d):
		return http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
