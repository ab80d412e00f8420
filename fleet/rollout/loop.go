package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// LoopStore is what the loop needs kept.
type LoopStore interface {
	// Lease gives one holder at a time the right to carry rollouts out, until
	// ttl after now; the epoch rises with each new holder.
	Lease(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (epoch int64, ok bool, err error)
	// OpenRollouts lists running rollouts, and halted or aborted ones with
	// members that have not got their former wish back.
	OpenRollouts(ctx context.Context) ([]fleet.Rollout, error)
	Members(ctx context.Context, rollout string) ([]fleet.Member, error)
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	Device(ctx context.Context, id string) (*fleet.Device, error)
	// AddEvaluations stores evaluations that are not like the newest of their gate;
	// ErrLeaseLost when the epoch is not the lease's.
	AddEvaluations(ctx context.Context, epoch int64, gs []fleet.GateEvaluation) error
}

// Gates judges what a release does on the devices that run it.
type Gates interface {
	Judge(ctx context.Context, r *fleet.Rollout, members []fleet.Member, now time.Time) ([]Judged, []fleet.GateEvaluation, error)
	// Forget ends what is kept of a rollout.
	Forget(rollout string)
}

// Assigner stores a commit, with the changed wish signed in the same
// transaction. It is idempotent: a commit that was stored and is planned again
// finds its rows changed.
type Assigner interface {
	Commit(ctx context.Context, c fleet.Commit) error
	// Runtime chooses the runtime release that a device is to pair with a
	// release: the newest of the channel for the device's architecture.
	Runtime(ctx context.Context, d *fleet.Device, rel *fleet.Release) (path string, err error)
}

// Loop carries rollouts out.
type Loop struct {
	Store    LoopStore
	Assigner Assigner
	Gates    Gates // nil: no behaviour gates are asked
	Release  func(ctx context.Context, channel, model, version string) (*fleet.Release, error)
	Holder   string // unique per process
	Now      func() time.Time
	Log      *slog.Logger
	// Changed tells watchers that a rollout changed; may be nil.
	Changed func(rollout string)

	wake   chan struct{}
	judged map[string]judgement // by running rollout
}

// judgement is what the gates said when they were asked last.
type judgement struct {
	at    time.Time
	stage int
	js    []Judged
}

// NewLoop returns a loop that runs when Run is called.
func NewLoop(l Loop) *Loop {
	l.wake = make(chan struct{}, 1)
	l.judged = map[string]judgement{}
	return &l
}

// Wake makes the loop look now; repeated calls melt into one.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

const (
	leaseName = "rollouts"
	leaseTTL  = 15 * time.Second
	lookAgain = 5 * time.Second // also renews the lease
	retry     = time.Second     // after somebody else changed the rollout meanwhile

	// batch is how many actions are carried out before the members are read
	// again: what the first devices of a stage tell stops the rest of it.
	batch = 64
)

// Run carries out what is due until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	for {
		next, err := l.Step(ctx)
		if err != nil && ctx.Err() == nil {
			l.Log.Error("rollouts put off", "err", err)
		}
		wait := lookAgain
		if !next.IsZero() {
			wait = min(max(next.Sub(l.Now()), 0), lookAgain)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-l.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Step carries out everything that is due now, in every open rollout, and says
// when time alone makes more due.
func (l *Loop) Step(ctx context.Context) (next time.Time, err error) {
	if _, ok, err := l.lease(ctx); err != nil || !ok {
		return time.Time{}, err
	}
	open, err := l.Store.OpenRollouts(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("list rollouts: %w", err)
	}
	l.forget(open)
	var errs []error
	for i := range open {
		at, err := l.advance(ctx, &open[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("rollout %s: %w", open[i].ID, err))
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, errors.Join(errs...)
}

// forget drops what was kept for the gates of rollouts that run no more.
func (l *Loop) forget(open []fleet.Rollout) {
	for id := range l.judged {
		if !slices.ContainsFunc(open, func(r fleet.Rollout) bool { return r.ID == id && r.Status == fleet.RolloutRunning }) {
			delete(l.judged, id)
			l.Gates.Forget(id)
		}
	}
}

func (l *Loop) lease(ctx context.Context) (epoch int64, ok bool, err error) {
	return l.Store.Lease(ctx, leaseName, l.Holder, leaseTTL, l.Now())
}

// advance plans and acts until nothing is due, or until the lease or the rollout
// is in other hands.
func (l *Loop) advance(ctx context.Context, r *fleet.Rollout) (time.Time, error) {
	for {
		epoch, ok, err := l.lease(ctx)
		if err != nil || !ok {
			return time.Time{}, err
		}
		members, err := l.Store.Members(ctx, r.ID)
		if err != nil {
			return time.Time{}, err
		}
		f := Facts{Members: members}
		again, err := l.ask(ctx, epoch, r, &f, false)
		if err != nil {
			return time.Time{}, err
		}
		actions := Plan(r, f, l.Now())
		if len(actions) > 0 && actions[0].endsStage() {
			if _, err := l.ask(ctx, epoch, r, &f, true); err != nil {
				return time.Time{}, err
			}
			actions = Plan(r, f, l.Now())
		}
		if len(actions) == 0 {
			next := Next(r, members, l.Now())
			if !again.IsZero() && (next.IsZero() || again.Before(next)) {
				next = again
			}
			return next, nil
		}
		for _, a := range actions[:min(len(actions), batch)] {
			err := l.act(ctx, epoch, r, members, a)
			if errors.Is(err, fleet.ErrRolloutState) || errors.Is(err, fleet.ErrLeaseLost) {
				return l.Now().Add(retry), nil
			}
			if err != nil {
				return time.Time{}, fmt.Errorf("%s %s: %w", a.Kind, a.Device, err)
			}
		}
	}
}

// asks is how many times a look's length the gates are asked.
const asks = 4

// ask puts into the facts what the behaviour gates say, and tells when they are to be
// asked again; zero: not. Where they cannot be asked nothing is planned: a stage must
// not pass for want of an answer, nor on an old one: fresh wants one of now.
func (l *Loop) ask(ctx context.Context, epoch int64, r *fleet.Rollout, f *Facts, fresh bool) (again time.Time, err error) {
	if l.Gates == nil || r.Status != fleet.RolloutRunning || r.Spec.Ungated() || !anyGood(f.Members) {
		return time.Time{}, nil
	}
	now, j := l.Now(), l.judged[r.ID]
	every := r.Spec.Look() / asks
	if j.js == nil || j.stage != r.Stage || fresh && now.After(j.at) || !now.Before(j.at.Add(every)) {
		js, es, err := l.Gates.Judge(ctx, r, f.Members, now)
		if err != nil {
			return time.Time{}, fmt.Errorf("gates of %s: %w", r.ID, err)
		}
		if err := l.Store.AddEvaluations(ctx, epoch, es); err != nil {
			return time.Time{}, err
		}
		j = judgement{now, r.Stage, js}
		l.judged[r.ID] = j
	}
	f.Judged = j.js
	return j.at.Add(every), nil
}

// act makes the commit of one action and stores it. On success r is what was
// stored.
func (l *Loop) act(ctx context.Context, epoch int64, r *fleet.Rollout, members []fleet.Member, a Action) error {
	now := l.Now()
	c := fleet.Commit{Epoch: epoch, Rollout: cloned(r), Evaluations: a.Evaluations}
	c.Rollout.Changed = now
	c.Audit = fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: "rollout." + string(a.Kind), Object: r.ID, Detail: a.Device + a.Reason}
	st := &c.Rollout.Stages[r.Stage]
	switch a.Kind {
	case StartStage:
		st.Started = now
	case Bake:
		st.Baking = now
	case PassStage:
		st.Passed = now
		c.Rollout.Stage++
	case Complete:
		st.Passed = now
		c.Rollout.Status, c.Rollout.Finished = fleet.RolloutCompleted, now
	case Widen:
		for _, d := range a.Devices {
			m := member(members, d)
			m.Stage = a.Stage
			c.Members = append(c.Members, m)
		}
		st.Baking = time.Time{}
		st.Target += len(a.Devices)
	case Hold:
		st.Held = now
		c.Rollout.Status, c.Rollout.Code, c.Rollout.Reason = fleet.RolloutPaused, a.Code, a.Reason
	case Halt:
		c.Rollout.Status, c.Rollout.Code, c.Rollout.Reason = afterHalt(r), a.Code, a.Reason
		c.Quarantine = quarantined(r, members, a, now)
	case Reverted:
		c.Rollout.Status, c.Rollout.Finished = fleet.RolloutReverted, now
	case Silent:
		m := member(members, a.Device)
		m.Outcome, m.Settled = fleet.OutcomeSilent, now
		m.Code, m.Reason = "silence", "not heard of since it acknowledged the assignment"
		c.Members = []fleet.Member{m}
	case Admit:
		m := member(members, a.Device)
		m.Stage = a.Stage // it may stand in for one that is gone
		if err := l.admit(ctx, &c, m, now); err != nil {
			return err
		}
	case Undo:
		takeBack(&c, member(members, a.Device), now)
	}
	if err := l.Assigner.Commit(ctx, c); err != nil {
		return err
	}
	*r = c.Rollout
	if l.Changed != nil {
		l.Changed(r.ID)
	}
	l.Log.Info("rollout", "rollout", r.ID, "act", string(a.Kind), "stage", a.Stage, "device", a.Device, "code", a.Code, "reason", a.Reason)
	return nil
}

// afterHalt is what becomes of a rollout of which a gate failed.
func afterHalt(r *fleet.Rollout) string {
	switch r.Spec.OnFail {
	case fleet.OnFailAbort:
		return fleet.RolloutAborted
	case fleet.OnFailRevert:
		return fleet.RolloutReverting
	}
	return fleet.RolloutHalted
}

// quarantined is what a failed gate keeps the release from: the hardware class whose
// device refused it, or all of them; nil where devices and not the release may be why.
func quarantined(r *fleet.Rollout, members []fleet.Member, a Action, now time.Time) *fleet.Quarantine {
	q := &fleet.Quarantine{ID: fleet.NewID(fleet.PrefixQuarantine, now), Path: r.Spec.Path(), Rollout: r.ID, Code: a.Code, Reason: a.Reason, Since: now}
	switch g := outcomeOf(strings.TrimPrefix(a.Code, "gate.")); {
	case a.Code == "gate.unknown":
		return nil
	case g == nil:
		return q
	case !g.strict:
		return nil
	default:
		for _, m := range settledInOrder(members) {
			if g.counts(m) {
				q.Class = m.Stratum
				break
			}
		}
		return q
	}
}

// cloned copies the rollout so that a commit that is not stored changes nothing.
func cloned(r *fleet.Rollout) fleet.Rollout {
	c := *r
	c.Stages = append([]fleet.Stage(nil), r.Stages...)
	return c
}

func member(members []fleet.Member, device string) fleet.Member {
	for _, m := range members {
		if m.Device == device {
			return m
		}
	}
	return fleet.Member{} // Plan names members only
}

// admit puts the release into the device's wish and keeps what stood there.
func (l *Loop) admit(ctx context.Context, c *fleet.Commit, m fleet.Member, now time.Time) error {
	spec := c.Rollout.Spec
	rel, err := l.Release(ctx, spec.Channel, spec.Model, spec.Version)
	if err != nil {
		return err
	}
	d, err := l.Store.Device(ctx, m.Device)
	if err != nil {
		return err
	}
	w, err := l.Store.Wish(ctx, m.Device)
	if err != nil {
		return err
	}
	m.Assigned = now
	if it, ok := w.Item(spec.Model); ok {
		m.Before = &it
	}
	runtime, err := l.Assigner.Runtime(ctx, d, rel)
	if err != nil {
		// A device that no runtime fits is an outcome, not a reason to stand still.
		m.Outcome, m.Code, m.Reason, m.Settled, m.Undone = fleet.OutcomeFailed, "install.runtime", err.Error(), now, now
		c.Members = []fleet.Member{m}
		return nil
	}
	arm := "treated"
	if m.Control {
		arm = "control"
	}
	item := fleet.Item{Model: spec.Model, Path: rel.Path(), Runtime: runtime, Attempt: spec.Attempt, Rollout: c.Rollout.ID, Arm: arm}
	c.Members, c.Device, c.Change = []fleet.Member{m}, m.Device, func(w *fleet.Wish) error { w.Put(item); return nil }
	return nil
}

// takeBack gives the device the item that it had before, or none.
func takeBack(c *fleet.Commit, m fleet.Member, now time.Time) {
	model, rollout, before := c.Rollout.Spec.Model, c.Rollout.ID, m.Before
	m.Undone = now
	c.Members, c.Device = []fleet.Member{m}, m.Device
	c.Change = func(w *fleet.Wish) error {
		it, ok := w.Item(model)
		switch {
		case !ok || it.Rollout != rollout: // somebody else's wish by now
		case before == nil:
			w.Remove(model)
		default:
			w.Put(*before)
		}
		return nil
	}
}
