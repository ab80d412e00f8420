package lockbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Fetch opens a blob of the server's.
type Fetch func(ctx context.Context, digest string) (io.ReadCloser, error)

// Written is what an export put onto a stick.
type Written struct {
	Blobs int   `json:"blobs"` // that were not there already
	Bytes int64 `json:"bytes"` // of those
}

// Write puts an export into dir/dunlin, which may hold an earlier one: its blobs
// that are whole stay, its receipts too. Every file is synced, and the mark comes
// last, so a folder that was taken away too early is no lockbox.
func Write(ctx context.Context, dir string, x *fleet.LockboxExport, fetch Fetch) (Written, error) {
	var w Written
	root := filepath.Join(dir, wire.LockboxDir)
	if b, err := os.ReadFile(filepath.Join(root, wire.LockboxMark)); err == nil && string(b) != wire.LockboxFormat {
		return w, fleet.ErrLockboxFolder.With("%s holds a lockbox of another format", dir)
	}
	for _, d := range []string{wire.LockboxBlobs, wire.LockboxChannels, wire.LockboxDevices, wire.LockboxReceipts, wire.LockboxRequests, wire.LockboxAnswers} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return w, fleet.ErrLockboxFolder.With("%v", err)
		}
	}
	for _, b := range x.Blobs {
		n, err := writeBlob(ctx, root, b, fetch)
		if err != nil {
			return w, fmt.Errorf("write %s: %w", b.Digest, err)
		}
		if n > 0 {
			w.Blobs, w.Bytes = w.Blobs+1, w.Bytes+n
		}
	}
	err := errors.Join(writeAll(filepath.Join(root, wire.LockboxChannels), x.Channels), writeAll(filepath.Join(root, wire.LockboxDevices), x.Devices))
	if err != nil {
		return w, err
	}
	if err := writeFile(filepath.Join(root, wire.LockboxMark), []byte(wire.LockboxFormat)); err != nil {
		return w, fleet.ErrLockboxFolder.With("%v", err)
	}
	return w, nil
}

func writeAll(folder string, files []fleet.LockboxFile) error {
	for _, f := range files {
		if !hashName(f.Name) {
			return fleet.ErrLockboxFolder.With("%q is no name of a file in a lockbox", f.Name)
		}
		if err := writeFile(filepath.Join(folder, f.Name), f.Bytes); err != nil {
			return fleet.ErrLockboxFolder.With("%v", err)
		}
	}
	return nil
}

// hashName tells whether a name is a SHA-256 in hex.
func hashName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == sha256.Size && strings.ToLower(name) == name
}

// writeBlob returns how many bytes were written: none when the blob is there.
func writeBlob(ctx context.Context, root string, b fleet.LockboxBlob, fetch Fetch) (int64, error) {
	if !bundle.ValidDigest(b.Digest) {
		return 0, fleet.ErrBlobUnknown.With("%q is no digest", b.Digest)
	}
	path := filepath.Join(root, wire.LockboxBlobs, strings.TrimPrefix(b.Digest, "sha256:"))
	d := bundle.Descriptor{Digest: b.Digest, Size: b.Size}
	if f, err := os.Open(path); err == nil {
		_, err = io.Copy(io.Discard, bundle.VerifyReader(f, d))
		f.Close()
		if err == nil {
			return 0, nil
		}
	}
	r, err := fetch(ctx, b.Digest)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return b.Size, write(path, bundle.VerifyReader(r, d))
}

func writeFile(path string, b []byte) error { return write(path, bytes.NewReader(b)) }

// write puts a file beside its name, synced, and renames it.
func write(path string, from io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after the rename
	f.Chmod(0o644)            // another user reads it; a stick may know no modes
	if _, err := io.Copy(f, from); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maxReceipts bounds how many files of a folder are looked at.
const maxReceipts = 100_000

// Receipts calls take with every receipt of the lockbox in dir. Files that are no
// receipts by name or kind are passed over; an error of take is returned at the
// end, when all others were given.
func Receipts(dir string, take func(b []byte) error) error {
	if _, err := os.Stat(filepath.Join(dir, wire.LockboxDir)); err != nil {
		return fleet.ErrLockboxFolder.With("%s holds no lockbox", dir)
	}
	return each(filepath.Join(dir, wire.LockboxDir, wire.LockboxReceipts), wire.MaxReceipt, func(_ string, b []byte) error { return take(b) })
}

// Requests calls take with every request to enrol and writes what it answers beside
// them. A request that was answered is removed: the device knows how to ask again.
func Requests(dir string, take func(b []byte) (answer []byte, err error)) error {
	root := filepath.Join(dir, wire.LockboxDir)
	return each(filepath.Join(root, wire.LockboxRequests), maxRequest, func(name string, b []byte) error {
		answer, err := take(b)
		if err != nil {
			return err
		}
		folder := filepath.Join(root, wire.LockboxAnswers)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fleet.ErrLockboxFolder.With("%v", err)
		}
		if err := writeFile(filepath.Join(folder, name), answer); err != nil {
			return fleet.ErrLockboxFolder.With("%v", err)
		}
		return os.Remove(filepath.Join(root, wire.LockboxRequests, name))
	})
}

// maxRequest is how long a request to enrol may be.
const maxRequest = 64 << 10

// each reads every regular file that is named by a hash and not longer than limit.
func each(folder string, limit int64, take func(name string, b []byte) error) error {
	root, err := os.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fleet.ErrLockboxFolder.With("%v", err)
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return fleet.ErrLockboxFolder.With("%v", err)
	}
	defer d.Close()
	entries, err := d.ReadDir(maxReceipts)
	if err != nil && !errors.Is(err, io.EOF) {
		return fleet.ErrLockboxFolder.With("%v", err)
	}
	var all error
	for _, e := range entries {
		if !e.Type().IsRegular() || !hashName(e.Name()) {
			continue
		}
		b, err := readAtMost(root, e.Name(), limit)
		if err == nil {
			err = take(e.Name(), b)
		}
		all = errors.Join(all, err)
	}
	return all
}

func readAtMost(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, fleet.ErrLockboxFolder.With("%v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fleet.ErrLockboxFolder.With("%v", err)
	}
	if int64(len(b)) > limit {
		return nil, fleet.ErrReceipt.With("%s has more than %d bytes", name, limit)
	}
	return b, nil
}
