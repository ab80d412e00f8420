package fleetd

import (
	"context"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
)

// lockboxes go out by one service and come home by the other.
type lockboxes struct {
	*lockbox.Service
	*telemetry.Ingest
}

func (s *server) lockboxes() lockboxes {
	whole := func(ctx context.Context, channel string) ([]fleet.MetaRow, error) {
		return s.catalog.Newer(ctx, channel, catalog.Held{})
	}
	return lockboxes{&lockbox.Service{Store: s.db, Director: s.director, Catalog: whole, Blobs: s.blobs, Now: time.Now}, s.telemetry}
}

// watched tells watchers what people do to rollouts.
type watched struct {
	*rollout.Service
	hub *hub
}

func (w watched) Pause(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	defer w.hub.changed(id)
	return w.Service.Pause(ctx, id, reason, actor)
}

func (w watched) Resume(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	defer w.hub.changed(id)
	return w.Service.Resume(ctx, id, reason, actor)
}

func (w watched) Revert(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	defer w.hub.changed(id)
	return w.Service.Revert(ctx, id, reason, actor)
}

func (w watched) Abort(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	defer w.hub.changed(id)
	return w.Service.Abort(ctx, id, reason, actor)
}

// hub tells watchers that a rollout changed. A slow watcher misses nothing but
// the number of changes.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[chan struct{}]bool
}

func newHub() *hub { return &hub{watchers: map[string]map[chan struct{}]bool{}} }

func (h *hub) changed(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.watchers[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (h *hub) watch(id string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[id] == nil {
		h.watchers[id] = map[chan struct{}]bool{}
	}
	h.watchers[id][c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.watchers[id], c); len(h.watchers[id]) == 0 {
			delete(h.watchers, id)
		}
	}
}
