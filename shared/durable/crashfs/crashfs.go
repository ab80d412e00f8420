// Package crashfs is a file system in memory that forgets: what was not synced
// may be gone after a crash, in every order that a disk may write things back.
// It is for tests of what runs on durable.FS, and is not linked into programs.
//
// The model is harsher than any one file system: writes to a file persist as any
// prefix, the last one torn, or as a hole of zeros when only the size arrived;
// changes to a directory's entries persist as any subset, in order per name, but
// a rename is atomic; a synced file does not make its name durable, nor a synced
// directory the content of its files. A failed sync loses the writes for good: a
// later sync reports success and does not bring them back.
//
// Not modelled: renames across directories, permissions, damage to what was synced.
package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Step is one call that changes something or syncs it.
type Step struct {
	Label string // operation and verb: "slots.verdict.sync"
	Path  string
}

// What Before may return instead of an error of its own.
var (
	// ErrSkip makes the step report success and do nothing.
	ErrSkip = errors.New("skip this step")
	// ErrDelay makes the step report success; Late does it.
	ErrDelay = errors.New("do this step later")
)

// FS implements durable.FS. Before and After, when set, are called around every
// step; an error of Before fails the step.
type FS struct {
	Before func(Step) error
	After  func(Step)

	mu   sync.Mutex
	root *node
	late []func()
}

var _ durable.FS = (*FS)(nil)

// New returns an empty file system.
func New() *FS { return &FS{root: newDir()} }

// do runs one step. lose is called when Before fails it.
func (f *FS) do(s Step, lose func(), effect func() error) error {
	if f.Before != nil {
		switch err := f.Before(s); {
		case errors.Is(err, ErrSkip):
			return nil
		case errors.Is(err, ErrDelay):
			f.late = append(f.late, func() { f.locked(effect) })
			return nil
		case err != nil:
			f.locked(func() error { lose(); return nil })
			return &fs.PathError{Op: s.Label, Path: s.Path, Err: err}
		}
	}
	if err := f.locked(effect); err != nil {
		return &fs.PathError{Op: s.Label, Path: s.Path, Err: err}
	}
	if f.After != nil {
		f.After(s)
	}
	return nil
}

func (f *FS) locked(effect func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return effect()
}

// Late does what was delayed.
func (f *FS) Late() {
	late := f.late
	f.late = nil
	for _, effect := range late {
		effect()
	}
}

func nothing() {}

// maxLinks bounds the symbolic links followed in one path.
const maxLinks = 16

// find resolves a path, following links, the last one only when follow is set.
func (f *FS) find(p string, follow bool) (*node, error) {
	p = path.Clean("/" + p)
	for range maxLinks {
		n, rest, at := f.root, strings.Split(p, "/")[1:], "/"
		again := ""
		for i, name := range rest {
			if name == "" {
				break
			}
			if n.kind != dir {
				return nil, errNotDir
			}
			child := n.entries[name]
			if child == nil {
				return nil, fs.ErrNotExist
			}
			if child.kind == link && (follow || i+1 < len(rest)) {
				target := child.target
				if !path.IsAbs(target) {
					target = path.Join(at, target)
				}
				again = path.Join(append([]string{target}, rest[i+1:]...)...)
				break
			}
			n, at = child, path.Join(at, name)
		}
		if again == "" {
			return n, nil
		}
		p = again
	}
	return nil, errors.New("too many levels of symbolic links")
}

var errNotDir = errors.New("not a directory")

// parent resolves the directory of a path and returns it with the last name.
func (f *FS) parent(p string) (*node, string, error) {
	n, err := f.find(path.Dir(path.Clean("/"+p)), true)
	if err != nil {
		return nil, "", err
	}
	if n.kind != dir {
		return nil, "", errNotDir
	}
	return n, path.Base(p), nil
}

