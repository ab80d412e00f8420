package lockbox

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/dunlin-edge/dunlin/fleet"
)

// folder is a directory on a stick, whose file system may hold anything: only
// directories and regular files below it are opened, links are not followed, and
// nothing is read without a bound. Names are one step long, ours or checked.
type folder struct{ root *os.Root }

// openFolder opens the one that an operator names, which may be a link;
// fs.ErrNotExist when there is none.
func openFolder(path string) (folder, error) {
	r, err := os.OpenRoot(path)
	if err != nil {
		return folder{}, refused(err)
	}
	return folder{r}, nil
}

func (f folder) close() { f.root.Close() }

// sub opens a directory in it; fs.ErrNotExist when there is none.
func (f folder) sub(name string) (folder, error) {
	before, err := f.root.Lstat(name)
	if err != nil {
		return folder{}, refused(err)
	}
	if !before.IsDir() {
		return folder{}, fleet.ErrLockboxFolder.With("%s on it is no directory", name)
	}
	r, err := f.root.OpenRoot(name)
	if err != nil {
		return folder{}, refused(err)
	}
	if after, err := r.Stat("."); err != nil || !os.SameFile(before, after) {
		r.Close()
		return folder{}, fleet.ErrLockboxFolder.With("%s on it was changed meanwhile", name)
	}
	return folder{r}, nil
}

// make opens a directory in it, and makes it where there is none.
func (f folder) make(name string) (folder, error) {
	if err := f.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return folder{}, refused(err)
	}
	return f.sub(name)
}

// open opens a regular file; fs.ErrNotExist when there is none. A pipe or a device
// is not even opened, and does not hold us where one took the file's place.
func (f folder) open(name string) (*os.File, error) {
	st, err := f.root.Lstat(name)
	if err != nil {
		return nil, refused(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fleet.ErrLockboxFolder.With("%s on it is no regular file", name)
	}
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, refused(err)
	}
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		file.Close()
		return nil, fleet.ErrLockboxFolder.With("%s on it was changed meanwhile", name)
	}
	return file, nil
}

// read returns a regular file of at most limit bytes.
func (f folder) read(name string, limit int64) ([]byte, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, refused(err)
	}
	if int64(len(b)) > limit {
		return nil, fleet.ErrReceipt.With("%s has more than %d bytes", name, limit)
	}
	return b, nil
}

func (f folder) write(name string, b []byte) error { return f.writeFrom(name, bytes.NewReader(b)) }

// writeFrom puts a file beside its name, synced, and renames it: what had the name
// is replaced and never written through.
func (f folder) writeFrom(name string, from io.Reader) error {
	temp := ".new-" + rand.Text()
	file, err := f.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.root.Remove(temp) // gone already after the rename
	file.Chmod(0o644)         // another user reads it; a stick may know no modes
	if _, err := io.Copy(file, from); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := f.root.Rename(temp, name); err != nil {
		return err
	}
	d, err := f.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// list returns the names of the first entries that are named by a hash.
func (f folder) list() ([]string, error) {
	d, err := f.root.Open(".")
	if err != nil {
		return nil, refused(err)
	}
	defer d.Close()
	all, err := d.Readdirnames(maxReceipts)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, refused(err)
	}
	var names []string
	for _, n := range all {
		if st, err := f.root.Lstat(n); hashName(n) && err == nil && st.Mode().IsRegular() {
			names = append(names, n)
		}
	}
	return names, nil
}

// refused is what a stick's file system did, under our code; fs.ErrNotExist stays
// what it is.
func refused(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("on the stick: %w", err)
	}
	return fleet.ErrLockboxFolder.With("%v", err)
}
