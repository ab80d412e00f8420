package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// mostTold bounds what is believed of versions and generations: JSON numbers are
// whole up to here.
const mostTold = 1 << 52

// Reconcile brings a device's wish and what the device holds together: after the
// server came back from a backup, and whenever the device holds more than is
// known here. It is called with every hello, before the hello is answered, and
// changes nothing where nothing is to be done. Whatever the device runs goes on:
//
//   - it has not verified a wish that is newer than the known one: the wish is
//     restored as it was;
//   - it has, and runs the known wish: the same;
//   - it has, and runs something else that passed prove and that the catalog
//     knows: that becomes the wish;
//   - otherwise the model is left out until a person wishes it anew.
//
// The wish goes above everything that the device holds.
func (s *Service) Reconcile(ctx context.Context, device string, told fleet.Told) error {
	w, err := s.Store.Wish(ctx, device)
	if err != nil {
		return err
	}
	if !w.Withheld && told.Generation <= w.Generation && told.Version <= w.Version {
		return nil
	}
	if told.Generation > mostTold || told.Version > mostTold {
		return fleet.ErrDeviceAhead.With("%s holds generation %d and version %d", device, told.Generation, told.Version)
	}
	d, err := s.Store.Device(ctx, device)
	if err != nil {
		return err
	}
	runtimes, err := s.Store.Releases(ctx, fleet.ReleaseFilter{Channel: d.Channel, Kind: bundle.KindRuntime})
	if err != nil {
		return err
	}
	now := s.Now()
	change := func(w *fleet.Wish, known int64, ms []fleet.Member) (*fleet.Reconciliation, error) {
		r := &reconciler{s: s, told: told, acted: told.Generation > known, members: ms, runtimes: runtimes, now: now}
		return r.all(ctx, w, known)
	}
	err = s.Store.Reconcile(ctx, device, told, now, change, func(w *fleet.Wish) ([]fleet.MetaRow, error) { return s.Sign(ctx, w) })
	if err != nil {
		return fmt.Errorf("reconcile %s: %w", device, err)
	}
	return nil
}

// reconciler decides for one device.
type reconciler struct {
	s        *Service
	told     fleet.Told
	acted    bool // the device has verified a wish that is not known here
	members  []fleet.Member
	runtimes []*fleet.Release
	now      time.Time
	admitted []fleet.Member
}

func (r *reconciler) all(ctx context.Context, w *fleet.Wish, known int64) (*fleet.Reconciliation, error) {
	act := "director.ahead"
	if w.Withheld {
		act = "director.restored"
	}
	ahead := told(r.told, w)
	next := *w
	next.Items = nil
	var says []string
	for _, model := range r.models(w) {
		item, wished := w.Item(model)
		item, keep, why, err := r.model(ctx, item, wished, model)
		if err != nil {
			return nil, err
		}
		if keep {
			next.Put(item)
			why += " (" + item.Path + ")"
		}
		if why != "" {
			says = append(says, model+": "+why)
		}
	}
	next.Generation = max(w.Generation, r.told.Generation) + 1
	next.Version = max(w.Version, r.told.Version) + 1
	detail := strings.Join(says, "; ")
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, r.now), At: r.now, Actor: "server", Act: act, Object: w.Device,
		Detail: fmt.Sprintf("generation %d was known, the device holds %d%s; %s", known, r.told.Generation, ahead, detail)}
	return &fleet.Reconciliation{Wish: &next, Members: r.admitted, Detail: detail, Audit: a}, nil
}

func told(t fleet.Told, w *fleet.Wish) string {
	if t.Generation <= w.Generation && t.Version <= w.Version {
		return ""
	}
	return fmt.Sprintf(", more than this server has given out (generation %d, version %d): it jumps above it", w.Generation, w.Version)
}

// models are those of the wish and of the device, sorted.
func (r *reconciler) models(w *fleet.Wish) []string {
	var out []string
	for _, it := range w.Items {
		out = append(out, it.Model)
	}
	for _, m := range r.told.Models {
		out = append(out, m.Model)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// model decides for one model; keep tells whether it is in the wish from now on.
func (r *reconciler) model(ctx context.Context, item fleet.Item, wished bool, model string) (_ fleet.Item, keep bool, why string, err error) {
	i := slices.IndexFunc(r.told.Models, func(m fleet.ModelState) bool { return m.Model == model })
	switch {
	case !r.acted && wished:
		return item, true, "as in the backup", nil
	case !r.acted:
		return item, false, "", nil
	case i < 0:
		return item, false, "left out: the device does not have it", nil
	}
	m := r.told.Models[i]
	if m.Active == nil {
		if wished && m.Candidate != nil && m.Candidate.Path == item.Path && m.Candidate.Verdict != "bad" {
			return item, true, "as in the backup, under way", nil
		}
		return item, false, "left out: nothing serves", nil
	}
	rel, err := r.s.Store.ReleaseByPath(ctx, m.Active.Path)
	if err != nil && !errors.Is(err, fleet.ErrReleaseUnknown) {
		return item, false, "", err
	}
	runtime := slices.IndexFunc(r.runtimes, func(x *fleet.Release) bool { return x.Digest == m.Active.Runtime })
	switch {
	case rel == nil || rel.Digest != m.Active.Bundle || runtime < 0:
		return item, false, "left out: the catalog does not know " + m.Active.Path + ", which runs; publish it again", nil
	case wished && item.Path == m.Active.Path && item.Runtime == r.runtimes[runtime].Path():
		return item, true, "as in the backup", nil
	case !m.Active.Proven:
		return item, false, "left out: " + m.Active.Path + " runs and is not proven", nil
	}
	runs := fleet.Item{Model: model, Path: m.Active.Path, Runtime: r.runtimes[runtime].Path(), Attempt: m.Attempt}
	r.admit(&runs, item, wished, m.Rollout)
	return runs, true, "what the device runs", nil
}

// admit makes the device what it became in the lost time: admitted by a rollout
// that the backup still has open.
func (r *reconciler) admit(runs *fleet.Item, before fleet.Item, wished bool, rollout string) {
	i := slices.IndexFunc(r.members, func(m fleet.Member) bool { return m.Rollout == rollout && m.Assigned.IsZero() })
	if rollout == "" || i < 0 {
		return
	}
	m := r.members[i]
	m.Assigned = r.now
	if wished {
		m.Before = &before
	}
	runs.Rollout, runs.Arm = rollout, armOf(m.Control)
	r.admitted = append(r.admitted, m)
}

func armOf(control bool) string {
	if control {
		return "control"
	}
	return "treated"
}
