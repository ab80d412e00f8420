// Package durable is the only way state reaches the disk of a device: a file is
// written beside its name, synced, renamed over the name, and the directory is
// synced. After a power cut the old or the new file is there, whole.
//
// Each call names its operation ("slots.verdict"); the steps inside it carry the
// name with the step behind it ("slots.verdict.sync"), so that a test can fail or
// stop exactly there. The steps go through FS, of which OS is the real one and
// crashfs.FS one that loses everything that was not synced.
//
// A sync that fails loses the file: the kernel may have dropped the written pages
// and marked them clean, so the temporary file is removed, the error returned and
// the same descriptor never synced again. The caller starts over.
//
// Calls on different paths may run at the same time. Two writers of one path are
// safe, and one of them wins.
package durable

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
)

// tempName returns a sibling of path that Sweep recognises.
func tempName(path, mark string) string {
	dir, base := filepath.Split(path)
	return dir + "." + base + mark + fmt.Sprintf("%08x", rand.Uint32())
}

const (
	markTemp  = ".tmp-"   // being written
	markTrash = ".trash-" // being removed
)

// IsTemp tells whether a directory entry is left over from an operation that did
// not end. Names of this form are taken: .NAME.tmp-XXXXXXXX, .NAME.trash-XXXXXXXX.
func IsTemp(name string) bool {
	if len(name) < 9 || name[0] != '.' {
		return false
	}
	stem, hexa := name[:len(name)-8], name[len(name)-8:]
	if _, err := hex.DecodeString(hexa); err != nil {
		return false
	}
	return strings.HasSuffix(stem, markTemp) || strings.HasSuffix(stem, markTrash)
}

// Sweep removes what interrupted operations left in dir itself, not below it. It
// must not run while somebody writes there; owners call it when they open dir. A
// missing dir is empty.
func Sweep(fsys FS, op, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", dir, err)
	}
	swept := false
	for _, e := range entries {
		if !IsTemp(e.Name()) {
			continue
		}
		swept = true
		if err := removeTree(fsys, op, filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
	}
	if !swept {
		return nil
	}
	return fsys.SyncDir(op, dir)
}

// ReadFile returns a whole file of at most limit bytes.
func ReadFile(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile("", path, ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: longer than %d bytes", path, limit)
	}
	return b, nil
}

// WriteFile puts data at path; the directory must exist. When it returns nil the
// file survives a power cut; when it returns an error the old file is unharmed,
// except that after a failed directory sync either one may be found.
func WriteFile(fsys FS, op, path string, data []byte, perm fs.FileMode) error {
	w, err := Create(fsys, op, path, perm)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit()
}

// Writer is a file on its way to its name.
type Writer struct {
	fsys FS
	op   string
	path string
	temp string
	file File // nil once committed or aborted
}

// Create starts a file that appears at path, replacing what is there, when Commit
// returns. Abort may always be deferred.
func Create(fsys FS, op, path string, perm fs.FileMode) (*Writer, error) {
	temp := tempName(path, markTemp)
	f, err := fsys.OpenFile(op, temp, CreateNew, perm)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &Writer{fsys: fsys, op: op, path: path, temp: temp, file: f}, nil
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if w.file == nil {
		return 0, fs.ErrClosed
	}
	return w.file.Write(p)
}

// Commit makes the file durable at its path. After an error the file is gone.
func (w *Writer) Commit() error {
	if w.file == nil {
		return fs.ErrClosed
	}
	if err := w.file.Sync(); err != nil {
		w.Abort()
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	err := w.file.Close()
	w.file = nil
	if err == nil {
		err = w.fsys.Rename(w.op, w.temp, w.path)
	}
	if err != nil {
		w.fsys.Remove(w.op, w.temp) // best effort: Sweep finds it too
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := w.fsys.SyncDir(w.op, filepath.Dir(w.path)); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	return nil
}

// Abort drops the file unless it is committed.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	w.file.Close()
	w.file = nil
	w.fsys.Remove(w.op, w.temp) // best effort: Sweep finds it too
}

// Point makes path a symbolic link to target, replacing a link or file that is
// there from one instant to the next.
func Point(fsys FS, op, path, target string) error {
	temp := tempName(path, markTemp)
	if err := fsys.Symlink(op, target, temp); err != nil {
		return fmt.Errorf("point %s to %s: %w", path, target, err)
	}
	if err := fsys.Rename(op, temp, path); err != nil {
		fsys.Remove(op, temp) // best effort: Sweep finds it too
		return fmt.Errorf("point %s to %s: %w", path, target, err)
	}
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil {
		return fmt.Errorf("point %s to %s: %w", path, target, err)
	}
	return nil
}

// PublishFile makes a file that somebody else has written beside path durable and
// renames it over path. It must be closed.
func PublishFile(fsys FS, op, temp, path string) error {
	if filepath.Dir(temp) != filepath.Dir(path) {
		return fmt.Errorf("publish %s: %s is not beside it", path, temp)
	}
	if err := syncFile(fsys, op, temp); err != nil {
		fsys.Remove(op, temp) // lost: what is in it is not known
		return fmt.Errorf("publish %s: %w", path, err)
	}
	if err := fsys.Rename(op, temp, path); err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	return nil
}
