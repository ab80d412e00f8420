package web

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
)

// rawRoutes take or give bytes that are not JSON of ours, or not at once.
func (a *api) rawRoutes() {
	a.raw(http.MethodHead, "/v1/blobs/{digest}", fleet.RolePublisher, describe("has-blob", "Ask for a blob's size", "200", "", "digest"), a.hasBlob)
	a.raw(http.MethodPut, "/v1/blobs/{digest}", fleet.RolePublisher, describe("put-blob", "Upload a blob", "204", "", "digest"), a.putBlob)
	a.raw(http.MethodPut, "/v1/catalog/roles/{role}", fleet.RolePublisher, describe("put-role", "Publish the next signed version of a channel's role", "204", "", "role"), a.putRole)
	a.raw(http.MethodPost, "/v1/catalog/roots", fleet.RolePublisher, describe("install-roots", "Install what a key ceremony made, once", "204", ""), a.installRoots)
	a.raw(http.MethodPost, "/v1/catalog/amendments", fleet.RolePublisher, describe("amend-catalog", "Take in the next version of what key holders sign", "204", ""), a.amendCatalog)
	a.raw(http.MethodGet, "/v1/keys/online", fleet.RoleViewer, describe("get-online-keys", "The server's public keys, for a key ceremony", "200", "application/json"), giveNow("application/json", a.OnlineKeys))
	a.raw(http.MethodGet, "/v1/ca", public, describe("get-ca", "The certificates of the server's CAs, the issuing one first", "200", "application/x-pem-file"), giveNow("application/x-pem-file", func() []byte { return a.CA() }))
	a.raw(http.MethodGet, "/healthz", public, describe("health", "Whether the server serves", "200", "text/plain"), give("text/plain", []byte("ok\n")))
	a.raw(http.MethodGet, "/v1/rollouts/{id}/watch", fleet.RoleViewer, describe("watch-rollout", "The rollout as an event whenever it changed, until it has ended", "200", "text/event-stream", "id"), a.watch)
}

// describe is what the API's description says of a raw route: its good status,
// the type of its answer, the parameters of its path.
func describe(id, summary, status, answers string, params ...string) huma.Operation {
	answer := &huma.Response{Description: summary}
	if answers != "" {
		answer.Content = map[string]*huma.MediaType{answers: {}}
	}
	op := huma.Operation{OperationID: id, Summary: summary, Responses: map[string]*huma.Response{status: answer}}
	for _, p := range params {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	return op
}

// raw registers a plain handler with the same admission as every other route.
func (a *api) raw(method, path, role string, op huma.Operation, h func(w http.ResponseWriter, r *http.Request) error) {
	op.Method, op.Path = method, path
	declare(&op, role)
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if role != public {
			x, err := a.admit(ctx, r.Header.Get("Authorization"), role)
			if err != nil {
				writeProblem(w, a.problem(err))
				return
			}
			ctx = context.WithValue(ctx, actorKey{}, x)
		}
		if err := h(w, r.WithContext(ctx)); err != nil {
			writeProblem(w, a.problem(err))
		}
	})
}

// give answers with the same bytes always.
func give(contentType string, b []byte) func(http.ResponseWriter, *http.Request) error {
	return giveNow(contentType, func() []byte { return b })
}

// giveNow answers with what there is now.
func giveNow(contentType string, now func() []byte) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", contentType)
		w.Write(now()) // a client that went needs no answer
		return nil
	}
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
	if err := a.Blobs.Put(r.PathValue("digest"), moves(w, r), maxBlob); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) putRole(w http.ResponseWriter, r *http.Request) error {
	b, err := body(w, r)
	if err != nil {
		return err
	}
	if _, err := a.Catalog.Ingest(r.Context(), r.PathValue("role"), b, actor(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) amendCatalog(w http.ResponseWriter, r *http.Request) error {
	b, err := body(w, r)
	if err != nil {
		return err
	}
	if err := a.Catalog.Amend(r.Context(), b, actor(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) installRoots(w http.ResponseWriter, r *http.Request) error {
	b, err := body(w, r)
	if err != nil {
		return err
	}
	if err := a.Catalog.Install(r.Context(), b, actor(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
