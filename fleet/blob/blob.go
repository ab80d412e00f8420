// Package blob keeps blobs by their SHA-256 in a directory. What is there is
// whole: a blob appears under its name only after its bytes were compared with
// it and synced.
package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Dir is a directory of blobs. It is safe for concurrent use, also by several
// processes; an upload that is under way when another process opens the directory
// fails and may be repeated.
type Dir struct{ path string }

// Open uses dir, which is made when missing, and removes uploads that never ended.
func Open(dir string) (*Dir, error) {
	d := &Dir{filepath.Join(dir, "sha256")}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(d.path, tempPattern))
	if err != nil {
		return nil, err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open blobs: %w", err)
		}
	}
	return d, nil
}

// Look uses dir as it is, to read from: nothing is made or removed. A missing one
// is empty.
func Look(dir string) (*Dir, error) {
	st, err := os.Stat(dir)
	switch {
	case dir == "" || errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open blobs: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("open blobs: %s is no directory", dir)
	}
	return &Dir{filepath.Join(dir, "sha256")}, nil
}

const tempPattern = "upload-*"

func (d *Dir) file(digest string) (string, error) {
	if !bundle.ValidDigest(digest) {
		return "", fleet.ErrBlobUnknown.With("%q is no digest", digest)
	}
	return filepath.Join(d.path, digest[len("sha256:"):]), nil
}

// Has tells whether a blob is here, and its size.
func (d *Dir) Has(digest string) (size int64, ok bool, err error) {
	p, err := d.file(digest)
	if err != nil {
		return 0, false, err
	}
	st, err := os.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("blob %s: %w", digest, err)
	}
	return st.Size(), true, nil
}

// Put stores what r holds, at most limit bytes; ErrBlobMismatch when it is not
// what the digest says. A blob that is here already is not read again.
func (d *Dir) Put(digest string, r io.Reader, limit int64) error {
	p, err := d.file(digest)
	if err != nil {
		return err
	}
	if _, ok, err := d.Has(digest); ok || err != nil {
		return err
	}
	f, err := os.CreateTemp(d.path, tempPattern)
	if err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	defer os.Remove(f.Name()) // gone already after the rename
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(r, limit+1))
	if err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	if n > limit {
		return fleet.ErrBlobMismatch.With("a blob may have %d bytes, this one has more", limit)
	}
	if err := d.compare(f, digest, n); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	if err := os.Rename(f.Name(), p); err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	return syncDir(d.path)
}

func (d *Dir) compare(f *os.File, digest string, size int64) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, bundle.VerifyReader(f, bundle.Descriptor{Digest: digest, Size: size})); err != nil {
		return fleet.ErrBlobMismatch.With("%v", err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open implements bundle.Blobs: an error that wraps fs.ErrNotExist when the blob
// is not here. The file can also be read at any offset.
func (d *Dir) Open(digest string) (io.ReadCloser, error) { return d.OpenAt(digest) }

// OpenAt is Open for callers who read at offsets.
func (d *Dir) OpenAt(digest string) (*os.File, error) {
	p, err := d.file(digest)
	if err != nil {
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	f, err := os.Open(p)
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // where the server keeps its files is nobody's business
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	return f, nil
}

// Remove removes a blob; one that is not here is none.
func (d *Dir) Remove(digest string) error {
	p, err := d.file(digest)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return nil
}

// List names every blob that is here.
func (d *Dir) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if digest := "sha256:" + e.Name(); bundle.ValidDigest(digest) {
			out = append(out, digest)
		}
	}
	return out, nil
}
