package slots

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Pair is what a slot holds: digests of two manifests, "sha256:…".
type Pair struct {
	Bundle  string `json:"bundle"`
	Runtime string `json:"runtime"`
}

// Content is what a look at a place found.
type Content string

// Contents. A place with a damaged record or with a file missing or of another
// size is empty: nothing in it may be used.
const (
	Empty    Content = "empty"
	Complete Content = "complete"
)

// Slot is one place, what it holds and what was judged about it.
type Slot struct {
	Place   Place
	Dir     string // of the place
	Content Content
	Record  // zero when empty
	Judged  // of this pair; Verdict is Unknown when nothing was judged
}

// State is a look at a model.
type State struct {
	Active   Place // where the pointer leads; None: nothing serves
	Previous Place // the way back; None: there is none
	a, b     Slot
}

// Slot returns what was seen of a place; of None an empty slot.
func (s *State) Slot(p Place) *Slot {
	switch p {
	case A:
		return &s.a
	case B:
		return &s.b
	}
	return &Slot{Content: Empty, Judged: Judged{Verdict: Unknown}}
}

// Inactive is the place that may be written to.
func (s *State) Inactive() Place {
	if s.Active != None {
		return s.Active.Other()
	}
	if s.a.Content == Complete && s.b.Content == Empty {
		return B
	}
	return A
}

// Find returns the place that holds a pair whole, None when neither does. The
// active place is preferred.
func (s *State) Find(pair Pair) Place {
	for _, p := range []Place{s.Inactive().Other(), s.Inactive()} {
		if slot := s.Slot(p); slot.Content == Complete && slot.Pair == pair {
			return p
		}
	}
	return None
}

// Look reads pointers, places and verdicts from the disk. Files are looked at by
// name and size; Verify reads them.
func (m *Slots) Look() (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.look()
}

func (m *Slots) look() (State, error) {
	var s State
	var err error
	if s.Active, err = m.pointer(currentName); err != nil {
		return s, err
	}
	if s.a, err = m.slot(A); err != nil {
		return s, err
	}
	if s.b, err = m.slot(B); err != nil {
		return s, err
	}
	if s.Previous, err = m.pointer(previousName); err != nil {
		return s, err
	}
	// A way back to the active place is a switch that did not happen.
	if s.Previous == s.Active || s.Slot(s.Previous).Content == Empty {
		s.Previous = None
	}
	return s, nil
}

func (m *Slots) slot(p Place) (Slot, error) {
	s := Slot{Place: p, Dir: m.Dir(p), Content: Empty, Judged: Judged{Verdict: Unknown}}
	r, err := m.readRecord(p)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrRecord):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("look at place %s of %s: %w", p, m.name, err)
	}
	for _, f := range r.Files {
		info, err := m.fsys.Stat(filepath.Join(s.Dir, filepath.FromSlash(f.Name)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() != f.Size) {
			return s, nil
		}
		if err != nil {
			return s, fmt.Errorf("look at place %s of %s: %w", p, m.name, err)
		}
	}
	s.Content, s.Record = Complete, *r
	if s.Judged, err = m.readVerdict(p, r.Pair); err != nil {
		return s, err
	}
	return s, nil
}

// Verify reads every file of a place and compares it with the slot's record. An
// error wrapping ErrDigest names the file.
func (m *Slots) Verify(p Place) error {
	if !p.valid() {
		return fmt.Errorf("verify a place of %s: %w", m.name, ErrIncomplete)
	}
	m.mu.Lock()
	s, err := m.slot(p)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if s.Content != Complete {
		return fmt.Errorf("verify place %s of %s: %w", p, m.name, ErrIncomplete)
	}
	for _, f := range s.Files {
		if err := m.verifyFile(filepath.Join(s.Dir, filepath.FromSlash(f.Name)), f); err != nil {
			return fmt.Errorf("verify place %s of %s: %w", p, m.name, err)
		}
	}
	return nil
}
