package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

func (a *api) rolloutRoutes() {
	route(a, post("/v1/rollouts", "create-rollout", "Start a rollout"), fleet.RoleOperator, once(a, a.createRollout))
	route(a, get("/v1/rollouts", "list-rollouts", "List rollouts, the newest first"), fleet.RoleViewer, a.listRollouts)
	route(a, get("/v1/rollouts/{id}", "get-rollout", "Show a rollout"), fleet.RoleViewer, a.getRollout)
	route(a, get("/v1/rollouts/{id}/members", "list-members", "List a rollout's devices"), fleet.RoleViewer, a.listMembers)
	route(a, get("/v1/rollouts/{id}/gates", "list-gates", "List every evaluation of the gates with what they were judged on"), fleet.RoleViewer, a.listGates)
	route(a, post("/v1/rollouts/{id}/pause", "pause-rollout", "Pause a running rollout"), fleet.RoleOperator, a.steer(a.Rollouts.Pause))
	route(a, post("/v1/rollouts/{id}/resume", "resume-rollout", "Let a paused rollout go on"), fleet.RoleOperator, a.steer(a.Rollouts.Resume))
	route(a, post("/v1/rollouts/{id}/abort", "abort-rollout", "End a rollout; devices that are not good yet get their former wish back"), fleet.RoleOperator, a.steer(a.Rollouts.Abort))
	route(a, post("/v1/rollouts/{id}/revert", "revert-rollout", "Give every device that a rollout has changed back what it had before"), fleet.RoleOperator, a.steer(a.Rollouts.Revert))
	route(a, get("/v1/quarantines", "list-quarantines", "List releases that are kept from devices since a gate failed"), fleet.RoleViewer, a.listQuarantines)
	route(a, post("/v1/quarantines/{id}/release", "release-quarantine", "Let a release out of quarantine"), fleet.RoleOperator, a.releaseQuarantine)
}

func (a *api) listQuarantines(ctx context.Context, in *struct {
	Path     string `query:"path" doc:"of a release"`
	Released bool   `query:"released" doc:"also those that were let go"`
}) (*page[fleet.Quarantine], error) {
	qs, err := a.Store.Quarantines(ctx, in.Path, in.Released)
	if err != nil {
		return nil, err
	}
	return paged(qs, 0, nil), nil
}

func (a *api) releaseQuarantine(ctx context.Context, in *steering) (*struct{}, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	return nil, a.Rollouts.Release(ctx, in.ID, reason, actor(ctx))
}

type newRollout struct {
	Idempotency
	Body fleet.Spec
}

func (a *api) createRollout(ctx context.Context, in *newRollout) (*one[RolloutView], error) {
	r, err := a.Rollouts.Create(ctx, in.Body, actor(ctx))
	if err != nil {
		return nil, err
	}
	return a.showRollout(ctx, r)
}

func (a *api) showRollout(ctx context.Context, r *fleet.Rollout) (*one[RolloutView], error) {
	ts, err := a.Store.Tallies(ctx, []string{r.ID})
	if err != nil {
		return nil, err
	}
	v := a.viewRollout(r, ts[r.ID])
	gs, err := a.Store.NewestEvaluations(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	for _, g := range gs {
		x, err := a.Reading(g)
		if err != nil {
			return nil, err
		}
		v.Gates = append(v.Gates, x)
	}
	return &one[RolloutView]{v}, nil
}

func (a *api) listRollouts(ctx context.Context, in *struct {
	Paging
	Status string `query:"status"`
}) (*page[RolloutView], error) {
	rs, err := a.Store.Rollouts(ctx, in.Status, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(rs))
	for i := range rs {
		ids[i] = rs[i].ID
	}
	ts, err := a.Store.Tallies(ctx, ids)
	if err != nil {
		return nil, err
	}
	items := make([]RolloutView, len(rs))
	for i := range rs {
		items[i] = a.viewRollout(&rs[i], ts[rs[i].ID])
	}
	return paged(items, in.Limit, func(r RolloutView) string { return r.ID }), nil
}

func (a *api) getRollout(ctx context.Context, in *ByID) (*one[RolloutView], error) {
	r, err := a.Store.Rollout(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return a.showRollout(ctx, r)
}

func (a *api) listMembers(ctx context.Context, in *struct {
	ByID
	Paging
}) (*page[MemberView], error) {
	if _, err := a.Store.Rollout(ctx, in.ID); err != nil {
		return nil, err
	}
	ms, err := a.Store.MemberPage(ctx, in.ID, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]MemberView, len(ms))
	for i, m := range ms {
		items[i] = viewMember(m)
	}
	return paged(items, in.Limit, func(m MemberView) string { return m.Device }), nil
}

func (a *api) listGates(ctx context.Context, in *ByID) (*page[GateView], error) {
	if _, err := a.Store.Rollout(ctx, in.ID); err != nil {
		return nil, err
	}
	gs, err := a.Store.GateEvaluations(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	items := make([]GateView, len(gs))
	for i, g := range gs {
		r, err := a.Reading(g)
		if err != nil {
			return nil, err
		}
		items[i] = GateView{r, json.RawMessage(g.Evidence)}
	}
	return paged(items, 0, nil), nil
}

type steering struct {
	ByID
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"512"`
	}
}

func (a *api) steer(act func(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error)) func(context.Context, *steering) (*one[RolloutView], error) {
	return func(ctx context.Context, in *steering) (*one[RolloutView], error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		r, err := act(ctx, in.ID, reason, actor(ctx))
		if err != nil {
			return nil, err
		}
		return a.showRollout(ctx, r)
	}
}

// watchEvery is the longest pause between two events of a watch.
const watchEvery = 5 * time.Second

// watch sends the rollout as a server-sent event whenever it changed, and ends
// when the rollout has.
func (a *api) watch(w http.ResponseWriter, r *http.Request) error {
	id, ctx := r.PathValue("id"), r.Context()
	if _, err := a.Store.Rollout(ctx, id); err != nil {
		return err
	}
	changed, stop := a.Watch(id)
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		x, err := a.Store.Rollout(ctx, id)
		if err != nil {
			return nil // the client went, or the server goes
		}
		v, err := a.showRollout(ctx, x)
		if err != nil {
			return nil
		}
		b, err := json.Marshal(v.Body)
		if err != nil {
			return nil
		}
		if _, err := fmt.Fprintf(w, "event: rollout\ndata: %s\n\n", b); err != nil {
			return nil
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return nil
		}
		switch x.Status {
		case fleet.RolloutCompleted, fleet.RolloutHalted, fleet.RolloutAborted, fleet.RolloutReverted:
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}
