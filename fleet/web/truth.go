package web

import (
	"context"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Truths adds up what applications said of answers.
type Truths interface {
	// Ask wants a model that has a release; ErrModelUnknown otherwise.
	Ask(ctx context.Context, q fleet.TruthAsk) (*fleet.Truth, error)
}

func (a *api) truthRoutes() {
	route(a, get("/v1/models/{model}/truth", "get-truth", "What applications said of a model's answers"), fleet.RoleViewer, a.getTruth)
}

func (a *api) getTruth(ctx context.Context, in *struct {
	Model string `path:"model"`
	By    string `query:"by" maxLength:"63" default:"version" doc:"version, device, class, or the key of a label or fact"`
	Hours int    `query:"hours" minimum:"1" maximum:"744" default:"168" doc:"how far back"`
}) (*one[fleet.Truth], error) {
	t, err := a.Truth.Ask(ctx, fleet.TruthAsk{Model: in.Model, By: in.By, Since: time.Duration(in.Hours) * time.Hour})
	if err != nil {
		return nil, err
	}
	return &one[fleet.Truth]{*t}, nil
}
