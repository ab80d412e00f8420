// Package drift says whether what devices see of a model is still what its release
// was made for. It adds up their samples and compares them with the reference in
// the release's contract.
package drift

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Store is what there is to add up.
type Store interface {
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error)
	// ModelSamples gives the samples of a model that start at or after a time in
	// seconds, in any order.
	ModelSamples(ctx context.Context, model string, since int64, each func(*fleet.Sample) error) error
}

// Service answers questions about drift.
type Service struct {
	Store Store
	Blobs bundle.Blobs
	Now   func() time.Time
}

// Bounds of a question and its answer.
const (
	Default     = 24 * time.Hour
	Longest     = 31 * 24 * time.Hour
	maxGroups   = 10_000
	maxOutliers = 50
)

// Things that groups may have in common, beside the key of a label or fact.
const (
	ByVersion = "version"
	ByDevice  = "device"
	ByClass   = "class"
)

// groupKey is one row of the answer.
type groupKey struct{ group, path string }

// state is an answer in the making.
type state struct {
	by       string
	devices  map[string]*fleet.Device
	releases map[string]*bundle.Contract // by path; nil: not known
	groups   map[groupKey]*sums
	alone    map[groupKey]*folded // by device
	leftOut  int
}

// Ask answers for a model that has a release; ErrModelUnknown otherwise.
func (s *Service) Ask(ctx context.Context, q fleet.DriftAsk) (*fleet.Drift, error) {
	if q.By == "" {
		q.By = ByVersion
	}
	if q.Since <= 0 {
		q.Since = Default
	}
	since := s.Now().Add(-min(q.Since, Longest)).UTC()
	st, err := s.load(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := s.Store.ModelSamples(ctx, q.Model, since.Unix(), st.add); err != nil {
		return nil, fmt.Errorf("drift of %s: %w", q.Model, err)
	}
	d := &fleet.Drift{Model: q.Model, By: q.By, Since: since, Effect: effect, Level: level, LeftOut: st.leftOut}
	d.Groups = st.judge()
	d.Outliers = st.outliers()
	return d, nil
}

func (s *Service) load(ctx context.Context, q fleet.DriftAsk) (*state, error) {
	rs, err := s.Store.Releases(ctx, fleet.ReleaseFilter{Model: q.Model})
	if err != nil {
		return nil, err
	}
	if len(rs) == 0 {
		return nil, fleet.ErrModelUnknown.With("no release of a model %q is published", q.Model)
	}
	st := &state{by: q.By, devices: map[string]*fleet.Device{}, releases: map[string]*bundle.Contract{}, groups: map[groupKey]*sums{}, alone: map[groupKey]*folded{}}
	for _, r := range rs {
		if st.releases[r.Path()], err = s.contract(r); err != nil {
			return nil, err
		}
	}
	ds, err := s.Store.Devices(ctx, fleet.DeviceFilter{})
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		st.devices[d.ID] = d
	}
	return st, nil
}

// contract reads a release's contract; nil when its blobs are not here.
func (s *Service) contract(r *fleet.Release) (*bundle.Contract, error) {
	f, err := s.Blobs.Open(r.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reference of %s: %w", r.Path(), err)
	}
	defer f.Close()
	manifest, err := io.ReadAll(io.LimitReader(bundle.VerifyReader(f, bundle.Descriptor{Digest: r.Digest, Size: r.Length}), bundle.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reference of %s: %w", r.Path(), err)
	}
	b, err := bundle.Read(manifest, s.Blobs)
	switch {
	case bundle.Code(err) == bundle.CodeBlobMissing || errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reference of %s: %w", r.Path(), err)
	}
	return b.Contract, nil
}

// add takes in one sample. What a device says about itself chooses only where it
// is counted; releases that are not published are not.
func (st *state) add(x *fleet.Sample) error {
	contract, known := st.releases[x.Sample.Path]
	if !known {
		st.leftOut++
		return nil
	}
	k := groupKey{st.group(x), x.Sample.Path}
	sum := st.groups[k]
	if sum == nil {
		if len(st.groups) >= maxGroups {
			return fleet.ErrBadRequest.With("more than %d groups by %s", maxGroups, st.by)
		}
		sum = newSums(contract)
		st.groups[k] = sum
	}
	if !sum.add(x) {
		st.leftOut++
		return nil
	}
	one := groupKey{x.Device, x.Sample.Path}
	if st.alone[one] == nil {
		st.alone[one] = &folded{}
	}
	st.alone[one].add(&x.Sample)
	return nil
}

// group is what a sample's device is counted under.
func (st *state) group(x *fleet.Sample) string {
	d := st.devices[x.Device]
	switch {
	case st.by == ByVersion:
		return version(x.Sample.Path)
	case st.by == ByDevice:
		return x.Device
	case d == nil:
		return ""
	case st.by == ByClass:
		return d.Class()
	}
	return d.Attributes()[st.by]
}

// version is the last part of a release's path.
func version(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// ranks are the verdicts, the worst first.
var ranks = []string{fleet.DriftDrifts, fleet.DriftTooFew, fleet.DriftSteady, fleet.DriftUnknown}

// judge compares every group with its release's reference. The level is divided by
// the number of comparisons (Bonferroni).
func (st *state) judge() []fleet.DriftGroup {
	out := []fleet.DriftGroup{}
	totals := map[string]*sums{}
	for k, s := range st.groups {
		if totals[k.path] == nil {
			totals[k.path] = &sums{}
		}
		totals[k.path].requests += s.requests
		totals[k.path].failed += s.failed
	}
	var found [][]comparison
	comparisons := 0
	for k, s := range st.groups {
		g := fleet.DriftGroup{Group: k.group, Path: k.path, Version: version(k.path), Devices: len(s.devices), Windows: s.windows, Requests: s.requests, Failed: s.failed}
		cs := append(s.compare(), s.errors(totals[k.path])...)
		for _, c := range cs {
			if c.Verdict != fleet.DriftUnknown {
				comparisons++
			}
		}
		found = append(found, cs)
		out = append(out, g)
	}
	for i := range out {
		out[i].Measures = []fleet.DriftMeasure{}
		out[i].Verdict = fleet.DriftUnknown
		for _, c := range found[i] {
			m := c.settle(level / float64(max(comparisons, 1)))
			if rank(m.Verdict) < rank(out[i].Verdict) {
				out[i].Verdict = m.Verdict
			}
			out[i].Measures = append(out[i].Measures, m)
		}
	}
	slices.SortFunc(out, func(a, b fleet.DriftGroup) int {
		return cmp.Or(cmp.Compare(rank(a.Verdict), rank(b.Verdict)), strings.Compare(a.Group, b.Group), strings.Compare(a.Path, b.Path))
	})
	return out
}

func rank(verdict string) int { return slices.Index(ranks, verdict) }
