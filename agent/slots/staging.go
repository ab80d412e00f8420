package slots

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Staging is a slot being filled beside its place.
type Staging struct {
	m     *Slots
	dir   string // until published or dropped
	files []File
}

// Stage begins a slot for the inactive place. What the place holds stays until
// Publish. A Staging that was begun before and not published is dropped.
func (m *Slots) Stage() (*Staging, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := durable.MkdirAll(m.fsys, "slots.model", m.dir, 0o755); err != nil {
		return nil, fmt.Errorf("stage %s: %w", m.name, err)
	}
	if err := durable.Sweep(m.fsys, "slots.sweep", m.dir); err != nil {
		return nil, fmt.Errorf("stage %s: %w", m.name, err)
	}
	dir, err := durable.TempDir(m.fsys, "slots.stage", filepath.Join(m.dir, "place"), 0o755)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", m.name, err)
	}
	m.staged = dir
	return &Staging{m: m, dir: dir}, nil
}

// Add puts a verified file into the slot, by a hard link where the file system
// has them, and reads it once more: what is staged has the digest it says.
func (s *Staging) Add(f File, from string) error {
	if err := s.admit(f); err != nil {
		return fmt.Errorf("stage %s: %w", s.m.name, err)
	}
	to, err := s.prepare(f.Name)
	if err != nil {
		return fmt.Errorf("stage %s: %w", s.m.name, err)
	}
	if err := s.m.fsys.Link("slots.file", from, to); err != nil {
		if err := s.copy(from, to, f.Size); err != nil {
			return fmt.Errorf("stage %s: %w", f.Name, err)
		}
	}
	if err := s.m.verifyFile(to, f); err != nil {
		s.m.fsys.Remove("slots.file", to) // the place for another try
		return fmt.Errorf("stage %s: %w", s.m.name, err)
	}
	s.files = append(s.files, f)
	return nil
}

// Reuse adds a file that one of the two places holds already, whole; false means
// that it has to be fetched.
func (s *Staging) Reuse(f File) (bool, error) {
	state, err := s.m.Look()
	if err != nil {
		return false, fmt.Errorf("stage %s: %w", s.m.name, err)
	}
	for _, p := range []Place{A, B} {
		for _, have := range state.Slot(p).Files {
			if have.Digest != f.Digest || have.Size != f.Size {
				continue
			}
			err := s.Add(f, filepath.Join(s.m.Dir(p), filepath.FromSlash(have.Name)))
			if !errors.Is(err, ErrDigest) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

func (s *Staging) admit(f File) error {
	if s.dir == "" {
		return fs.ErrClosed
	}
	if err := f.check(); err != nil {
		return err
	}
	for _, have := range s.files {
		if have.Name == f.Name {
			return fmt.Errorf("file %q twice: %w", f.Name, ErrName)
		}
	}
	return nil
}

// prepare makes the directories of a file; like the file, Publish syncs them.
func (s *Staging) prepare(name string) (string, error) {
	dir := s.dir
	for _, part := range strings.Split(path.Dir(name), "/") {
		if part == "." {
			break
		}
		dir = filepath.Join(dir, part)
		if err := s.m.fsys.Mkdir("slots.dir", dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return filepath.Join(dir, path.Base(name)), nil
}

func (s *Staging) copy(from, to string, size int64) error {
	in, err := s.m.fsys.OpenFile("", from, durable.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	return s.write("slots.file", to, io.LimitReader(in, size+1))
}

// write fills a staged file; Publish syncs it.
func (s *Staging) write(op, path string, content io.Reader) error {
	out, err := s.m.fsys.OpenFile(op, path, durable.CreateNew, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// Publish makes the slot appear whole in the inactive place, replacing what the
// place held, with its verdict and with the way back that led there. Killed in
// between, the place is empty or complete. The note is the caller's own JSON. After
// an error the staged slot can only be dropped.
func (s *Staging) Publish(pair Pair, note []byte) (Place, error) {
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.dir == "" || m.staged != s.dir {
		return None, fmt.Errorf("publish slot of %s: %w", m.name, fs.ErrClosed)
	}
	record, err := encodeRecord(&Record{Pair: pair, Files: s.files, Note: note})
	if err != nil {
		return None, fmt.Errorf("publish slot of %s: %w", m.name, err)
	}
	state, err := m.look()
	if err != nil {
		return None, err
	}
	if err := s.write("slots.record", filepath.Join(s.dir, RecordName), bytes.NewReader(record)); err != nil {
		return None, fmt.Errorf("publish slot of %s: %w", m.name, err)
	}
	p := state.Inactive()
	if err := m.erase(p); err != nil {
		return None, fmt.Errorf("publish slot of %s: %w", m.name, err)
	}
	if err := durable.PublishDir(m.fsys, "slots.publish", s.dir, m.Dir(p)); err != nil {
		return None, fmt.Errorf("publish slot of %s: %w", m.name, err)
	}
	s.dir, m.staged = "", ""
	return p, nil
}

// Drop removes what was staged. After Publish it does nothing.
func (s *Staging) Drop() error {
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.dir == "" || m.staged != s.dir {
		return nil
	}
	dir := s.dir
	s.dir, m.staged = "", ""
	if err := durable.RemoveAll(m.fsys, "slots.drop", dir); err != nil {
		return fmt.Errorf("drop staged slot of %s: %w", m.name, err)
	}
	return nil
}
