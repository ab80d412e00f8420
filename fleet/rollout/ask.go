package rollout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Asker answers why a device does not change. An empty model means every model that
// the device serves or shall serve.
type Asker struct {
	Store WhyStore
	Now   func() time.Time
}

// Why goes through the rules for each model.
func (a *Asker) Why(ctx context.Context, device, model string) ([]fleet.Why, error) {
	d, err := a.Store.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	wish, err := a.Store.Wish(ctx, device)
	if err != nil {
		return nil, err
	}
	models := []string{model}
	if model == "" {
		models = models[:0]
		for _, m := range d.Models {
			models = append(models, m.Model)
		}
		for _, it := range wish.Items {
			models = append(models, it.Model)
		}
		slices.Sort(models)
		models = slices.Compact(models)
	}
	out := []fleet.Why{}
	for _, m := range models {
		k := Known{Device: d, Model: m, Wish: wish, Now: a.Now()}
		if err := a.look(ctx, &k); err != nil {
			return nil, err
		}
		out = append(out, Explain(k))
	}
	return out, nil
}

func (a *Asker) look(ctx context.Context, k *Known) error {
	r, err := a.Store.NewestRollout(ctx, k.Device.ID, k.Model)
	if errors.Is(err, fleet.ErrRolloutUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	k.Rollout = r
	if k.Members, err = a.Store.Members(ctx, r.ID); err != nil {
		return err
	}
	if k.Quarantines, err = a.Store.Quarantines(ctx, r.Spec.Path(), false); err != nil {
		return err
	}
	es, err := a.Store.NewestEvaluations(ctx, r.ID)
	if err != nil {
		return err
	}
	for _, e := range es {
		g, err := Reading(e)
		if err != nil {
			return err
		}
		k.Readings = append(k.Readings, g)
	}
	return nil
}
