package fleetd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// hello brings what a device holds and what is known here together before its
// hello is answered.
func (s *server) hello(ctx context.Context, device string, h *wire.Hello) error {
	v := h.Held.Director
	told := fleet.Told{Generation: h.Generation, Version: max(v.Timestamp, v.Snapshot, v.Targets), Epoch: h.Epoch, Models: h.Models, Queues: h.Queues}
	if err := s.director.Reconcile(ctx, device, told); err != nil {
		return err
	}
	d, err := s.db.Device(ctx, device)
	if err != nil {
		return err
	}
	role, have, held, err := s.catalog.Ahead(ctx, d.Channel, heldOf(h.Held, d.Channel))
	if err != nil {
		return err
	}
	if role != "" {
		if err := s.alarmAhead(ctx, device, catalog.Repo, role, have, held); err != nil {
			return err
		}
	}
	roots, err := s.db.Roots(ctx, catalog.RepoDirector)
	if n := int64(len(roots)); err == nil && h.Held.Director.Root > n {
		return s.alarmAhead(ctx, device, catalog.RepoDirector, "root", n, h.Held.Director.Root)
	}
	return err
}

func heldOf(h wire.Held, channel string) catalog.Held {
	return catalog.Held{Root: h.Catalog.Root, Timestamp: h.Catalog.Timestamp, Snapshot: h.Catalog.Snapshot, Targets: h.Catalog.Targets, Role: h.Roles[channel]}
}

// ahead remembers what devices were seen to hold since the server started.
type ahead struct {
	mu   sync.Mutex
	held map[string]int64 // by repository and role
}

// rises tells whether version is the greatest of its role so far.
func (a *ahead) rises(repo, role string, version int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := repo + "/" + role
	if version <= a.held[key] {
		return false
	}
	if a.held == nil {
		a.held = map[string]int64{}
	}
	a.held[key] = version
	return true
}

// nextStep says who can make a role newer than what a device holds.
func nextStep(role string) string {
	switch role {
	case "root", "targets":
		return "upload the newer " + role + " again from the ceremony's files"
	case "snapshot", "timestamp":
		return "restore the backup again with a greater --jump"
	}
	return "publish again what was published after the backup, with 'dunlin model publish'"
}

// alarmAhead writes down, once for each version, that a device holds something
// newer than is here. The device keeps what it has and is sent none of it.
func (s *server) alarmAhead(ctx context.Context, device, repo, role string, have, held int64) error {
	if !s.ahead.rises(repo, role, held) {
		return nil
	}
	now := time.Now()
	next := nextStep(role)
	s.alarms.Raise(ctx, fleet.Alarm{Kind: fleet.AlarmAhead, Subject: repo + " " + role, Urgent: true, Next: next,
		Text: fmt.Sprintf("device %s holds version %d, this server %d: such devices get nothing new", device, held, have)})
	return s.db.AddAudit(ctx, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: repo + ".ahead", Object: role,
		Detail: fmt.Sprintf("%s holds version %d, the server %d; next: %s", device, held, have, next)})
}
