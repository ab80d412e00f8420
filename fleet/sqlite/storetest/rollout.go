package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// planned makes the rows of a rollout of m over devices, not stored yet.
func planned(model string, n int, devices ...string) (*fleet.Rollout, []fleet.Member) {
	ten := 10
	at := start.Add(time.Duration(n) * time.Second)
	r := &fleet.Rollout{
		ID: fleet.NewID(fleet.PrefixRollout, at), Status: fleet.RolloutRunning, Devices: len(devices), Created: at, By: "acc_1", Changed: at,
		Spec: fleet.Spec{Model: model, Version: "1.0.0", Channel: "production", Selector: "site=x", Stages: []fleet.StageSpec{{Count: 1}, {Percent: 100, Bake: fleet.Duration(time.Minute)}},
			Control: &ten, Bake: fleet.Duration(time.Hour), Silence: fleet.Duration(time.Minute), Attempt: 1},
		Stages: []fleet.Stage{{Index: 0, Target: 1}, {Index: 1, Target: len(devices)}},
	}
	var ms []fleet.Member
	for i, d := range devices {
		ms = append(ms, fleet.Member{Rollout: r.ID, Device: d, Stratum: "arm64", Order: i, Stage: min(i, 1), Control: i == len(devices)-1, Hours: fleet.DayHours(uint32(i))})
	}
	return r, ms
}

// running stores a rollout over new devices.
func (s *suite) running(model string, n int, devices ...string) (*fleet.Rollout, []fleet.Member) {
	s.Helper()
	for _, d := range devices {
		if _, err := s.Device(s.Context(), d); err != nil {
			s.enrolled(d, nil)
		}
	}
	r, ms := planned(model, n, devices...)
	s.must(s.CreateRollout(s.Context(), r, ms, act(n, "rollout.create", r.ID)))
	return r, ms
}

// epoch takes the lease of rollouts.
func (s *suite) epoch() int64 {
	s.Helper()
	e, ok, err := s.Lease(s.Context(), "rollouts", "suite", time.Hour, start)
	s.must(err)
	if !ok {
		s.Fatal("the lease is not to be had")
	}
	return e
}

func signer(w *fleet.Wish) ([]fleet.MetaRow, error) {
	return []fleet.MetaRow{{Repo: "director", Owner: w.Device, Role: "targets", Version: w.Version, Bytes: []byte(fmt.Sprint(w.Generation, w.Items))}}, nil
}

func rollouts(s *suite) {
	want, ms := s.running("m", 1, "a", "b", "c")
	later, _ := s.running("other", 2, "a")
	e := s.epoch()
	want.Stage, want.Changed = 1, start.Add(time.Minute)
	want.Stages[0] = fleet.Stage{Index: 0, Target: 1, Started: start, Baking: start.Add(time.Second), Passed: start.Add(time.Minute), Held: start.Add(30 * time.Second)}
	ms[0].Assigned, ms[0].Acked, ms[0].Settled, ms[0].Undone = start, start.Add(1e9), start.Add(2e9), start.Add(3e9)
	ms[0].Back = true // no wish is newer than what the device knows
	ms[0].Outcome, ms[0].Code, ms[0].Reason, ms[0].Answered = fleet.OutcomeFailed, "prove.golden", "it is wrong", 1<<63+1
	ms[0].Before = &fleet.Item{Model: "m", Path: "production/m/0.9.0", Runtime: "r", Attempt: 2}
	g := fleet.GateEvaluation{Rollout: want.ID, Stage: 0, Gate: "prove", At: start, Verdict: fleet.GatePass, Evidence: `{"settled":1}`}
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *want, Members: ms[:1], Evaluations: []fleet.GateEvaluation{g}}, start, signer))
	s.must(s.SetOnline(s.Context(), "b", true, start.Add(time.Hour)))
	ms[1].Heard = start.Add(time.Hour)
	s.reopen()
	got, err := s.Rollout(s.Context(), want.ID)
	s.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
	gotMs, err := s.Members(s.Context(), want.ID)
	s.must(err)
	if diff := cmp.Diff(ms, gotMs); diff != "" {
		s.Error(diff)
	}
	var pages []fleet.Member
	for after := ""; len(pages) < len(ms); after = pages[len(pages)-1].Device {
		page, err := s.MemberPage(s.Context(), want.ID, after, 1)
		s.must(err)
		if len(page) != 1 {
			s.Fatalf("a page of %d behind %q", len(page), after)
		}
		pages = append(pages, page...)
	}
	if diff := cmp.Diff(ms, pages); diff != "" {
		s.Error(diff)
	}
	evals, err := s.GateEvaluations(s.Context(), want.ID)
	s.must(err)
	if diff := cmp.Diff([]fleet.GateEvaluation{g}, evals); diff != "" {
		s.Error(diff)
	}
	for _, c := range []struct {
		status, after string
		limit         int
		want          []string
	}{
		{"", "", 9, []string{later.ID, want.ID}}, {"", "", 1, []string{later.ID}}, {"", later.ID, 9, []string{want.ID}},
		{fleet.RolloutRunning, "", 9, []string{later.ID, want.ID}}, {fleet.RolloutHalted, "", 9, nil},
	} {
		rs, err := s.Rollouts(s.Context(), c.status, c.after, c.limit)
		s.must(err)
		if diff := cmp.Diff(c.want, ids(rs)); diff != "" {
			s.Errorf("%+v: %s", c, diff)
		}
	}
	if _, err := s.Rollout(s.Context(), "rol_none"); !errors.Is(err, fleet.ErrRolloutUnknown) {
		s.Errorf("unknown rollout: %v", err)
	}
}

