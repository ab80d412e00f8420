package fleetd

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	var found []finding
	switch err := s.director.Reconcile(ctx, device, told); {
	case errors.Is(err, fleet.ErrDeviceAhead):
		// Only a new key of the director can help, and this hello is how the device
		// hears of the root that brings it.
		found = append(found, finding{catalog.RepoDirector, "generation or version", 0, max(told.Generation, told.Version)})
	case err != nil:
		return err
	}
	d, err := s.db.Device(ctx, device)
	if err != nil {
		return err
	}
	role, have, held, err := s.catalog.Ahead(ctx, d.Channel, heldOf(h.Held))
	if err != nil {
		return err
	}
	if role != "" {
		found = append(found, finding{catalog.Repo, role, have, held})
	}
	roots, err := s.db.Roots(ctx, catalog.RepoDirector)
	if err != nil {
		return err
	}
	if n := int64(len(roots)); h.Held.Director.Root > n {
		found = append(found, finding{catalog.RepoDirector, "root", n, h.Held.Director.Root})
	}
	return s.alarmAhead(ctx, device, found)
}

func heldOf(h wire.Held) catalog.Held {
	return catalog.Held{Root: h.Catalog.Root, Timestamp: h.Catalog.Timestamp, Snapshot: h.Catalog.Snapshot, Targets: h.Catalog.Targets, Roles: h.Roles}
}

// finding is one role of which a device holds something newer than is here.
type finding struct {
	repo, role string
	have, held int64
}

func (f finding) subject() string { return f.repo + " " + f.role }

// ahead remembers which devices were seen to hold more since the server started,
// each for itself: what one of them says hides nothing that others say.
type ahead struct {
	mu   sync.Mutex
	held map[string]map[string]int64 // by subject and device
}

// note takes in what a device's hello showed. It returns what was not known of the
// device, how many devices each subject has, and the subjects that have none left.
func (a *ahead) note(device string, found []finding) (fresh []finding, devices map[string]int, ended []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string]map[string]int64{}
	}
	for subject, by := range a.held {
		if _, was := by[device]; !was || slices.ContainsFunc(found, func(f finding) bool { return f.subject() == subject }) {
			continue
		}
		if delete(by, device); len(by) == 0 {
			delete(a.held, subject)
			ended = append(ended, subject)
		}
	}
	devices = map[string]int{}
	for _, f := range found {
		by := a.held[f.subject()]
		if by == nil {
			by = map[string]int64{}
			a.held[f.subject()] = by
		}
		if f.held > by[device] {
			fresh = append(fresh, f)
		}
		by[device] = max(by[device], f.held)
		devices[f.subject()] = len(by)
	}
	return fresh, devices, ended
}

// nextStep says who can make a role newer than what a device holds.
func nextStep(role string) string {
	switch role {
	case "root", "targets":
		return "upload the newer " + role + " again from the ceremony's files"
	case "snapshot", "timestamp":
		return "after a restore, restore the backup again with a greater --jump; else give the role a new key with 'dunlin-fleet keys rotate' and 'dunlin keys rotate online': somebody has signed with the old one"
	case "generation or version":
		return "look into the device; if others say so too, give the director a new key with 'dunlin-fleet keys rotate' and 'dunlin keys rotate online'"
	}
	return "publish again what was published after the backup, with 'dunlin model publish'"
}

// alarmAhead writes down, once for each device and version, that a device holds
// something newer than is here; such a device keeps what it has and is sent none of
// it. When no device does any more, the alarm ends.
func (s *server) alarmAhead(ctx context.Context, device string, found []finding) error {
	fresh, devices, ended := s.ahead.note(device, found)
	for _, subject := range ended {
		s.alarms.Clear(ctx, fleet.AlarmAhead, subject)
	}
	for _, f := range fresh {
		now := time.Now()
		next := nextStep(f.role)
		s.alarms.Raise(ctx, fleet.Alarm{Kind: fleet.AlarmAhead, Subject: f.subject(), Urgent: true, Next: next,
			Text: fmt.Sprintf("device %s holds version %d, this server %d: such devices get nothing new (%d so far)", device, f.held, f.have, devices[f.subject()])})
		err := s.db.AddAudit(ctx, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: f.repo + ".ahead", Object: f.role,
			Detail: fmt.Sprintf("%s holds version %d, the server %d; next: %s", device, f.held, f.have, next)})
		if err != nil {
			return err
		}
	}
	return nil
}
