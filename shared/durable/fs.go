package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is what durable state needs of a file system; it is wider than an interface
// of ours should be because a file system is. Paths are the operating system's.
// Errors answer errors.Is for fs.ErrNotExist and fs.ErrExist.
//
// Calls that change something, and the opening of a file, carry the name of the
// operation that they belong to. The step is named op + "." + one of open, write,
// truncate, sync, rename, symlink, link, remove, mkdir, syncdir.
type FS interface {
	// OpenFile opens a regular file in one of four ways.
	OpenFile(op, path string, how How, perm fs.FileMode) (File, error)
	// Rename moves an entry within one directory, replacing a file or link that
	// has the new name, atomically.
	Rename(op, from, to string) error
	Symlink(op, target, path string) error
	// Link gives a file a second name; the file's content must be synced by
	// whoever wrote it.
	Link(op, from, to string) error
	// Remove unlinks a file, a link or an empty directory.
	Remove(op, path string) error
	Mkdir(op, path string, perm fs.FileMode) error
	// SyncDir makes the entries of one directory durable.
	SyncDir(op, path string) error

	ReadDir(path string) ([]fs.DirEntry, error) // sorted by name
	Stat(path string) (fs.FileInfo, error)
	Lstat(path string) (fs.FileInfo, error)
	Readlink(path string) (string, error)
}

// File is an open regular file.
type File interface {
	io.ReadWriteCloser
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	// Sync makes content and size durable, not the name. After an error the
	// content is lost: calling it again proves nothing.
	Sync() error
	Stat() (fs.FileInfo, error)
}

// How says how a file is opened.
type How int

// Ways to open a file.
const (
	ReadOnly  How = iota // an existing one
	ReadWrite            // an existing one, from its beginning
	CreateNew            // read and write, fs.ErrExist if it is there
	Append               // an existing one, every write at its end
)

// OS is the real file system.
type OS struct{}

var _ FS = OS{}

// OpenFile implements FS.
func (OS) OpenFile(_, path string, how How, perm fs.FileMode) (File, error) {
	flag := os.O_RDONLY
	switch how {
	case ReadWrite:
		flag = os.O_RDWR
	case CreateNew:
		flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	case Append:
		flag = os.O_RDWR | os.O_APPEND
	}
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in a File
	}
	return f, nil
}

// Rename implements FS.
func (OS) Rename(_, from, to string) error {
	if filepath.Dir(from) != filepath.Dir(to) {
		return fmt.Errorf("rename %s to %s: not the same directory", from, to)
	}
	return os.Rename(from, to)
}

// Symlink implements FS.
func (OS) Symlink(_, target, path string) error { return os.Symlink(target, path) }

// Link implements FS.
func (OS) Link(_, from, to string) error { return os.Link(from, to) }

// Remove implements FS.
func (OS) Remove(_, path string) error { return os.Remove(path) }

// Mkdir implements FS.
func (OS) Mkdir(_, path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// SyncDir implements FS.
func (OS) SyncDir(_, path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadDir implements FS.
func (OS) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

// Stat implements FS.
func (OS) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// Lstat implements FS.
func (OS) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }

// Readlink implements FS.
func (OS) Readlink(path string) (string, error) { return os.Readlink(path) }
