package slots

import (
	"fmt"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Switch makes a complete place active. The way back is on disk before the
// pointer moves: the place that was active until now. Switching to the active
// place does nothing.
func (m *Slots) Switch(to Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.complete(to); err != nil {
		return fmt.Errorf("switch %s: %w", m.name, err)
	}
	from, err := m.pointer(currentName)
	if err != nil || from == to {
		return err
	}
	if from == None {
		err = m.forgetPrevious()
	} else {
		err = m.point("slots.previous", previousName, from)
	}
	if err != nil {
		return fmt.Errorf("switch %s: %w", m.name, err)
	}
	if err := m.point("slots.current", currentName, to); err != nil {
		return fmt.Errorf("switch %s: %w", m.name, err)
	}
	return nil
}

// Back makes the previous place active again; there is no way back afterwards.
// ErrNoWayBack means that nothing changed.
func (m *Slots) Back() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.look()
	if err != nil {
		return err
	}
	if s.Previous == None {
		return fmt.Errorf("go back on %s: %w", m.name, ErrNoWayBack)
	}
	if err := m.point("slots.current", currentName, s.Previous); err != nil {
		return fmt.Errorf("go back on %s: %w", m.name, err)
	}
	// Killed here, the way back leads to the active place, which Look ignores.
	return m.forgetPrevious()
}

// Retire takes the pointer away: nothing serves any more, both places may be
// written to.
func (m *Slots) Retire() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := durable.Remove(m.fsys, "slots.retire", filepath.Join(m.dir, currentName)); err != nil {
		return fmt.Errorf("retire %s: %w", m.name, err)
	}
	return m.forgetPrevious()
}

// Erase empties a place that is not active, with its verdict and with the way
// back that led there.
func (m *Slots) Erase(p Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.erase(p); err != nil {
		return fmt.Errorf("erase place %s of %s: %w", p, m.name, err)
	}
	return nil
}

func (m *Slots) erase(p Place) error {
	active, err := m.pointer(currentName)
	if err != nil {
		return err
	}
	if !p.valid() || p == active {
		return ErrActive
	}
	previous, err := m.pointer(previousName)
	if err != nil {
		return err
	}
	if previous == p {
		if err := m.forgetPrevious(); err != nil {
			return err
		}
	}
	if err := durable.RemoveAll(m.fsys, "slots.erase", m.Dir(p)); err != nil {
		return err
	}
	return durable.Remove(m.fsys, "slots.verdict", m.verdictPath(p))
}

func (m *Slots) point(op, name string, p Place) error {
	return durable.Point(m.fsys, op, filepath.Join(m.dir, name), string(p))
}

func (m *Slots) forgetPrevious() error {
	return durable.Remove(m.fsys, "slots.previous", filepath.Join(m.dir, previousName))
}
