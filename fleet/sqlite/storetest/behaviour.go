package storetest

import (
	"errors"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func evaluations(s *suite) {
	r, _ := s.running("m", 1, "a")
	e := s.epoch()
	at := func(n int, gate, evidence string) fleet.GateEvaluation {
		return fleet.GateEvaluation{Rollout: r.ID, Gate: gate, At: start.Add(time.Duration(n) * time.Second), Verdict: fleet.GateNotYet, Evidence: evidence}
	}
	first := []fleet.GateEvaluation{at(1, "score", `{"a":1}`), at(1, "errors", `{"a":1}`)}
	s.must(s.AddEvaluations(s.Context(), e, first))
	s.must(s.AddEvaluations(s.Context(), e, []fleet.GateEvaluation{at(2, "score", `{"a":1}`), at(2, "errors", `{"a":2}`)}))
	s.must(s.AddEvaluations(s.Context(), e, []fleet.GateEvaluation{at(3, "score", `{"a":1}`), at(3, "errors", `{"a":1}`)}))
	all, err := s.GateEvaluations(s.Context(), r.ID)
	s.must(err)
	if diff := cmp.Diff(append(first, at(2, "errors", `{"a":2}`), at(3, "errors", `{"a":1}`)), all); diff != "" {
		s.Error(diff)
	}
	newest, err := s.NewestEvaluations(s.Context(), r.ID)
	s.must(err)
	if diff := cmp.Diff([]fleet.GateEvaluation{at(3, "errors", `{"a":1}`), first[0]}, newest); diff != "" {
		s.Error(diff)
	}
	if err := s.AddEvaluations(s.Context(), e+1, first); !errors.Is(err, fleet.ErrLeaseLost) {
		s.Errorf("without the lease: %v", err)
	}
}

func quarantines(s *suite) {
	r, _ := s.running("m", 1, "a")
	e := s.epoch()
	q := fleet.Quarantine{ID: "qua_1", Path: r.Spec.Path(), Class: "arm64", Rollout: r.ID, Code: "gate.prove", Reason: "wrong", Since: start}
	commit := func(q fleet.Quarantine) {
		s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *r, Quarantine: &q, Audit: act(9, "rollout.halt", q.ID)}, start, signer))
	}
	commit(q)
	again := q
	again.ID = "qua_2" // the same one holds already
	commit(again)
	other := q
	other.ID, other.Class, other.Path = "qua_3", "", "production/n/1.0.0"
	commit(other)
	got, err := s.Quarantines(s.Context(), q.Path, false)
	s.must(err)
	if diff := cmp.Diff([]fleet.Quarantine{q}, got); diff != "" {
		s.Error(diff)
	}
	release := act(20, "quarantine.release", q.ID)
	release.Detail = "it was the lamp"
	s.must(s.ReleaseQuarantine(s.Context(), q.ID, release))
	if err := s.ReleaseQuarantine(s.Context(), q.ID, act(21, "quarantine.release", q.ID)); !errors.Is(err, fleet.ErrQuarantineUnknown) {
		s.Errorf("twice: %v", err)
	}
	s.reopen()
	if got, err = s.Quarantines(s.Context(), "", false); err != nil || len(got) != 1 || got[0].ID != other.ID {
		s.Errorf("what holds: %+v, %v", got, err)
	}
	q.Released, q.By, q.Why = release.At, release.Actor, release.Detail
	if got, _ = s.Quarantines(s.Context(), q.Path, true); cmp.Diff([]fleet.Quarantine{q}, got) != "" {
		s.Error(cmp.Diff([]fleet.Quarantine{q}, got))
	}
	commit(again) // it failed once more
	if got, _ = s.Quarantines(s.Context(), q.Path, false); len(got) != 1 || got[0].ID != again.ID {
		s.Errorf("after another failure: %+v", got)
	}
}

