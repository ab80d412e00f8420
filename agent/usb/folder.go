package usb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// folder is a durable.FS below a directory that may hold anything. Paths are
// relative to it. No step of a path may be a link, and none may leave the folder
// or its file system; only regular files and directories are opened. The folder
// itself is opened anew for every call.
type folder struct {
	path     string
	stepwise bool // as on a kernel without openat2
}

var _ durable.FS = folder{}

// beneath is what the kernel shall refuse while it walks a path.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// open walks a path; the kernel does it in one call where it can.
func (f folder) open(path string, flags int, perm fs.FileMode) (*os.File, error) {
	root, err := unix.Open(f.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.path, Err: err}
	}
	defer unix.Close(root)
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK // a pipe of somebody's must not hold us
	}
	how := &unix.OpenHow{Flags: uint64(flags), Resolve: beneath}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	fd, err := -1, error(unix.ENOSYS)
	if !f.stepwise {
		fd, err = unix.Openat2(root, path, how)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) && flags&unix.O_CREAT == 0 {
		fd, err = walk(root, path, flags, uint32(perm.Perm()))
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(f.path, path)), nil
}

// walk is openat2 for kernels that have none: step by step, no step a link or on
// another file system.
func walk(root int, path string, flags int, perm uint32) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, err
	}
	dev, at := st.Dev, root
	defer func() {
		if at != root {
			unix.Close(at)
		}
	}()
	steps := strings.Split(filepath.Clean(path), "/")
	for i, name := range steps {
		if name == ".." || name == "" {
			return 0, unix.EXDEV
		}
		last := i == len(steps)-1
		how := unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if last {
			how = flags
		}
		next, err := unix.Openat(at, name, how, perm)
		if err != nil {
			return 0, err
		}
		if err := unix.Fstat(next, &st); err == nil && st.Dev != dev {
			err = unix.EXDEV
			unix.Close(next)
			return 0, err
		}
		if last {
			return next, nil
		}
		if at != root {
			unix.Close(at)
		}
		at = next
	}
	return 0, unix.EINVAL
}

// OpenFile implements durable.FS.
func (f folder) OpenFile(_, path string, how durable.How, perm fs.FileMode) (durable.File, error) {
	flag := unix.O_RDONLY
	switch how {
	case durable.ReadWrite:
		flag = unix.O_RDWR
	case durable.CreateNew:
		flag = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	case durable.Append:
		flag = unix.O_RDWR | unix.O_APPEND
	}
	file, err := f.open(path, flag, perm)
	if err != nil {
		return nil, err
	}
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		file.Close()
		return nil, errors.Join(err, fmt.Errorf("open %s: no regular file: %w", path, fs.ErrInvalid))
	}
	return file, nil
}

// in opens the directory of a path and calls do with it and the last name.
func (f folder) in(path string, do func(dir int, name string) error) error {
	d, err := f.open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := do(int(d.Fd()), filepath.Base(path)); err != nil {
		return &fs.PathError{Op: "change", Path: path, Err: err}
	}
	return nil
}

// Rename implements durable.FS.
func (f folder) Rename(_, from, to string) error {
	if filepath.Dir(from) != filepath.Dir(to) {
		return fmt.Errorf("rename %s to %s: not the same directory", from, to)
	}
	return f.in(from, func(dir int, name string) error { return unix.Renameat(dir, name, dir, filepath.Base(to)) })
}

// Remove implements durable.FS.
func (f folder) Remove(_, path string) error {
	return f.in(path, func(dir int, name string) error {
		err := unix.Unlinkat(dir, name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
		return err
	})
}

// Mkdir implements durable.FS.
func (f folder) Mkdir(_, path string, perm fs.FileMode) error {
	return f.in(path, func(dir int, name string) error { return unix.Mkdirat(dir, name, uint32(perm.Perm())) })
}

// SyncDir implements durable.FS.
func (f folder) SyncDir(_, path string) error {
	d, err := f.open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maxEntries is how much of a directory is looked at.
const maxEntries = 1000

// ReadDir implements durable.FS for the first entries of a directory.
func (f folder) ReadDir(path string) ([]fs.DirEntry, error) {
	d, err := f.open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxEntries)
	if len(names) == 0 {
		return nil, nil
	}
	var out []fs.DirEntry
	for _, name := range names {
		if st, err := f.Lstat(filepath.Join(path, name)); err == nil {
			out = append(out, fs.FileInfoToDirEntry(st))
		}
	}
	return out, err
}

// Stat implements durable.FS; there are no links to follow.
func (f folder) Stat(path string) (fs.FileInfo, error) { return f.Lstat(path) }

// Lstat implements durable.FS. A link has no info: it is as if it were not usable.
func (f folder) Lstat(path string) (fs.FileInfo, error) {
	file, err := f.open(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

// errLinks is returned for what a stick never gets.
var errLinks = errors.New("a stick has no links")

// Symlink implements durable.FS.
func (folder) Symlink(string, string, string) error { return errLinks }

// Link implements durable.FS.
func (folder) Link(string, string, string) error { return errLinks }

// Readlink implements durable.FS.
func (folder) Readlink(string) (string, error) { return "", errLinks }
