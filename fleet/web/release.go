package web

import (
	"context"

	"github.com/dunlin-edge/dunlin/fleet"
)

func (a *api) releaseRoutes() {
	route(a, get("/v1/releases", "list-releases", "List releases"), fleet.RoleViewer, a.listReleases)
	route(a, get("/v1/models", "list-models", "List models with their newest release per channel"), fleet.RoleViewer, a.listModels)
	route(a, get("/v1/models/{model}", "get-model", "List a model's releases in every channel"), fleet.RoleViewer, a.getModel)
	route(a, get("/v1/catalog/metadata", "get-catalog", "The newest metadata of every catalog role"), fleet.RoleViewer, a.catalogMetadata)
}

func (a *api) listReleases(ctx context.Context, in *struct {
	Channel string `query:"channel"`
	Model   string `query:"model"`
	Kind    string `query:"kind"`
}) (*page[ReleaseView], error) {
	rs, err := a.Store.Releases(ctx, fleet.ReleaseFilter{Channel: in.Channel, Model: in.Model, Kind: in.Kind})
	if err != nil {
		return nil, err
	}
	items := make([]ReleaseView, len(rs))
	for i, r := range rs {
		items[i] = viewRelease(r)
	}
	return paged(items, 0, nil), nil
}

func (a *api) listModels(ctx context.Context, _ *struct{}) (*page[ReleaseView], error) {
	rs, err := a.Store.Releases(ctx, fleet.ReleaseFilter{})
	if err != nil {
		return nil, err
	}
	var items []ReleaseView
	seen := map[[2]string]bool{}
	for _, r := range rs { // by model, channel and falling counter
		k := [2]string{r.Model, r.Channel}
		if !seen[k] {
			seen[k] = true
			items = append(items, viewRelease(r))
		}
	}
	return paged(items, 0, nil), nil
}

func (a *api) getModel(ctx context.Context, in *struct {
	Model string `path:"model" maxLength:"64"`
}) (*page[ReleaseView], error) {
	rs, err := a.Store.Releases(ctx, fleet.ReleaseFilter{Model: in.Model})
	if err != nil {
		return nil, err
	}
	if len(rs) == 0 {
		return nil, fleet.ErrModelUnknown.With("no release of a model %q is published", in.Model)
	}
	items := make([]ReleaseView, len(rs))
	for i, r := range rs {
		items[i] = viewRelease(r)
	}
	return paged(items, 0, nil), nil
}

// MetadataView is one signed metadata file.
type MetadataView struct {
	Repo    string `json:"repo"`
	Role    string `json:"role"`
	Version int64  `json:"version"`
	Bytes   []byte `json:"bytes"`
	// Floor is what the next version is above, after a restore; 0: nothing.
	Floor int64 `json:"floor,omitempty"`
}

func (a *api) catalogMetadata(ctx context.Context, _ *struct{}) (*page[MetadataView], error) {
	rows, err := a.Catalog.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]MetadataView, len(rows))
	for i, r := range rows {
		items[i] = MetadataView{r.Repo, r.Role, r.Version, r.Bytes, r.Floor}
	}
	return paged(items, 0, nil), nil
}
