package update

import (
	"errors"
	"fmt"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Status is what a device does about one model.
type Status struct {
	Model     string
	Active    *SlotStatus
	Candidate *SlotStatus // under way, or the pair that was last refused
	Previous  *SlotStatus // the way back
	Step      string      // of the journey under way
	// Of the wish that this state answers.
	Generation int64
	Attempt    int64
	Rollout    string
	Answered   uint64 // live requests that the candidate answered before it was refused
}

// SlotStatus is a pair with its verdict.
type SlotStatus struct {
	Place           slots.Place
	Path            string
	Bundle, Runtime string
	Verdict         slots.Verdict
	Code, Reason    string // why it is bad; of the active slot also why it answers nothing
	Proven          bool
	Proof           *bundle.Proof // what it showed on this device; nil: nothing is known
}

// answerRecord remembers which wish the present state answers.
type answerRecord struct {
	Generation int64  `json:"generation"`
	Attempt    int64  `json:"attempt"`
	Rollout    string `json:"rollout,omitempty"`
}

func (t *target) answer() answerRecord {
	a := t.Custom.Assign
	return answerRecord{a.Generation, a.Attempt, a.Rollout}
}

// answer remembers that the model's state answers a wish that asked for nothing
// new.
func (e *Engine) answer(name string, t *target) error {
	past, _, err := e.history.Get(name)
	if err != nil {
		return fmt.Errorf("read outcomes: %w", err)
	}
	past.Answers = t.answer()
	if o := past.find(t.Bundle, t.Runtime); o != nil && o.Verdict == slots.Bad {
		past.put(*o) // the newest again: it is what the report tells of
	}
	if err := e.history.Put(name, past); err != nil {
		return fmt.Errorf("write outcomes: %w", err)
	}
	e.report.Changed(name)
	return nil
}

// save writes the journal of a model.
func (e *Engine) save(j *journal) error { return e.journals.Put(j.Target.model(), *j) }

// drop ends a journey without an outcome.
func (e *Engine) drop(name string) error { return e.journals.Delete(name) }

// conclude stores the outcome and drops the journal in one transaction.
func (e *Engine) conclude(j *journey, o outcome) error {
	err := e.db.Update(func(tx *state.Tx) error {
		past, _, err := e.history.GetIn(tx, j.model())
		if err != nil {
			return err
		}
		past.put(o)
		past.Answers = j.Target.answer()
		return errors.Join(e.history.PutIn(tx, j.model(), past), e.journals.DeleteIn(tx, j.model()))
	})
	if err != nil {
		return fmt.Errorf("conclude %s: %w", j.Target.Path, err)
	}
	return nil
}

// Status tells of every model that is on the device or under way to it.
func (e *Engine) Status() ([]Status, error) {
	names, err := e.slots.Models()
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}
	seen := map[string]bool{}
	for _, n := range names {
		seen[n] = true
	}
	e.mu.Lock()
	for n := range e.models {
		if !seen[n] {
			names = append(names, n)
		}
	}
	e.mu.Unlock()
	var out []Status
	for _, n := range names {
		s, err := e.status(n)
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", n, err)
		}
		if err := e.addProofs(&s); err != nil {
			return nil, fmt.Errorf("status of %s: %w", n, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func (e *Engine) status(name string) (Status, error) {
	st := Status{Model: name}
	// In the order in which a journey ends, backwards: what is missing here is
	// there below.
	jr, under, err := e.journals.Get(name)
	if err != nil {
		return st, err
	}
	_, s, err := e.look(name)
	if err != nil {
		return st, err
	}
	past, _, err := e.history.Get(name)
	if err != nil {
		return st, err
	}
	st.Generation, st.Attempt, st.Rollout = past.Answers.Generation, past.Answers.Attempt, past.Answers.Rollout
	st.Active, st.Previous = slotStatus(s.Slot(s.Active)), slotStatus(s.Slot(s.Previous))
	e.mu.Lock()
	m := e.models[name]
	e.mu.Unlock()
	if m != nil && st.Active != nil {
		if r := m.trouble(); r != nil {
			st.Active.Code, st.Active.Reason = r.Code, r.Reason
		}
	}
	if under {
		a := jr.Target.answer()
		st.Step, st.Generation, st.Attempt, st.Rollout = jr.Step, a.Generation, a.Attempt, a.Rollout
		st.Candidate = &SlotStatus{Path: jr.Target.Path, Bundle: jr.Target.Bundle, Runtime: jr.Target.Runtime, Verdict: slots.Unknown, Code: jr.Code, Reason: jr.Reason, Proven: jr.Proven}
		if i := stepIndex(jr.Step); i >= stepIndex("try") {
			st.Candidate.Verdict = slots.Trying
		}
		return st, nil
	}
	if n := len(past.List); n > 0 && past.List[n-1].Verdict == slots.Bad {
		o := past.List[n-1]
		st.Candidate = &SlotStatus{Path: o.Path, Bundle: o.Bundle, Runtime: o.Runtime, Verdict: o.Verdict, Code: o.Code, Reason: o.Reason, Proven: o.Proven}
		st.Answered = o.Answered
	}
	return st, nil
}

func slotStatus(s *slots.Slot) *SlotStatus {
	if s.Content != slots.Complete {
		return nil
	}
	t, err := noteOf(s)
	if err != nil {
		return nil
	}
	return &SlotStatus{Place: s.Place, Path: t.Path, Bundle: s.Bundle, Runtime: s.Runtime, Verdict: s.Verdict, Code: s.Code, Reason: s.Reason, Proven: s.Proven}
}
