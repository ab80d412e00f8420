package update

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// reversal is asked for from outside the journey: the pair that serves goes, for a
// reason. It is the cause with which a journey under way is cancelled.
type reversal struct {
	Refusal
	bundle string     // only while this one serves; empty: whatever serves
	done   chan error // gets the outcome; buffered
}

func (r *reversal) Error() string { return r.Refusal.Error() }

// means tells whether the reversal is about this target.
func (r *reversal) means(t *target) bool { return r.bundle == "" || r.bundle == t.Bundle }

// rollback is the undo of try, probation and commit: the previous slot serves
// again, then the candidate is bad. Without a previous slot the model stops
// serving. It may run again from its beginning.
func (j *journey) rollback(ctx context.Context) error {
	if err := j.e.back(ctx, j.model(), j.pair()); err != nil {
		return fmt.Errorf("roll back %s: %w", j.Target.Path, err)
	}
	if !j.Blame {
		if err := j.e.drop(j.model()); err != nil {
			return err
		}
		j.e.report.Changed(j.model())
		return nil
	}
	if err := j.e.judge(j, slots.Bad); err != nil {
		return err
	}
	return j.finish(outcome{Verdict: slots.Bad, Code: j.Code, Reason: j.Reason, Proven: j.Proven})
}

// reverse does what was asked for.
func (m *model) reverse(ctx context.Context) error {
	m.mu.Lock()
	asked := m.reversals
	m.reversals = nil
	m.mu.Unlock()
	var first error
	for _, r := range asked {
		err := m.goBack(ctx, r)
		r.done <- err
		if first == nil && !errors.Is(err, ErrNoWayBack) {
			first = err
		}
	}
	return first
}

// goBack turns the pair that serves into a journey that is being rolled back, so
// that a restart in the middle finishes it.
func (m *model) goBack(ctx context.Context, r *reversal) error {
	jr, under, err := m.e.journals.Get(m.name)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if early := stepIndex(jr.Step) < stepIndex("try") && jr.Step != stepRollback; !under || early {
		_, s, err := m.e.look(m.name)
		if err != nil {
			return err
		}
		if s.Active == slots.None || s.Previous == slots.None {
			return ErrNoWayBack
		}
		t, err := noteOf(s.Slot(s.Active))
		if err != nil {
			return err
		}
		if !r.means(&t) {
			return ErrNoWayBack
		}
		if under {
			m.giveBack(&jr.Target) // its journey begins again afterwards
		}
		jr = journal{Target: t, Proven: s.Slot(s.Active).Proven, Began: time.Now()}
	}
	if !r.means(&jr.Target) {
		return ErrNoWayBack
	}
	j := m.journey(jr)
	j.Step, j.Code, j.Reason, j.Blame = stepRollback, r.Code, r.Reason, true
	if err := j.enter(stepRollback); err != nil {
		return err
	}
	return j.rollback(context.WithoutCancel(ctx))
}
