// Package evidence turns what devices measured into what gates are judged on. It
// keeps the samples of a running rollout's devices added up in steps of time, and
// asks package gate at each step.
package evidence

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
)

// Store is what is added up.
type Store interface {
	// SamplesOf gives the samples of a model on some devices, and those about their
	// hosts, that start at or after a time in seconds, in any order.
	SamplesOf(ctx context.Context, model string, devices []string, since int64, each func(*fleet.Sample) error) error
}

// Service judges the behaviour gates of rollouts. It is safe for concurrent use.
type Service struct {
	Store Store

	mu   sync.Mutex
	open map[string]*ledger // by rollout
}

// parts of a look that samples are added up in: the shortest wait from a change to
// the step that counts is one of them.
const parts = 4

// maxMembers bounds the devices of a class whose samples are kept.
const maxMembers = 2000

// Judge evaluates the behaviour gates of a rollout as of now. Evidence and verdicts
// follow from the samples that are stored, but for those that came too late to be
// seen the first time.
func (s *Service) Judge(ctx context.Context, r *fleet.Rollout, members []fleet.Member, now time.Time) ([]rollout.Judged, []fleet.GateEvaluation, error) {
	l, err := s.ledger(ctx, r, members)
	if err != nil {
		return nil, nil, fmt.Errorf("evidence of %s: %w", r.ID, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.judge(r, members, now)
}

// Add takes in samples that were just stored.
func (s *Service) Add(samples []fleet.Sample) {
	s.mu.Lock()
	ls := make([]*ledger, 0, len(s.open))
	for _, l := range s.open {
		ls = append(ls, l)
	}
	s.mu.Unlock()
	for _, l := range ls {
		l.mu.Lock()
		for i := range samples {
			l.add(&samples[i], false)
		}
		l.mu.Unlock()
	}
}

// Forget ends what is kept of a rollout.
func (s *Service) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// ledger of a rollout, made from the store when it is asked for the first time.
func (s *Service) ledger(ctx context.Context, r *fleet.Rollout, members []fleet.Member) (*ledger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.open[r.ID]; l != nil {
		return l, nil
	}
	l := newLedger(r, members)
	// Samples that are stored from now on wait for the lock; what was read is known by
	// its number.
	if s.open == nil {
		s.open = map[string]*ledger{}
	}
	since, names := l.origin.Unix(), l.names()
	each := func(take func(*fleet.Sample)) error {
		return s.Store.SamplesOf(ctx, r.Spec.Model, names, since, func(x *fleet.Sample) error { take(x); return nil })
	}
	if err := each(l.survey); err != nil {
		return nil, err
	}
	l.choose()
	if err := each(func(x *fleet.Sample) { l.add(x, true) }); err != nil {
		return nil, err
	}
	s.open[r.ID] = l
	return l, nil
}

// settings of a rollout's gates with their defaults.
func settings(spec *fleet.Spec) fleet.GatesSpec {
	var g fleet.GatesSpec
	if spec.Gates != nil {
		g = *spec.Gates
	}
	g.Look = cmp.Or(g.Look, fleet.DefaultLook)
	g.Past = cmp.Or(g.Past, fleet.DefaultPast)
	return g
}

// specs of the gates of a rollout, with the classes that are watched.
func (l *ledger) gates(g fleet.GatesSpec) []gate.Spec {
	names := g.Use
	if names == nil {
		names = slices.Clone(gate.Default)
		if l.judged {
			names = append(names, gate.NameTruth)
		}
	}
	var out []gate.Spec
	for _, n := range names {
		s, ok := gate.Known[n]
		if !ok {
			continue // the specification was checked when it came
		}
		if b, ok := g.Expect[n]; ok {
			s.Margin, s.Harm, s.Expect = b.Margin, b.Harm, true
		}
		if s.Measure.Kind == gate.Class {
			if len(l.watch) == 0 {
				continue
			}
			for i, c := range l.watch {
				s.Classes, s.Names = append(s.Classes, i), append(s.Names, fmt.Sprint("class ", c))
			}
			s.Classes, s.Names = append(s.Classes, len(l.watch)), append(s.Names, "all other classes")
		}
		out = append(out, s)
	}
	for n, b := range g.Metrics {
		out = append(out, gate.Spec{Name: "metric " + n, Measure: gate.Measure{Kind: gate.Metric, Name: n}, Margin: b.Margin, Harm: b.Harm, TwoSided: b.TwoSided, MinCell: 1, MinUnits: 3})
	}
	slices.SortStableFunc(out[len(out)-len(g.Metrics):], func(a, b gate.Spec) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// judge asks every gate.
func (l *ledger) judge(r *fleet.Rollout, members []fleet.Member, now time.Time) ([]rollout.Judged, []fleet.GateEvaluation, error) {
	l.members(members)
	specs := l.gates(l.set)
	alpha := gate.Alpha(len(specs) + 2) // crash and silence
	at := l.stepOf(now)
	var js []rollout.Judged
	var es []fleet.GateEvaluation
	put := func(name string, e gate.Evidence) error {
		e.Method = gate.Version
		x, j, err := rollout.Evaluation(r, name, e, now)
		js, es = append(js, j), append(es, x)
		return err
	}
	for _, s := range specs {
		if err := put(s.Name, gate.Evidence{Difference: l.collect.Difference(s, alpha, at)}); err != nil {
			return nil, nil, err
		}
	}
	hours, crashed := l.crashes(at)
	if err := put(gate.NameCrash, gate.Evidence{Outcome: gate.CrashOutcome(hours, crashed, alpha)}); err != nil {
		return nil, nil, err
	}
	return js, es, put(gate.NameNaN, gate.Evidence{Limit: l.nan(at)})
}