// OpenFile implements durable.FS.
func (f *FS) OpenFile(op, p string, how durable.How, _ fs.FileMode) (durable.File, error) {
	if how != durable.CreateNew {
		f.mu.Lock()
		defer f.mu.Unlock()
		n, err := f.find(p, true)
		if err == nil && n.kind == dir {
			err = errors.New("is a directory")
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		return &file{fsys: f, op: op, path: p, node: n, how: how}, nil
	}
	n := &node{kind: regular}
	err := f.do(Step{op + ".open", p}, nothing, func() error {
		d, name, err := f.parent(p)
		if err != nil {
			return err
		}
		if d.entries[name] != nil {
			return fs.ErrExist
		}
		d.change(entries{name: n})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &file{fsys: f, op: op, path: p, node: n, how: how}, nil
}

// Rename implements durable.FS.
func (f *FS) Rename(op, from, to string) error {
	return f.do(Step{op + ".rename", to}, nothing, func() error {
		d, old, err := f.parent(from)
		if err != nil {
			return err
		}
		d2, name, err := f.parent(to)
		if err != nil {
			return err
		}
		n := d.entries[old]
		switch there := d.entries[name]; {
		case d != d2:
			return errors.New("not the same directory")
		case n == nil:
			return fs.ErrNotExist
		case there != nil && there.kind == dir && len(there.entries) > 0:
			return fs.ErrExist
		case there != nil && (there.kind == dir) != (n.kind == dir):
			return fs.ErrExist
		}
		d.change(entries{old: nil, name: n})
		return nil
	})
}

// add makes a new entry.
func (f *FS) add(s Step, n func() (*node, error)) error {
	return f.do(s, nothing, func() error {
		made, err := n()
		if err != nil {
			return err
		}
		d, name, err := f.parent(s.Path)
		if err != nil {
			return err
		}
		if d.entries[name] != nil {
			return fs.ErrExist
		}
		d.change(entries{name: made})
		return nil
	})
}

// Symlink implements durable.FS.
func (f *FS) Symlink(op, target, p string) error {
	return f.add(Step{op + ".symlink", p}, func() (*node, error) { return &node{kind: link, target: target}, nil })
}

// Mkdir implements durable.FS.
func (f *FS) Mkdir(op, p string, _ fs.FileMode) error {
	return f.add(Step{op + ".mkdir", p}, func() (*node, error) { return newDir(), nil })
}

// Link implements durable.FS.
func (f *FS) Link(op, from, to string) error {
	return f.add(Step{op + ".link", to}, func() (*node, error) {
		n, err := f.find(from, false)
		if err == nil && n.kind == dir {
			err = errors.New("is a directory")
		}
		return n, err
	})
}

// Remove implements durable.FS.
func (f *FS) Remove(op, p string) error {
	return f.do(Step{op + ".remove", p}, nothing, func() error {
		d, name, err := f.parent(p)
		if err != nil {
			return err
		}
		switch n := d.entries[name]; {
		case n == nil:
			return fs.ErrNotExist
		case n.kind == dir && len(n.entries) > 0:
			return fs.ErrExist
		}
		d.change(entries{name: nil})
		return nil
	})
}

// SyncDir implements durable.FS.
func (f *FS) SyncDir(op, p string) error {
	var n *node
	err := f.locked(func() (err error) {
		if n, err = f.find(p, true); err == nil && n.kind != dir {
			err = errNotDir
		}
		return err
	})
	if err != nil {
		return &fs.PathError{Op: "sync", Path: p, Err: err}
	}
	return f.do(Step{op + ".syncdir", p}, n.lose, func() error { n.sync(); return nil })
}

// ReadDir implements durable.FS.
func (f *FS) ReadDir(p string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(p, true)
	if err == nil && n.kind != dir {
		err = errNotDir
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: err}
	}
	var out []fs.DirEntry
	for name, child := range n.entries {
		out = append(out, fs.FileInfoToDirEntry(info{name, child}))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

func (f *FS) stat(p string, follow bool) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(p, follow)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: p, Err: err}
	}
	return info{path.Base(p), n}, nil
}

// Stat implements durable.FS.
func (f *FS) Stat(p string) (fs.FileInfo, error) { return f.stat(p, true) }

// Lstat implements durable.FS.
func (f *FS) Lstat(p string) (fs.FileInfo, error) { return f.stat(p, false) }

// Readlink implements durable.FS.
func (f *FS) Readlink(p string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(p, false)
	if err == nil && n.kind != link {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: p, Err: err}
	}
	return n.target, nil
}

// Names lists every path below the root, directories with a slash behind them.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	f.root.names("", &out)
	slices.Sort(out)
	return out
}

// Settle makes everything durable, as if time had passed.
func (f *FS) Settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.root.universe() {
		n.settle()
	}
}

// file is an open file.
type file struct {
	fsys *FS
	op   string
	path string
	node *node
	how  durable.How
	at   int64
	shut bool
}

func (f *file) usable(write bool) error {
	if f.shut {
		return fs.ErrClosed
	}
	if write && f.how == durable.ReadOnly {
		return fs.ErrPermission
	}
	return nil
}

// Read implements durable.File.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt implements durable.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	if err := f.usable(false); err != nil {
		return 0, err
	}
	if off < 0 || off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write implements durable.File.
func (f *file) Write(p []byte) (int, error) {
	if f.how == durable.Append {
		f.fsys.mu.Lock()
		f.at = int64(len(f.node.data))
		f.fsys.mu.Unlock()
	}
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

// WriteAt implements durable.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.usable(true); err != nil {
		return 0, err
	}
	err := f.step("write", nothing, func() error {
		f.node.write(edit{off: off, data: slices.Clone(p)})
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate implements durable.File.
func (f *file) Truncate(size int64) error {
	if err := f.usable(true); err != nil {
		return err
	}
	return f.step("truncate", nothing, func() error {
		f.node.write(edit{off: size, cut: true})
		return nil
	})
}

// Sync implements durable.File.
func (f *file) Sync() error {
	if err := f.usable(false); err != nil {
		return err
	}
	return f.step("sync", f.node.lose, func() error { f.node.sync(); return nil })
}

func (f *file) step(verb string, lose func(), effect func() error) error {
	return f.fsys.do(Step{f.op + "." + verb, f.path}, lose, effect)
}

// Stat implements durable.File.
func (f *file) Stat() (fs.FileInfo, error) {
	if err := f.usable(false); err != nil {
		return nil, err
	}
	return info{path.Base(f.path), f.node}, nil
}

// Close implements durable.File.
func (f *file) Close() error {
	if f.shut {
		return fmt.Errorf("close %s: %w", f.path, fs.ErrClosed)
	}
	f.shut = true
	return nil
}
