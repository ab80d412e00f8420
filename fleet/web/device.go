package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// page is a list; next is the cursor of the page after it, absent at the end.
type page[T any] struct {
	Body struct {
		Items []T    `json:"items"`
		Next  string `json:"next,omitempty"`
	}
}

func paged[T any](items []T, limit int, cursor func(T) string) *page[T] {
	p := &page[T]{}
	p.Body.Items = items
	if items == nil {
		p.Body.Items = []T{}
	}
	if len(items) == limit && limit > 0 {
		p.Body.Next = cursor(items[len(items)-1])
	}
	return p
}

type one[T any] struct{ Body T }

// ByID names one object in the path. It is exported because a field of an embedded
// struct is seen only then.
type ByID struct {
	ID string `path:"id" maxLength:"64"`
}

// Paging is which part of a list is wanted.
type Paging struct {
	After string `query:"after" doc:"cursor: next of the page before"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *api) deviceRoutes() {
	route(a, get("/v1/devices", "list-devices", "List devices"), fleet.RoleViewer, a.listDevices)
	route(a, get("/v1/devices/{id}", "get-device", "Show a device with its wish"), fleet.RoleViewer, a.getDevice)
	route(a, get("/v1/devices/{id}/why", "why-device", "Say what keeps a device from running something else"), fleet.RoleViewer, a.why)
	route(a, get("/v1/devices/{id}/events", "list-device-events", "List what happened on a device"), fleet.RoleViewer, a.listEvents)
	route(a, get("/v1/devices/{id}/samples", "list-device-samples", "List a device's measurements"), fleet.RoleViewer, a.listSamples)
	route(a, huma.Operation{OperationID: "label-device", Method: http.MethodPatch, Path: "/v1/devices/{id}/labels", Summary: "Set and remove labels"}, fleet.RoleOperator, a.label)
}

func (a *api) why(ctx context.Context, in *struct {
	ByID
	Model string `query:"model" maxLength:"64" doc:"none: every model that it serves or shall serve"`
}) (*page[fleet.Why], error) {
	ws, err := a.Why(ctx, in.ID, in.Model)
	if err != nil {
		return nil, err
	}
	return paged(ws, 0, nil), nil
}

func (a *api) listDevices(ctx context.Context, in *struct {
	Paging
	Selector string `query:"selector" maxLength:"1024"`
	Channel  string `query:"channel"`
	Status   string `query:"status" enum:"pending,active,revoked,retired"`
	All      bool   `query:"all" doc:"also the retired ones"`
}) (*page[DeviceView], error) {
	f := fleet.DeviceFilter{Selector: in.Selector, Channel: in.Channel, Status: in.Status, Not: fleet.DeviceRetired, After: in.After, Limit: in.Limit}
	if in.All || in.Status == fleet.DeviceRetired {
		f.Not = ""
	}
	ds, err := a.Store.Devices(ctx, f)
	if err != nil {
		return nil, err
	}
	items := make([]DeviceView, len(ds))
	for i, d := range ds {
		items[i] = viewDevice(d)
	}
	return paged(items, in.Limit, func(d DeviceView) string { return d.ID }), nil
}

func (a *api) getDevice(ctx context.Context, in *ByID) (*one[DeviceView], error) {
	d, err := a.Store.Device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	w, err := a.Store.Wish(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := viewDevice(d)
	post, err := a.Store.Signpost(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v.Server = viewServer(post)
	if err := a.identity(ctx, &v); err != nil {
		return nil, err
	}
	if v.Refusal, err = a.refusal(ctx, in.ID); err != nil {
		return nil, err
	}
	v.Wish = &WishView{Generation: w.Generation, Items: append([]fleet.Item{}, w.Items...)}
	return &one[DeviceView]{v}, nil
}

// EventView is an event as the API shows it.
type EventView struct {
	ID     string    `json:"id"`
	Device string    `json:"device"`
	At     time.Time `json:"at" doc:"received"`
	Type   string    `json:"type"`
	Model  string    `json:"model,omitempty"`
	Path   string    `json:"path,omitempty"`
	Code   string    `json:"code,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Next   string    `json:"next,omitempty" doc:"what to do about it, as the device says"`
	Times  int       `json:"times,omitempty" doc:"how often it happened since it was last told; absent: once"`
}

func viewEvent(e *fleet.Event) EventView {
	v := EventView{ID: e.ID, Device: e.Device, At: e.At, Type: e.Event.Type, Model: e.Event.Model, Path: e.Event.Path, Code: e.Event.Code, Detail: e.Event.Detail, Next: e.Event.Attrs[wire.AttrNext]}
	if n, err := strconv.Atoi(e.Event.Attrs[wire.AttrTimes]); err == nil && n > 1 {
		v.Times = n
	}
	return v
}

// lately is how many of a device's newest events are searched for a refusal.
const lately = 100

