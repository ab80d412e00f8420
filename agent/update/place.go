package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// runtimeDir is where a place keeps the runtime's files: a name that no bundle's
// path can have.
const runtimeDir = "@runtime"

// maxContractFile bounds what is read of a place's contract.
const maxContractFile = bundle.MaxContract

func (e *Engine) look(name string) (*slots.Slots, slots.State, error) {
	m, err := e.slots.Model(name)
	if err != nil {
		return nil, slots.State{}, err
	}
	s, err := m.Look()
	return m, s, err
}

// active is the candidate form of the slot that the pointer names, nil when
// nothing serves.
func (e *Engine) active(name string) (*Candidate, error) {
	_, s, err := e.look(name)
	if err != nil || s.Active == slots.None {
		return nil, err
	}
	return e.read(name, s.Slot(s.Active))
}

// noteOf is the target that was placed in a slot.
func noteOf(s *slots.Slot) (target, error) {
	var t target
	if err := json.Unmarshal(s.Note, &t); err != nil {
		return t, fmt.Errorf("slot %s: note: %w", s.Place, err)
	}
	return t, nil
}

// read makes a candidate of a complete slot.
func (e *Engine) read(name string, s *slots.Slot) (*Candidate, error) {
	if s.Content != slots.Complete {
		return nil, fmt.Errorf("slot %s of %s: %w", s.Place, name, slots.ErrIncomplete)
	}
	t, err := noteOf(s)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, bundle.ContractPath))
	if err != nil {
		return nil, fmt.Errorf("slot %s of %s: %w", s.Place, name, err)
	}
	if len(b) > maxContractFile {
		return nil, fmt.Errorf("slot %s of %s: contract of %d bytes", s.Place, name, len(b))
	}
	c, err := bundle.DecodeContract(b)
	if err != nil {
		return nil, fmt.Errorf("slot %s of %s: %w", s.Place, name, err)
	}
	library := ""
	for _, f := range s.Files {
		if filepath.Dir(f.Name) == runtimeDir {
			library = filepath.Join(s.Dir, filepath.FromSlash(f.Name))
		}
	}
	return &Candidate{
		Model: name, Version: c.Version, Path: t.Path, Dir: s.Dir, Library: library,
		Bundle: s.Bundle, Runtime: s.Runtime, Rollout: t.Custom.Assign.Rollout, Arm: t.Custom.Assign.Arm, Contract: c, Proof: e.proof(name, s.Pair),
	}, nil
}

// candidate finds the journey's pair in its place.
func (e *Engine) candidate(j *journey) (*Candidate, error) {
	_, s, err := e.look(j.model())
	if err != nil {
		return nil, err
	}
	p := s.Find(j.pair())
	if p == slots.None {
		return nil, errLost
	}
	return e.read(j.model(), s.Slot(p))
}

// verify hashes the candidate's place again: what is about to run is what was
// signed. A place that is not is emptied.
func (e *Engine) verify(j *journey) error {
	m, s, err := e.look(j.model())
	if err != nil {
		return err
	}
	p := s.Find(j.pair())
	err = m.Verify(p)
	if errors.Is(err, slots.ErrDigest) {
		return errors.Join(errLost, err, m.Erase(p))
	}
	return err
}

// judge stores a verdict about the journey's pair, where it is in a place.
func (e *Engine) judge(j *journey, v slots.Verdict) error {
	m, s, err := e.look(j.model())
	if err != nil {
		return err
	}
	p := s.Find(j.pair())
	if p == slots.None {
		return nil
	}
	return m.Judge(p, slots.Judged{Verdict: v, Code: j.Code, Reason: j.Reason, Attempt: j.Target.Custom.Assign.Attempt, Proven: j.Proven})
}

// switchTo writes the verdict trying, then moves the pointer to the candidate;
// the slots write the way back before that.
func (e *Engine) switchTo(j *journey) error {
	if err := e.judge(j, slots.Trying); err != nil {
		return err
	}
	m, s, err := e.look(j.model())
	if err != nil {
		return err
	}
	p := s.Find(j.pair())
	if p == slots.None {
		return errLost
	}
	return m.Switch(p)
}

// back makes the previous slot serve again when the pair is active; without a
// previous slot nothing serves. When the pair is not active any more, the slot
// that is active serves.
func (e *Engine) back(ctx context.Context, name string, pair slots.Pair) error {
	m, s, err := e.look(name)
	if err != nil {
		return err
	}
	if active := s.Slot(s.Active); s.Active != slots.None && active.Pair == pair {
		err := m.Back()
		if errors.Is(err, slots.ErrNoWayBack) {
			err = m.Retire()
		}
		if err != nil {
			return err
		}
	}
	c, err := e.active(name)
	if err != nil {
		return err
	}
	return e.serve(ctx, name, c)
}

// stage fills the inactive place with the files of bundle and runtime.
func (e *Engine) stage(j *journey, files []placed) error {
	m, _, err := e.look(j.model())
	if err != nil {
		return err
	}
	note, err := json.Marshal(&j.Target)
	if err != nil {
		return err
	}
	st, err := m.Stage()
	if err != nil {
		return err
	}
	defer st.Drop()
	for _, f := range files {
		if f.from == "" {
			ok, err := st.Reuse(f.File)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("file %s is neither fetched nor in a place", f.Name)
			}
			continue
		}
		if err := st.Add(f.File, f.from); err != nil {
			return err
		}
	}
	_, err = st.Publish(slots.Pair{Bundle: j.Target.Bundle, Runtime: j.Target.Runtime}, note)
	return err
}

// placed is a file of the slot with the verified blob it comes from; empty: a
// place holds it already.
type placed struct {
	slots.File
	from string
}
