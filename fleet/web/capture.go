package web

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Captures asks devices for inputs and gives them out. Every act is in the audit,
// reading included.
type Captures interface {
	Create(ctx context.Context, s fleet.CaptureSpec, actor string) (*fleet.Capture, error)
	Stop(ctx context.Context, id, actor string) (*fleet.Capture, error)
	List(ctx context.Context) ([]fleet.Capture, error)
	Show(ctx context.Context, id string) (*fleet.Capture, []fleet.CaptureDevice, error)
	// Pull lists whole samples behind after.
	Pull(ctx context.Context, id, after string, limit int, actor string) ([]fleet.CapturedSample, error)
	// Open returns the inputs of a sample, one behind the other.
	Open(ctx context.Context, id, device, sample, actor string) ([]byte, error)
	Erase(ctx context.Context, e fleet.Erase, actor string) (samples int64, err error)
}

func (a *api) captureRoutes() {
	route(a, post("/v1/captures", "create-capture", "Ask devices for inputs of a model"), fleet.RoleOperator, once(a, a.createCapture))
	route(a, get("/v1/captures", "list-captures", "List captures, the newest first"), fleet.RoleViewer, a.listCaptures)
	route(a, get("/v1/captures/{id}", "get-capture", "Show a capture and what devices brought to it"), fleet.RoleViewer, a.getCapture)
	route(a, post("/v1/captures/{id}/stop", "stop-capture", "Have no more inputs kept; what was captured stays until the capture ends"), fleet.RoleOperator, a.stopCapture)
	route(a, get("/v1/captures/{id}/samples", "list-captured", "List captured inputs; it is in the audit"), fleet.RoleOperator, a.listCaptured)
	route(a, post("/v1/data/erase", "erase-data", "Erase what was captured from a device, or a capture"), fleet.RoleOperator, a.eraseData)
	a.raw(http.MethodGet, "/v1/captures/{id}/samples/{device}/{sample}", fleet.RoleOperator, describe("get-captured", "The inputs of a sample, one behind the other; it is in the audit", "200", "application/octet-stream", "id", "device", "sample"), a.getCaptured)
}

// CaptureView is a capture as the API shows it.
type CaptureView struct {
	ID      string              `json:"id"`
	Spec    fleet.CaptureSpec   `json:"spec"`
	By      string              `json:"by"`
	Status  string              `json:"status" enum:"running,stopped,full,over"`
	Created time.Time           `json:"created"`
	Expires time.Time           `json:"expires" doc:"everything is erased then"`
	Samples int64               `json:"samples"`
	Bytes   int64               `json:"bytes"`
	Refused int64               `json:"refused,omitempty" doc:"records that came beyond its bounds"`
	Devices []CaptureDeviceView `json:"devices,omitempty"`
}

// CaptureDeviceView is what one device brought.
type CaptureDeviceView struct {
	Device  string    `json:"device"`
	Samples int64     `json:"samples"`
	Bytes   int64     `json:"bytes"`
	Last    time.Time `json:"last"`
}

func (a *api) viewCapture(c *fleet.Capture) CaptureView {
	v := CaptureView{ID: c.ID, Spec: c.Spec, By: c.By, Status: "running", Created: c.Created, Expires: c.Expires, Samples: c.Samples, Bytes: c.Bytes, Refused: c.Refused}
	switch {
	case !a.Now().Before(c.Expires):
		v.Status = "over"
	case !c.Stopped.IsZero():
		v.Status = "stopped"
	case c.Samples >= c.Spec.Max:
		v.Status = "full"
	}
	return v
}

type newCapture struct {
	Idempotency
	Body fleet.CaptureSpec
}

func (a *api) createCapture(ctx context.Context, in *newCapture) (*one[CaptureView], error) {
	c, err := a.Captures.Create(ctx, in.Body, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &one[CaptureView]{a.viewCapture(c)}, nil
}

func (a *api) listCaptures(ctx context.Context, _ *struct{}) (*page[CaptureView], error) {
	cs, err := a.Captures.List(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]CaptureView, len(cs))
	for i := range cs {
		items[i] = a.viewCapture(&cs[i])
	}
	return paged(items, 0, nil), nil
}

func (a *api) getCapture(ctx context.Context, in *ByID) (*one[CaptureView], error) {
	c, ds, err := a.Captures.Show(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := a.viewCapture(c)
	for _, d := range ds {
		v.Devices = append(v.Devices, CaptureDeviceView(d))
	}
	return &one[CaptureView]{v}, nil
}

func (a *api) stopCapture(ctx context.Context, in *ByID) (*one[CaptureView], error) {
	c, err := a.Captures.Stop(ctx, in.ID, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &one[CaptureView]{a.viewCapture(c)}, nil
}

// CapturedView is a captured input with what is known of it.
type CapturedView struct {
	Device   string              `json:"device"`
	Sample   string              `json:"sample"`
	At       time.Time           `json:"at"`
	Release  string              `json:"release"`
	Answered string              `json:"answered,omitempty"`
	Score    float64             `json:"score"`
	Feedback string              `json:"feedback,omitempty" enum:"right,wrong,"`
	Label    string              `json:"label,omitempty" doc:"class that was right"`
	Redacted bool                `json:"redacted,omitempty"`
	Inputs   []CapturedInputView `json:"inputs"`
}

// CapturedInputView is one input; their bytes follow one another in this order.
type CapturedInputView struct {
	Tensor json.RawMessage `json:"tensor" doc:"as the contract describes it"`
	Shape  []int           `json:"shape"`
	Bytes  int64           `json:"bytes"`
	// Encoding of a picture as it came.
	Encoding string `json:"encoding,omitempty" enum:"jpeg,png," doc:"of a picture as it came; empty: the bytes are the tensor's"`
}

func (a *api) listCaptured(ctx context.Context, in *struct {
	ByID
	Paging
}) (*page[CapturedView], error) {
	ss, err := a.Captures.Pull(ctx, in.ID, in.After, in.Limit, actor(ctx))
	if err != nil {
		return nil, err
	}
	items := make([]CapturedView, len(ss))
	for i, s := range ss {
		c := s.About
		items[i] = CapturedView{Device: s.Device, Sample: s.Sample, At: s.At, Release: c.Path, Answered: c.Answered, Score: c.Score, Feedback: c.Feedback, Label: c.Label, Redacted: c.Redacted, Inputs: []CapturedInputView{}}
		for _, x := range c.Inputs {
			t := json.RawMessage(x.Tensor)
			if !json.Valid(t) { // a device says what it likes
				t = json.RawMessage("{}")
			}
			items[i].Inputs = append(items[i].Inputs, CapturedInputView{t, x.Shape, x.Size, x.Encoding})
		}
	}
	return paged(items, in.Limit, func(v CapturedView) string { return v.Device + "/" + v.Sample }), nil
}

func (a *api) getCaptured(w http.ResponseWriter, r *http.Request) error {
	b, err := a.Captures.Open(r.Context(), r.PathValue("id"), r.PathValue("device"), r.PathValue("sample"), actor(r.Context()))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b) // a client that went needs no answer
	return nil
}

// Erased says what was erased.
type Erased struct {
	Samples int64 `json:"samples"`
}

func (a *api) eraseData(ctx context.Context, in *struct{ Body fleet.Erase }) (*one[Erased], error) {
	n, err := a.Captures.Erase(ctx, in.Body, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &one[Erased]{Erased{n}}, nil
}
