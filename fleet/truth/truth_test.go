package truth_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// store is a fleet of two devices.
type store []fleet.Sample

func (store) Devices(context.Context, fleet.DeviceFilter) ([]*fleet.Device, error) {
	return []*fleet.Device{{ID: "a", Labels: map[string]string{"site": "harbour"}}, {ID: "b", Labels: map[string]string{"site": "hill"}}}, nil
}

func (store) Releases(_ context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error) {
	if f.Model != "digits" {
		return nil, nil
	}
	return []*fleet.Release{{Channel: "dev", Release: bundle.Release{Model: "digits", Version: "1.0.0"}}, {Channel: "dev", Release: bundle.Release{Model: "digits", Version: "1.1.0"}}}, nil
}

func (s store) ModelSamples(_ context.Context, model string, since int64, each func(*fleet.Sample) error) error {
	for i := range s {
		if s[i].Sample.Model == model && s[i].Sample.Start >= since {
			if err := each(&s[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func said(device, version string, right, wrong uint64, ago time.Duration) fleet.Sample {
	return fleet.Sample{Device: device, Sample: wire.Sample{
		Start: noon.Add(-ago).Unix(), Seconds: 60, Model: "digits", Path: "dev/digits/" + version, Requests: 100,
		Truth:   &wire.Truth{Right: right, Wrong: wrong, Confused: []wire.Confused{{Right: 3, Answered: 8, Count: wrong}}},
		Metrics: map[string]sketch.Moments{"cost": {N: 1, Mean: float64(wrong), Min: float64(wrong), Max: float64(wrong)}},
	}}
}

func TestAsk(t *testing.T) {
	s := store{
		said("a", "1.0.0", 90, 10, time.Hour), said("a", "1.0.0", 90, 10, 2*time.Hour), said("a", "1.1.0", 10, 90, time.Hour), said("b", "1.1.0", 99, 1, time.Hour),
		said("b", "1.0.0", 0, 100, 40*24*time.Hour), // long ago
		said("b", "6.6.6", 1000, 0, time.Hour),      // never published
		{Device: "b", Sample: wire.Sample{Start: noon.Unix() - 60, Seconds: 60, Model: "digits", Path: "dev/digits/1.0.0", Requests: 5}}, // nothing was said
	}
	service := &truth.Service{Store: s, Now: func() time.Time { return noon }}
	type row struct {
		Group, Version string
		Devices        int
		Right, Wrong   uint64
		Accuracy       float64
	}
	for by, want := range map[string][]row{
		"":       {{"1.1.0", "1.1.0", 2, 109, 91, 0.545}, {"1.0.0", "1.0.0", 1, 180, 20, 0.9}},
		"device": {{"a", "1.1.0", 1, 10, 90, 0.1}, {"a", "1.0.0", 1, 180, 20, 0.9}, {"b", "1.1.0", 1, 99, 1, 0.99}},
		"site":   {{"harbour", "1.1.0", 1, 10, 90, 0.1}, {"harbour", "1.0.0", 1, 180, 20, 0.9}, {"hill", "1.1.0", 1, 99, 1, 0.99}},
	} {
		got, err := service.Ask(t.Context(), fleet.TruthAsk{Model: "digits", By: by})
		if err != nil {
			t.Fatal(err)
		}
		var rows []row
		for _, g := range got.Groups {
			rows = append(rows, row{g.Group, g.Version, g.Devices, g.Right, g.Wrong, g.Accuracy})
			if g.Low >= g.Accuracy || g.High <= g.Accuracy || len(g.Confused) != 1 || g.Confused[0].Count != g.Wrong || len(g.Metrics) != 1 || g.Metrics[0].Max < g.Metrics[0].Mean {
				t.Errorf("by %q: %+v", by, g)
			}
		}
		if d := cmp.Diff(want, rows, cmpopts.EquateApprox(0, 1e-12)); d != "" {
			t.Errorf("by %q: %s", by, d)
		}
	}
	if _, err := service.Ask(t.Context(), fleet.TruthAsk{Model: "none"}); !errors.Is(err, fleet.ErrModelUnknown) {
		t.Error(err)
	}
}

// TestShare compares with figures that are known, and looks how often the interval
// holds the share that answers were drawn with.
func TestShare(t *testing.T) {
	for _, tt := range []struct {
		k, n            uint64
		share, low, top float64
	}{{0, 0, 0, 0, 1}, {0, 10, 0, 0, 0.2775}, {5, 10, 0.5, 0.2366, 0.7634}, {10, 10, 1, 0.7225, 1}, {900, 1000, 0.9, 0.8799, 0.9171}} {
		share, low, top := truth.Share(tt.k, tt.n)
		if math.Abs(share-tt.share)+math.Abs(low-tt.low)+math.Abs(top-tt.top) > 2e-4 {
			t.Errorf("%d of %d: %.4f, %.4f to %.4f", tt.k, tt.n, share, low, top)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	held, rounds := 0, 2000
	for range rounds {
		p, k, n := 0.5+r.Float64()/2, uint64(0), uint64(50+r.IntN(200))
		for range n {
			if r.Float64() < p {
				k++
			}
		}
		if _, low, top := truth.Share(k, n); low <= p && p <= top {
			held++
		}
	}
	if share := float64(held) / float64(rounds); share < 0.93 || share > 0.97 {
		t.Errorf("%.1f %% of the intervals hold the truth", 100*share)
	}
}