// refusal is the newest refusal of metadata or of a stick that the device told, nil
// when it has believed again since, or said so much else that it is long ago.
func (a *api) refusal(ctx context.Context, device string) (*EventView, error) {
	es, err := a.Store.Events(ctx, device, "", lately)
	if err != nil {
		return nil, err
	}
	for i := range es {
		e := &es[i].Event
		switch {
		case e.Type == "trust.believed" || e.Type == "usb.imported":
			return nil, nil
		case e.Type == "trust.refused" || e.Type == "usb.refused" && e.Code != "usb.older":
			v := viewEvent(&es[i])
			return &v, nil
		}
	}
	return nil, nil
}

func (a *api) listEvents(ctx context.Context, in *struct {
	ByID
	Paging
}) (*page[EventView], error) {
	if _, err := a.Store.Device(ctx, in.ID); err != nil {
		return nil, err
	}
	es, err := a.Store.Events(ctx, in.ID, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]EventView, len(es))
	for i, e := range es {
		items[i] = viewEvent(&e)
	}
	return paged(items, in.Limit, func(e EventView) string { return e.ID }), nil
}

// SampleView is one window of measurements as the API shows it.
type SampleView struct {
	Start    time.Time          `json:"start"`
	Seconds  int64              `json:"seconds"`
	Model    string             `json:"model,omitempty" doc:"empty: the host's own"`
	Path     string             `json:"path,omitempty"`
	Rollout  string             `json:"rollout,omitempty"`
	Arm      string             `json:"arm,omitempty"`
	Requests uint64             `json:"requests"`
	Errors   map[string]uint64  `json:"errors,omitempty"`
	P50      float64            `json:"p50_us,omitempty"`
	P95      float64            `json:"p95_us,omitempty"`
	P99      float64            `json:"p99_us,omitempty"`
	Classes  []uint64           `json:"classes,omitempty"`
	Score    []uint64           `json:"score_bins,omitempty"`
	NaN      uint64             `json:"nan,omitempty"`
	Host     map[string]float64 `json:"host,omitempty"`

	Right   uint64             `json:"right,omitempty" doc:"answers that applications said were right"`
	Wrong   uint64             `json:"wrong,omitempty" doc:"and wrong"`
	Metrics map[string]float64 `json:"metrics,omitempty" doc:"means of applications' own measures"`
}

func viewSample(s *wire.Sample) (SampleView, error) {
	v := SampleView{Start: time.Unix(s.Start, 0).UTC(), Seconds: s.Seconds, Model: s.Model, Path: s.Path, Rollout: s.Rollout, Arm: s.Arm, Requests: s.Requests, Errors: s.Errors, Classes: s.Classes, NaN: s.NaN, Host: s.Host}
	if s.Truth != nil {
		v.Right, v.Wrong = s.Truth.Right, s.Truth.Wrong
	}
	for name, m := range s.Metrics {
		if v.Metrics == nil {
			v.Metrics = map[string]float64{}
		}
		v.Metrics[name] = m.Mean
	}
	if s.Score != nil {
		v.Score = s.Score.Bins
	}
	if len(s.Latency.Bytes) == 0 {
		return v, nil
	}
	q, err := s.Latency.Decode()
	if err != nil {
		return v, fmt.Errorf("sample: %w", err)
	}
	v.P50, v.P95, v.P99 = q.Quantile(0.5), q.Quantile(0.95), q.Quantile(0.99)
	return v, nil
}

func (a *api) listSamples(ctx context.Context, in *struct {
	ByID
	Since int64 `query:"since" doc:"seconds since 1970" minimum:"0"`
	Limit int   `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}) (*page[SampleView], error) {
	if _, err := a.Store.Device(ctx, in.ID); err != nil {
		return nil, err
	}
	ss, err := a.Store.Samples(ctx, in.ID, in.Since, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]SampleView, len(ss))
	for i := range ss {
		if items[i], err = viewSample(&ss[i].Sample); err != nil {
			return nil, err
		}
	}
	return paged(items, 0, nil), nil
}

func (a *api) label(ctx context.Context, in *struct {
	ByID
	Body struct {
		Set    map[string]string `json:"set,omitempty" maxProperties:"64"`
		Remove []string          `json:"remove,omitempty" maxItems:"64"`
	}
}) (*one[DeviceView], error) {
	for k, v := range in.Body.Set {
		if err := fleet.CheckLabel(k, v); err != nil {
			return nil, err
		}
	}
	detail, err := json.Marshal(in.Body)
	if err != nil {
		return nil, err
	}
	d, err := a.Store.SetLabels(ctx, in.ID, in.Body.Set, in.Body.Remove, a.audit(ctx, "device.label", in.ID, string(detail)))
	if err != nil {
		return nil, err
	}
	return &one[DeviceView]{viewDevice(d)}, nil
}