// reverted: a rollout that is taken back is open, keeps others away, and only ends as
// reverted.
func reverted(s *suite) {
	r, ms := s.running("m", 1, "a", "b")
	e := s.epoch()
	s.must(s.SetRolloutStatus(s.Context(), r.ID, []string{fleet.RolloutRunning}, fleet.RolloutReverting, "back", act(5, "rollout.revert", r.ID)))
	if open, err := s.OpenRollouts(s.Context()); err != nil || len(open) != 1 || open[0].Status != fleet.RolloutReverting {
		s.Fatalf("%+v, %v", open, err)
	}
	second, others := planned("m", 2, "b")
	if err := s.CreateRollout(s.Context(), second, others, act(6, "rollout.create", second.ID)); !errors.Is(err, fleet.ErrRolloutConflict) {
		s.Errorf("beside it: %v", err)
	}
	r.Status = fleet.RolloutCompleted
	if err := s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *r, Audit: act(7, "x", r.ID)}, start, signer); !errors.Is(err, fleet.ErrRolloutState) {
		s.Errorf("it completes: %v", err)
	}
	ms[0].Assigned, ms[0].Undone = start, start
	r.Status = fleet.RolloutReverting
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *r, Members: ms[:1], Audit: act(8, "x", r.ID)}, start, signer))
	r.Status, r.Finished = fleet.RolloutReverted, start
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *r, Audit: act(9, "x", r.ID)}, start, signer))
	if open, err := s.OpenRollouts(s.Context()); err != nil || len(open) != 0 {
		s.Fatalf("%+v, %v", open, err)
	}
}

func samplesOf(s *suite) {
	add := func(device, model string, n uint64) {
		s.must(s.InsertSamples(s.Context(), []fleet.Sample{{Device: device, Epoch: 1, Sequence: n, Sample: wire.Sample{Start: int64(n) * 60, Seconds: 60, Model: model}}}))
	}
	for n, d := range []string{"a", "b", "c"} {
		add(d, "m", uint64(n+1))
		add(d, "", uint64(n+11)) // of its host
		add(d, "other", uint64(n+21))
	}
	got := map[string]int{}
	s.must(s.SamplesOf(s.Context(), "m", []string{"a", "b", "nobody"}, 120, func(x *fleet.Sample) error { got[x.Device+x.Sample.Model]++; return nil }))
	if diff := cmp.Diff(map[string]int{"a": 1, "bm": 1, "b": 1}, got); diff != "" {
		s.Error(diff)
	}
}

func daysOn(s *suite) {
	const day, now = 86400, 30 * 86400
	n := uint64(0)
	on := func(device string, daysAgo, hour int) {
		n++
		at := int64(now - daysAgo*day + hour*3600)
		s.must(s.InsertSamples(s.Context(), []fleet.Sample{{Device: device, Epoch: 1, Sequence: n, Sample: wire.Sample{Start: at, Seconds: 60}}, {Device: device, Epoch: 2, Sequence: n, Sample: wire.Sample{Start: at + 120, Seconds: 60}}}))
	}
	for d := 1; d <= 7; d++ {
		on("shop", d, 9)
		if d <= 3 {
			on("shop", d, 20)
		}
	}
	on("shop", 9, 3) // too long ago
	on("new", 1, 5)
	got, err := s.DaysOn(s.Context(), []string{"shop", "new", "nobody"}, now-7*day, now)
	s.must(err)
	want := map[string]fleet.DaysOn{"shop": {Of: 6}, "new": {Of: 0}}
	shop, fresh := want["shop"], want["new"]
	shop.Hours[9], shop.Hours[20], fresh.Hours[5] = 7, 3, 1
	want["shop"], want["new"] = shop, fresh
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
	if h := got["shop"].Learnt(); h.Mask() != 1<<9 {
		s.Errorf("learnt %024b", h.Mask())
	}
	if h := got["new"].Learnt(); h != nil {
		s.Errorf("a day teaches %024b", h.Mask())
	}
}
