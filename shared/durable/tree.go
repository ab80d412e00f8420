package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// MkdirAll makes dir and what is missing above it, and makes each name durable
// in the directory that holds it.
func MkdirAll(fsys FS, op, dir string, perm fs.FileMode) error {
	switch info, err := fsys.Stat(dir); {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("make %s: %w", dir, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make %s: %w", dir, err)
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return fmt.Errorf("make %s: %w", dir, fs.ErrNotExist)
	}
	if err := MkdirAll(fsys, op, parent, perm); err != nil {
		return err
	}
	if err := fsys.Mkdir(op, dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := fsys.SyncDir(op, parent); err != nil {
		fsys.Remove(op, dir) // or the next call would take the name for durable
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}

// TempDir makes an empty directory beside final, to be filled and published
// there, or to be found by Sweep.
func TempDir(fsys FS, op, final string, perm fs.FileMode) (string, error) {
	temp := tempName(final, markTemp)
	if err := fsys.Mkdir(op, temp, perm); err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", final, err)
	}
	return temp, nil
}

// PublishDir makes the tree temp durable and renames it to final, a sibling that
// must not exist. After a power cut final is whole or not there.
func PublishDir(fsys FS, op, temp, final string) error {
	parent := filepath.Dir(final)
	if filepath.Dir(temp) != parent {
		return fmt.Errorf("publish %s: %s is not beside it", final, temp)
	}
	if _, err := fsys.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("publish %s: %w", final, err)
	}
	if err := SyncTree(fsys, op, temp); err != nil {
		return fmt.Errorf("publish %s: %w", final, err)
	}
	if err := fsys.Rename(op, temp, final); err != nil {
		return fmt.Errorf("publish %s: %w", final, err)
	}
	if err := fsys.SyncDir(op, parent); err != nil {
		return fmt.Errorf("publish %s: %w", final, err)
	}
	return nil
}

// SyncTree syncs every file and directory below dir, and dir itself. Symbolic
// links are durable with the directory that holds them and are not followed.
func SyncTree(fsys FS, op, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = SyncTree(fsys, op, path)
		case e.Type().IsRegular():
			err = syncFile(fsys, op, path)
		}
		if err != nil {
			return err
		}
	}
	return fsys.SyncDir(op, dir)
}

func syncFile(fsys FS, op, path string) error {
	f, err := fsys.OpenFile(op, path, ReadOnly, 0)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// Remove unlinks one file or link for good. A missing one is no error.
func Remove(fsys FS, op, path string) error {
	if err := fsys.Remove(op, path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// RemoveAll removes a tree so that path never names half of it: it is renamed
// away, the rename made durable, then deleted. A missing path is no error.
func RemoveAll(fsys FS, op, path string) error {
	trash := tempName(path, markTrash)
	if err := fsys.Rename(op, path, trash); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := removeTree(fsys, op, trash); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// removeTree deletes without syncing: what a power cut leaves is found by Sweep.
func removeTree(fsys FS, op, path string) error {
	info, err := fsys.Lstat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := fsys.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := removeTree(fsys, op, filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return fsys.Remove(op, path)
}
