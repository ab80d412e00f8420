package update

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// errByHand cancels probation when somebody at the device asks to go back.
var errByHand = errors.New("rolled back by hand")

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

// rollbackByHand answers everybody who asked for a rollback of this model.
func (m *model) rollbackByHand(ctx context.Context) error {
	m.mu.Lock()
	asked := m.byHand
	m.byHand = nil
	m.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	err := m.goBack(ctx)
	for _, done := range asked {
		done <- err // buffered
	}
	if errors.Is(err, ErrNoWayBack) {
		return nil
	}
	return err
}

// goBack turns the pair that serves into a journey that is being rolled back, so
// that a restart in the middle finishes it.
func (m *model) goBack(ctx context.Context) error {
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
		if under {
			m.giveBack(&jr.Target) // its journey begins again afterwards
		}
		jr = journal{Target: t, Proven: s.Slot(s.Active).Proven, Began: time.Now()}
	}
	j := m.journey(jr)
	j.Step, j.Code, j.Reason, j.Blame = stepRollback, "rollback.by_hand", "somebody at the device asked to go back", true
	if err := j.enter(stepRollback); err != nil {
		return err
	}
	return j.rollback(context.WithoutCancel(ctx))
}
