package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/dunlin-edge/dunlin/fleet"
)

func (a *api) releaseRoutes() {
	route(a, get("/v1/releases", "list-releases", "List releases"), fleet.RoleViewer, a.listReleases)
	route(a, get("/v1/models", "list-models", "List models with their newest release per channel"), fleet.RoleViewer, a.listModels)
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

// MetadataView is one signed metadata file.
type MetadataView struct {
	Repo    string `json:"repo"`
	Role    string `json:"role"`
	Version int64  `json:"version"`
	Bytes   []byte `json:"bytes"`
}

func (a *api) catalogMetadata(ctx context.Context, _ *struct{}) (*page[MetadataView], error) {
	rows, err := a.Catalog.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]MetadataView, len(rows))
	for i, r := range rows {
		items[i] = MetadataView{r.Repo, r.Role, r.Version, r.Bytes}
	}
	return paged(items, 0, nil), nil
}

// rawRoutes take or give bytes that are not JSON of ours.
func (a *api) rawRoutes() {
	a.raw("HEAD /v1/blobs/{digest}", fleet.RolePublisher, a.hasBlob)
	a.raw("PUT /v1/blobs/{digest}", fleet.RolePublisher, a.putBlob)
	a.raw("PUT /v1/catalog/roles/{role}", fleet.RolePublisher, a.putRole)
	a.raw("POST /v1/catalog/roots", fleet.RolePublisher, a.installRoots)
	a.raw("GET /v1/keys/online", fleet.RoleViewer, func(w http.ResponseWriter, _ *http.Request) error { return send(w, "application/json", a.OnlineKeys) })
	a.raw("GET /v1/ca", public, func(w http.ResponseWriter, _ *http.Request) error { return send(w, "application/x-pem-file", a.CA) })
	a.raw("GET /healthz", public, func(w http.ResponseWriter, _ *http.Request) error { return send(w, "text/plain", []byte("ok\n")) })
}

func send(w http.ResponseWriter, contentType string, b []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Write(b)
	return nil
}

func (a *api) hasBlob(w http.ResponseWriter, r *http.Request) error {
	size, ok, err := a.Blobs.Has(r.PathValue("digest"))
	if err != nil {
		return err
	}
	if !ok {
		return fleet.ErrBlobUnknown
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	return nil
}

func (a *api) putBlob(w http.ResponseWriter, r *http.Request) error {
	if err := a.Blobs.Put(r.PathValue("digest"), r.Body, maxBlob); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// body reads a bounded body.
func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return nil, &fleet.Error{Code: "request.too_large", Message: "the body is longer than is read here", Next: "send less", Status: http.StatusRequestEntityTooLarge}
	}
	return b, err
}

func (a *api) putRole(w http.ResponseWriter, r *http.Request) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	if _, err := a.Catalog.Ingest(r.Context(), r.PathValue("role"), b, actor(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) installRoots(w http.ResponseWriter, r *http.Request) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	if err := a.Catalog.Install(r.Context(), b, actor(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
