package web

import (
	"context"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Drift compares what devices see with what releases were made for.
type Drift interface {
	// Ask returns ErrModelUnknown for a model without a release.
	Ask(ctx context.Context, q fleet.DriftAsk) (*fleet.Drift, error)
}

func (a *api) driftRoutes() {
	route(a, get("/v1/models/{model}/drift", "get-drift", "Compare what devices see of a model with its releases' references"), fleet.RoleViewer, a.getDrift)
}

func (a *api) getDrift(ctx context.Context, in *struct {
	Model string `path:"model" maxLength:"64"`
	By    string `query:"by" maxLength:"63" default:"version" doc:"version, device, class, or the key of a label or fact"`
	Since int64  `query:"since" minimum:"60" maximum:"2678400" default:"86400" doc:"how far back, seconds"`
}) (*one[*fleet.Drift], error) {
	d, err := a.Drift.Ask(ctx, fleet.DriftAsk{Model: in.Model, By: in.By, Since: time.Duration(in.Since) * time.Second})
	if err != nil {
		return nil, err
	}
	return &one[*fleet.Drift]{d}, nil
}
