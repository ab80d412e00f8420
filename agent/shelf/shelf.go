// Package shelf puts copies of a slot's files where programs beside the agent read
// them. What such a program does to its copy reaches no slot.
package shelf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// own is what begins a name in a slot that is the device's, such as its runtime's.
const own = "@"

// one at a time is copied: what a power cut left beside is swept first.
var one sync.Mutex

// Put makes dir hold what the folder from does, and nothing else. A copy that is the
// same, byte for byte, stays; else it is made beside, synced and takes the place of
// what was there. It tells whether that was so.
func Put(fsys durable.FS, from, dir string) (changed bool, err error) {
	one.Lock()
	defer one.Unlock()
	files, err := list(fsys, from, "")
	if err != nil {
		return false, fmt.Errorf("copy to %s: %w", dir, err)
	}
	if same(fsys, files, from, dir) {
		return false, nil
	}
	parent := filepath.Dir(dir)
	if err := durable.MkdirAll(fsys, "shelf", parent, 0o755); err != nil {
		return false, err
	}
	if err := durable.Sweep(fsys, "shelf.sweep", parent); err != nil {
		return false, err
	}
	temp, err := durable.TempDir(fsys, "shelf.copy", dir, 0o755)
	if err != nil {
		return false, err
	}
	for _, name := range files {
		if err := put(fsys, filepath.Join(from, name), filepath.Join(temp, name)); err != nil {
			durable.RemoveAll(fsys, "shelf.drop", temp) // else the next call sweeps it
			return false, fmt.Errorf("copy to %s: %w", dir, err)
		}
	}
	if err := durable.RemoveAll(fsys, "shelf.old", dir); err != nil {
		return false, err
	}
	return true, durable.PublishDir(fsys, "shelf.publish", temp, dir)
}

// Drop takes a copy away.
func Drop(fsys durable.FS, dir string) error { return durable.RemoveAll(fsys, "shelf.old", dir) }

// list are the regular files below a folder, by their path from there, in order.
func list(fsys durable.FS, root, at string) ([]string, error) {
	entries, err := fsys.ReadDir(filepath.Join(root, at))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := filepath.Join(at, e.Name())
		switch {
		case at == "" && strings.HasPrefix(name, own):
		case e.IsDir():
			below, err := list(fsys, root, name)
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		case e.Type().IsRegular():
			out = append(out, name)
		default:
			return nil, fmt.Errorf("%s is no file and no folder", name)
		}
	}
	return out, nil
}

func same(fsys durable.FS, files []string, from, dir string) bool {
	have, err := list(fsys, dir, "")
	if err != nil || !slices.Equal(have, files) {
		return false
	}
	for _, name := range files {
		if equal, err := equal(fsys, filepath.Join(from, name), filepath.Join(dir, name)); err != nil || !equal {
			return false
		}
	}
	return true
}

// block is how much is read at a time, in bytes.
const block = 256 << 10

func equal(fsys durable.FS, a, b string) (bool, error) {
	var files [2]durable.File
	for i, path := range []string{a, b} {
		f, err := fsys.OpenFile("shelf.compare", path, durable.ReadOnly, 0)
		if err != nil {
			return false, err
		}
		defer f.Close()
		files[i] = f
	}
	x, y := make([]byte, block), make([]byte, block)
	for {
		n, err := io.ReadFull(files[0], x)
		m, err2 := io.ReadFull(files[1], y)
		switch {
		case n != m || !bytes.Equal(x[:n], y[:m]):
			return false, nil
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return true, nil
		case err != nil || err2 != nil:
			return false, errors.Join(err, err2)
		}
	}
}

func put(fsys durable.FS, from, to string) error {
	if err := durable.MkdirAll(fsys, "shelf.copy", filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := fsys.OpenFile("shelf.read", from, durable.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fsys.OpenFile("shelf.copy", to, durable.CreateNew, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