func ids(rs []fleet.Rollout) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.ID)
	}
	return out
}

func overlap(s *suite) {
	first, _ := s.running("m", 1, "a", "b")
	s.enrolled("c", nil)
	for _, c := range []struct {
		name    string
		status  string // of the first rollout
		model   string
		devices []string
		want    error
	}{
		{"one device of two", fleet.RolloutRunning, "m", []string{"c", "b"}, fleet.ErrRolloutConflict},
		{"while it is paused", fleet.RolloutPaused, "m", []string{"a"}, fleet.ErrRolloutConflict},
		{"other devices", fleet.RolloutRunning, "m", []string{"c"}, nil},
		{"another model", fleet.RolloutRunning, "n", []string{"a"}, nil},
		{"after its end", fleet.RolloutAborted, "m", []string{"a"}, nil},
	} {
		s.must(s.SetRolloutStatus(s.Context(), first.ID, []string{fleet.RolloutRunning, fleet.RolloutPaused}, c.status, "", fleet.Audit{}))
		r, ms := planned(c.model, 2, c.devices...)
		if err := s.CreateRollout(s.Context(), r, ms, fleet.Audit{}); !errors.Is(err, c.want) {
			s.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		_, err := s.Rollout(s.Context(), r.ID)
		if (err == nil) != (c.want == nil) {
			s.Errorf("%s: stored: %v", c.name, err)
		}
	}
}

func steering(s *suite) {
	r, _ := s.running("m", 1, "a")
	from := []string{fleet.RolloutRunning}
	s.must(s.SetRolloutStatus(s.Context(), r.ID, from, fleet.RolloutPaused, "lunch", act(2, "rollout.pause", r.ID)))
	if err := s.SetRolloutStatus(s.Context(), r.ID, from, fleet.RolloutPaused, "again", act(3, "rollout.pause", r.ID)); !errors.Is(err, fleet.ErrRolloutState) {
		s.Errorf("from another status: %v", err)
	}
	s.must(s.SetRolloutStatus(s.Context(), r.ID, []string{fleet.RolloutPaused}, fleet.RolloutAborted, "", act(4, "rollout.abort", r.ID)))
	got, err := s.Rollout(s.Context(), r.ID)
	s.must(err)
	if got.Status != fleet.RolloutAborted || got.Reason != "lunch" || !got.Finished.Equal(start.Add(4*time.Second)) {
		s.Errorf("%+v", got)
	}
	if as, _ := s.Audit(s.Context(), r.ID, "", 9); len(as) != 3 {
		s.Errorf("%d acts in the audit: a refused one is none", len(as))
	}
}

func commit(s *suite) {
	r, ms := s.running("m", 1, "a", "b")
	e := s.epoch()
	m := ms[0]
	m.Assigned = start.Add(time.Minute)
	c := fleet.Commit{
		Epoch: e, Rollout: *r, Members: []fleet.Member{m}, Device: "a", Audit: act(5, "rollout.admit", r.ID),
		Evaluations: []fleet.GateEvaluation{{Rollout: r.ID, Gate: "prove", At: start, Verdict: fleet.GatePass, Evidence: "{}"}},
		Change: func(w *fleet.Wish) error {
			w.Put(fleet.Item{Model: "m", Path: "production/m/1.0.0", Attempt: 1})
			return nil
		},
	}
	boom := errors.New("boom")
	refused := c
	refused.Change = func(*fleet.Wish) error { return boom }
	for name, err := range map[string]error{
		"change refused":    s.CommitRollout(s.Context(), refused, start, signer),
		"signature refused": s.CommitRollout(s.Context(), c, start, func(*fleet.Wish) ([]fleet.MetaRow, error) { return nil, boom }),
	} {
		if !errors.Is(err, boom) {
			s.Errorf("%s: %v", name, err)
		}
	}
	got, _ := s.Members(s.Context(), r.ID)
	evals, _ := s.GateEvaluations(s.Context(), r.ID)
	as, _ := s.Audit(s.Context(), r.ID, "", 9)
	w, _ := s.Wish(s.Context(), "a")
	if out, _ := s.TakeOutbox(s.Context()); !got[0].Assigned.IsZero() || len(evals) != 0 || len(as) != 1 || w.Generation != 0 || len(out) != 0 {
		s.Errorf("a refused commit left something: %+v %v %v %+v %v", got[0], evals, as, w, out)
	}
	s.must(s.CommitRollout(s.Context(), c, start, signer))
	s.reopen()
	got, _ = s.Members(s.Context(), r.ID)
	evals, _ = s.GateEvaluations(s.Context(), r.ID)
	as, _ = s.Audit(s.Context(), r.ID, "", 9)
	w, _ = s.Wish(s.Context(), "a")
	v, b, _ := s.Metadata(s.Context(), "director", "a", "targets")
	if !got[0].Assigned.Equal(m.Assigned) || len(evals) != 1 || len(as) != 2 || v != 1 || string(b) != fmt.Sprint(w.Generation, w.Items) {
		s.Errorf("a commit is not whole: %+v %v %v %d %s", got[0], evals, as, v, b)
	}
	if w.Generation != 1 || w.Version != 1 || w.Changed.Before(m.Assigned) {
		s.Errorf("wish: %+v", w)
	}
	if out, _ := s.TakeOutbox(s.Context()); len(out) != 1 || out[0] != "a" {
		s.Errorf("outbox: %v", out)
	}
	if out, _ := s.TakeOutbox(s.Context()); len(out) != 0 {
		s.Errorf("outbox, taken before: %v", out)
	}
}

func mayCommit(s *suite) {
	r, ms := s.running("m", 1, "a")
	e := s.epoch()
	c := fleet.Commit{Epoch: e, Rollout: *r, Members: ms}
	for _, wrong := range []int64{0, e - 1, e + 1} {
		old := c
		old.Epoch = wrong
		if err := s.CommitRollout(s.Context(), old, start, signer); !errors.Is(err, fleet.ErrLeaseLost) {
			s.Errorf("epoch %d of %d: %v", wrong, e, err)
		}
	}
	s.must(s.SetRolloutStatus(s.Context(), r.ID, []string{fleet.RolloutRunning}, fleet.RolloutPaused, "", fleet.Audit{}))
	if err := s.CommitRollout(s.Context(), c, start, signer); !errors.Is(err, fleet.ErrRolloutState) {
		s.Errorf("a rollout that a person paused: %v", err)
	}
	s.must(s.SetRolloutStatus(s.Context(), r.ID, []string{fleet.RolloutPaused}, fleet.RolloutRunning, "", fleet.Audit{}))
	s.must(s.SettleMembers(s.Context(), "a", func(ms []fleet.Member) []fleet.Member { ms[0].Outcome = fleet.OutcomeGood; return ms }))
	silent := c
	silent.Members[0].Outcome = fleet.OutcomeSilent
	if err := s.CommitRollout(s.Context(), silent, start, signer); !errors.Is(err, fleet.ErrRolloutState) {
		s.Errorf("a member that a device settled: %v", err)
	}
	if got, _ := s.Members(s.Context(), r.ID); got[0].Outcome != fleet.OutcomeGood {
		s.Error("what the device told was overwritten")
	}
}

func settled(s *suite) {
	run, _ := s.running("m", 1, "a", "b")
	paused, _ := s.running("n", 2, "a")
	over, _ := s.running("o", 3, "a")
	s.must(s.SetRolloutStatus(s.Context(), paused.ID, []string{fleet.RolloutRunning}, fleet.RolloutPaused, "", fleet.Audit{}))
	s.must(s.SetRolloutStatus(s.Context(), over.ID, []string{fleet.RolloutRunning}, fleet.RolloutHalted, "", fleet.Audit{}))
	rs, err := s.DeviceRollouts(s.Context(), "a")
	s.must(err)
	if diff := cmp.Diff([]string{run.ID, paused.ID}, ids(rs)); diff != "" {
		s.Error(diff)
	}
	s.must(s.SettleMembers(s.Context(), "a", func(ms []fleet.Member) []fleet.Member {
		if len(ms) != 2 {
			s.Errorf("%d memberships", len(ms))
		}
		for i := range ms {
			ms[i].Outcome, ms[i].Settled = fleet.OutcomeGood, start
		}
		return ms[:1]
	}))
	for id, want := range map[string]string{run.ID: fleet.OutcomeGood, paused.ID: "", over.ID: ""} {
		if ms, _ := s.Members(s.Context(), id); ms[0].Outcome != want {
			s.Errorf("member of %s: %q", id, ms[0].Outcome)
		}
	}
}

func openRollouts(s *suite) {
	for n, c := range []struct {
		status  string
		outcome string
		undone  bool
		open    bool
	}{
		{fleet.RolloutRunning, "", false, true},
		{fleet.RolloutPaused, "", false, false},
		{fleet.RolloutHalted, fleet.OutcomeFailed, false, true},
		{fleet.RolloutAborted, "", false, true},
		{fleet.RolloutHalted, fleet.OutcomeFailed, true, false},
		{fleet.RolloutHalted, fleet.OutcomeGood, false, false},
		{fleet.RolloutCompleted, "", false, false},
	} {
		r, ms := s.running(fmt.Sprint("m", n), n, "a", "b")
		ms[0].Assigned, ms[0].Outcome = start, c.outcome
		if c.undone {
			ms[0].Undone = start
		}
		s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *r, Members: ms[:1]}, start, signer))
		if c.status != fleet.RolloutRunning {
			s.must(s.SetRolloutStatus(s.Context(), r.ID, []string{fleet.RolloutRunning}, c.status, "", fleet.Audit{}))
		}
		open, err := s.OpenRollouts(s.Context())
		s.must(err)
		found := false
		for _, o := range open {
			found = found || o.ID == r.ID && len(o.Stages) == len(r.Stages)
		}
		if found != c.open {
			s.Errorf("%+v: open %v", c, found)
		}
	}
}

