package web

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
)

func (a *api) accessRoutes() {
	route(a, post("/v1/access", "create-access", "Make an API token"), fleet.RoleAdmin, once(a, a.createAccess))
	route(a, get("/v1/access", "list-access", "List API tokens"), fleet.RoleAdmin, a.listAccess)
	route(a, huma.Operation{OperationID: "delete-access", Method: http.MethodDelete, Path: "/v1/access/{id}", Summary: "End an API token"}, fleet.RoleAdmin, a.deleteAccess)
	route(a, get("/v1/audit", "list-audit", "List what was done, the newest first"), fleet.RoleViewer, a.listAudit)
}

// AccessView is an API token; its text only in the answer that made it.
type AccessView struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Token   string     `json:"token,omitempty" doc:"shown once"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

type newAccess struct {
	Idempotency
	Body struct {
		Name    string         `json:"name" minLength:"1" maxLength:"64"`
		Role    string         `json:"role" enum:"viewer,operator,publisher,admin"`
		Expires fleet.Duration `json:"expires,omitempty" doc:"like 720h; absent: never"`
	}
}

func (a *api) createAccess(ctx context.Context, in *newAccess) (*one[AccessView], error) {
	x, token := fleet.NewAccess(in.Body.Name, in.Body.Role, time.Duration(in.Body.Expires), a.Now())
	if err := a.Store.CreateAccess(ctx, x, a.audit(ctx, "access.create", x.ID, x.Role+" "+x.Name)); err != nil {
		return nil, err
	}
	v := viewAccess(x)
	v.Token = token
	return &one[AccessView]{v}, nil
}

func viewAccess(x *fleet.Access) AccessView {
	return AccessView{ID: x.ID, Name: x.Name, Role: x.Role, Created: x.Created, Expires: when(x.Expires)}
}

func (a *api) listAccess(ctx context.Context, _ *struct{}) (*page[AccessView], error) {
	xs, err := a.Store.AccessList(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]AccessView, len(xs))
	for i, x := range xs {
		items[i] = viewAccess(x)
	}
	return paged(items, 0, nil), nil
}

func (a *api) deleteAccess(ctx context.Context, in *ByID) (*struct{}, error) {
	return nil, a.Store.DeleteAccess(ctx, in.ID, a.audit(ctx, "access.delete", in.ID, ""))
}

// AuditView is one act.
type AuditView struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Act    string    `json:"act"`
	Object string    `json:"object"`
	Detail string    `json:"detail,omitempty"`
}

func (a *api) listAudit(ctx context.Context, in *struct {
	Paging
	Object string `query:"object"`
}) (*page[AuditView], error) {
	as, err := a.Store.Audit(ctx, in.Object, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]AuditView, len(as))
	for i, x := range as {
		items[i] = AuditView(x)
	}
	return paged(items, in.Limit, func(x AuditView) string { return x.ID }), nil
}
