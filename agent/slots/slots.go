// Package slots keeps two places per model and one pointer. A place is filled
// beside its name and appears whole; the pointer `current` moves from one instant
// to the next, after the way back was written down. The active place is never
// written to.
//
// On disk, below the directory of the store:
//
//	MODEL/a, MODEL/b      places; every file of the bundle, and slot.json
//	MODEL/current         link to a or b: the truth about what serves
//	MODEL/previous        link to a or b: the way back
//	MODEL/verdict-a.json  what was judged about the pair in that place
//
// Content is observed from the disk at every look; a verdict is judged by the
// caller and belongs to a pair: it is forgotten with it. The package knows no
// network, no signatures and no model code: what it is given is verified.
//
// A Store is safe for concurrent use. One Staging per model may be open.
package slots

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Place is a slot's physical side.
type Place string

// The two places. None is the zero Place: no pointer.
const (
	None Place = ""
	A    Place = "a"
	B    Place = "b"
)

// Other is the opposite place.
func (p Place) Other() Place {
	if p == A {
		return B
	}
	return A
}

func (p Place) valid() bool { return p == A || p == B }

// Names inside a model's directory.
const (
	currentName  = "current"
	previousName = "previous"
)

// Error is a refusal with a code that may travel to the fleet.
type Error struct {
	Code   string // "slot.incomplete", …
	Reason string // a sentence for people
}

// Error implements error.
func (e *Error) Error() string { return e.Reason + " (" + e.Code + ")" }

// What callers may want to know apart.
var (
	ErrName       = &Error{"slot.name", "the name of a model or file is not allowed"}
	ErrActive     = &Error{"slot.active", "the place is active and must not change"}
	ErrIncomplete = &Error{"slot.incomplete", "the place holds no complete slot"}
	ErrDigest     = &Error{"slot.digest", "a file is not what the slot's record says"}
	ErrNoWayBack  = &Error{"slot.no_way_back", "there is no previous slot to go back to"}
	ErrRecord     = &Error{"slot.record", "a record is damaged or of an unknown format"}
)

// Store holds the slots of every model of the device.
type Store struct {
	fsys durable.FS
	dir  string

	mu     sync.Mutex
	models map[string]*Slots
}

// Open uses dir, which is made when missing, and removes what interrupted
// operations left in it.
func Open(fsys durable.FS, dir string) (*Store, error) {
	if err := durable.MkdirAll(fsys, "slots.open", dir, 0o755); err != nil {
		return nil, fmt.Errorf("open slots: %w", err)
	}
	s := &Store{fsys: fsys, dir: dir, models: map[string]*Slots{}}
	if err := durable.Sweep(fsys, "slots.sweep", dir); err != nil {
		return nil, fmt.Errorf("open slots: %w", err)
	}
	names, err := s.Models()
	if err != nil {
		return nil, fmt.Errorf("open slots: %w", err)
	}
	for _, name := range names {
		if err := durable.Sweep(fsys, "slots.sweep", filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("open slots: %w", err)
		}
	}
	return s, nil
}

// Models lists the models that have a directory, in order.
func (s *Store) Models() ([]string, error) {
	entries, err := s.fsys.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && modelName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// modelName is what a catalog path allows, without a leading dot or dash.
var modelName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Model returns the slots of a model; it need not be on the device yet. The same
// name gives the same Slots.
func (s *Store) Model(name string) (*Slots, error) {
	if !modelName.MatchString(name) {
		return nil, fmt.Errorf("model %q: %w", name, ErrName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.models[name]
	if m == nil {
		m = &Slots{fsys: s.fsys, name: name, dir: filepath.Join(s.dir, name)}
		s.models[name] = m
	}
	return m, nil
}

// Slots are the two places and the pointer of one model.
type Slots struct {
	fsys durable.FS
	name string
	dir  string

	mu     sync.Mutex
	staged string // directory of the open Staging, "" for none
}

// Dir is the directory of a place. CurrentDir is the path that stays the same
// while slots come and go.
func (m *Slots) Dir(p Place) string { return filepath.Join(m.dir, string(p)) }

// CurrentDir is the stable path of the active place.
func (m *Slots) CurrentDir() string { return filepath.Join(m.dir, currentName) }

// Remove takes the model off the device, places, pointer and all.
func (m *Slots) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = ""
	if err := durable.RemoveAll(m.fsys, "slots.remove", m.dir); err != nil {
		return fmt.Errorf("remove model %s: %w", m.name, err)
	}
	return nil
}

// pointer reads a link that must name a place; None when there is none.
func (m *Slots) pointer(name string) (Place, error) {
	target, err := m.fsys.Readlink(filepath.Join(m.dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return None, nil
	case err != nil:
		return None, fmt.Errorf("read pointer %s of %s: %w", name, m.name, err)
	case !Place(target).valid():
		return None, fmt.Errorf("pointer %s of %s leads to %q: %w", name, m.name, target, ErrRecord)
	}
	return Place(target), nil
}