func wishes(s *suite) {
	r, ms := s.running("m", 1, "a")
	e := s.epoch()
	change := func(f func(*fleet.Wish) error) {
		s.Helper()
		s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: e, Rollout: *r, Members: ms, Device: "a", Change: f}, start, signer))
	}
	if w, err := s.Wish(s.Context(), "a"); err != nil || w.Generation != 0 || w.Device != "a" {
		s.Errorf("no wish yet: %+v, %v", w, err)
	}
	n := fleet.Item{Model: "n", Path: "production/n/1.0.0", Runtime: "production/rt/1.0.0", Attempt: 2, Rollout: r.ID, Arm: "treated"}
	m := fleet.Item{Model: "m", Path: "production/m/1.0.0", Runtime: "production/rt/1.0.0", Attempt: 1}
	change(func(w *fleet.Wish) error { w.Put(n); return nil })
	change(func(w *fleet.Wish) error { w.Put(m); return nil })
	s.reopen()
	w, err := s.Wish(s.Context(), "a")
	s.must(err)
	if diff := cmp.Diff(&fleet.Wish{Device: "a", Generation: 2, Version: 2, Items: []fleet.Item{m, n}, Changed: start}, w); diff != "" {
		s.Error(diff)
	}
	s.must(s.Resign(s.Context(), "a", signer))
	if w, _ := s.Wish(s.Context(), "a"); w.Generation != 2 || w.Version != 3 || len(w.Items) != 2 {
		s.Errorf("signed anew: %+v", w)
	}
	change(func(w *fleet.Wish) error { w.Remove("n"); return nil })
	if w, _ := s.Wish(s.Context(), "a"); w.Generation != 3 || w.Version != 4 || len(w.Items) != 1 {
		s.Errorf("one taken out: %+v", w)
	}
	rows, err := s.AllMetadata(s.Context(), "director", "a")
	s.must(err)
	if len(rows) != 1 || rows[0].Version != 4 {
		s.Errorf("metadata: %+v", rows)
	}
}

func leases(s *suite) {
	type try struct {
		holder string
		at     time.Duration
		ok     bool
		epoch  int64
	}
	for n, c := range []try{
		{"one", 0, true, 1}, {"two", time.Second, false, 0}, {"one", 5 * time.Second, true, 1}, {"two", 14 * time.Second, false, 0},
		{"two", 15 * time.Second, true, 2}, {"one", 16 * time.Second, false, 0}, {"one", time.Minute, true, 3}, {"one", time.Hour, true, 3},
	} {
		epoch, ok, err := s.Lease(s.Context(), "x", c.holder, 10*time.Second, start.Add(c.at))
		s.must(err)
		if ok != c.ok || ok && epoch != c.epoch {
			s.Errorf("%d, %s after %v: %v, epoch %d, want %+v", n, c.holder, c.at, ok, epoch, c)
		}
	}
	if _, ok, err := s.Lease(s.Context(), "y", "two", time.Second, start); err != nil || !ok {
		s.Errorf("another lease: %v, %v", ok, err)
	}
}
