// Package truth adds up what applications said of a model's answers, and what they
// measured, over devices and windows.
package truth

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is what there is to add up.
type Store interface {
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error)
	// ModelSamples gives the samples of a model that start at or after a time in
	// seconds, in any order.
	ModelSamples(ctx context.Context, model string, since int64, each func(*fleet.Sample) error) error
}

// Service answers questions about truth.
type Service struct {
	Store Store
	Now   func() time.Time
}

// Bounds of a question and its answer.
const (
	Default     = 7 * 24 * time.Hour
	Longest     = 31 * 24 * time.Hour
	maxGroups   = 10_000
	maxConfused = 10
	maxPairs    = 4096 // that are counted in a group
	maxMetrics  = 64   // that are added up in a group
	wilson95    = 1.959963984540054
	byVersion   = "version"
	byDevice    = "device"
	byClass     = "class"
)

type groupKey struct{ group, path string }

// totals are one group in the making.
type totals struct {
	devices  map[string]bool
	requests uint64
	truth    wire.Truth
	pairs    map[[2]uint32]uint64
	metrics  map[string]sketch.Moments
}

// Ask answers for a model that has a release; ErrModelUnknown otherwise.
func (s *Service) Ask(ctx context.Context, q fleet.TruthAsk) (*fleet.Truth, error) {
	q.By = cmp.Or(q.By, byVersion)
	if q.Since <= 0 {
		q.Since = Default
	}
	rs, err := s.Store.Releases(ctx, fleet.ReleaseFilter{Model: q.Model})
	if err != nil {
		return nil, err
	}
	published := map[string]bool{}
	for _, r := range rs {
		published[r.Path()] = true
	}
	if len(rs) == 0 {
		return nil, fleet.ErrModelUnknown.With("no release of a model %q is published", q.Model)
	}
	ds, err := s.Store.Devices(ctx, fleet.DeviceFilter{})
	if err != nil {
		return nil, err
	}
	devices := map[string]*fleet.Device{}
	for _, d := range ds {
		devices[d.ID] = d
	}
	out := &fleet.Truth{Model: q.Model, By: q.By, Since: s.Now().Add(-min(q.Since, Longest)).UTC(), Groups: []fleet.TruthGroup{}}
	groups := map[groupKey]*totals{}
	err = s.Store.ModelSamples(ctx, q.Model, out.Since.Unix(), func(x *fleet.Sample) error {
		if !published[x.Sample.Path] { // what a device says alone makes no row
			return nil
		}
		k := groupKey{group(q.By, x, devices[x.Device]), x.Sample.Path}
		t := groups[k]
		if t == nil {
			if len(groups) >= maxGroups {
				return fleet.ErrBadRequest.With("more than %d groups by %s", maxGroups, q.By)
			}
			t = &totals{devices: map[string]bool{}, pairs: map[[2]uint32]uint64{}, metrics: map[string]sketch.Moments{}}
			groups[k] = t
		}
		t.add(x)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("truth of %s: %w", q.Model, err)
	}
	for k, t := range groups {
		if len(t.devices) > 0 {
			out.Groups = append(out.Groups, t.view(k))
		}
	}
	slices.SortFunc(out.Groups, func(a, b fleet.TruthGroup) int {
		return cmp.Or(cmp.Compare(a.High, b.High), cmp.Compare(a.Accuracy, b.Accuracy), strings.Compare(a.Group, b.Group), strings.Compare(a.Path, b.Path))
	})
	return out, nil
}

// group is what a sample's device is counted under.
func group(by string, x *fleet.Sample, d *fleet.Device) string {
	switch {
	case by == byVersion:
		return version(x.Sample.Path)
	case by == byDevice:
		return x.Device
	case d == nil:
		return ""
	case by == byClass:
		return d.Class()
	}
	return d.Attributes()[by]
}

func version(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (t *totals) add(x *fleet.Sample) {
	s := &x.Sample
	t.requests += s.Requests
	if s.Truth == nil && len(s.Metrics) == 0 {
		return
	}
	t.devices[x.Device] = true
	if s.Truth != nil {
		t.truth.Right += s.Truth.Right
		t.truth.Wrong += s.Truth.Wrong
		t.truth.Late += s.Truth.Late
		t.truth.Other += s.Truth.Other
		for _, c := range s.Truth.Confused {
			pair := [2]uint32{c.Right, c.Answered}
			if _, known := t.pairs[pair]; !known && len(t.pairs) >= maxPairs {
				t.truth.Other += c.Count
				continue
			}
			t.pairs[pair] += c.Count
		}
	}
	for name, m := range s.Metrics {
		have, known := t.metrics[name]
		if known || len(t.metrics) < maxMetrics {
			have.Merge(m)
			t.metrics[name] = have
		}
	}
}

func (t *totals) view(k groupKey) fleet.TruthGroup {
	g := fleet.TruthGroup{Group: k.group, Path: k.path, Version: version(k.path), Devices: len(t.devices), Requests: t.requests,
		Right: t.truth.Right, Wrong: t.truth.Wrong, Late: t.truth.Late, Other: t.truth.Other}
	g.Accuracy, g.Low, g.High = Share(g.Right, g.Right+g.Wrong)
	for pair, n := range t.pairs {
		g.Confused = append(g.Confused, fleet.Confused{Right: pair[0], Answered: pair[1], Count: n})
	}
	slices.SortFunc(g.Confused, func(a, b fleet.Confused) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Right, b.Right), cmp.Compare(a.Answered, b.Answered))
	})
	g.Confused = g.Confused[:min(len(g.Confused), maxConfused)]
	for name, m := range t.metrics {
		g.Metrics = append(g.Metrics, fleet.MetricTotals{Name: name, Count: m.N, Mean: m.Mean, SD: math.Sqrt(m.Variance()), Min: m.Min, Max: m.Max})
	}
	slices.SortFunc(g.Metrics, func(a, b fleet.MetricTotals) int { return strings.Compare(a.Name, b.Name) })
	return g
}

// Share is k of n with the ends of its 95 % interval (Wilson 1927); of nothing it is
// 0, and anything between 0 and 1 is possible.
func Share(k, n uint64) (share, low, high float64) {
	if n == 0 {
		return 0, 0, 1
	}
	p, m, z2 := float64(k)/float64(n), float64(n), wilson95*wilson95
	centre := (p + z2/(2*m)) / (1 + z2/m)
	half := wilson95 / (1 + z2/m) * math.Sqrt(p*(1-p)/m+z2/(4*m*m))
	return p, max(centre-half, 0), min(centre+half, 1)
}
