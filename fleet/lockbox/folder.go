package lockbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return w, fleet.ErrLockboxFolder.With("%v", err)
	}
	stick, err := openFolder(dir)
	if err != nil {
		return w, err
	}
	defer stick.close()
	root, err := stick.make(wire.LockboxDir)
	if err != nil {
		return w, err
	}
	defer root.close()
	switch b, err := root.read(wire.LockboxMark, int64(len(wire.LockboxFormat))); {
	case err == nil && string(b) != wire.LockboxFormat, errors.Is(err, fleet.ErrReceipt):
		return w, fleet.ErrLockboxFolder.With("%s holds a lockbox of another format", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return w, err
	}
	folders := map[string]folder{}
	for _, name := range []string{wire.LockboxBlobs, wire.LockboxChannels, wire.LockboxDevices, wire.LockboxReceipts, wire.LockboxRequests, wire.LockboxAnswers} {
		f, err := root.make(name)
		if err != nil {
			return w, err
		}
		defer f.close()
		folders[name] = f
	}
	for _, b := range x.Blobs {
		n, err := writeBlob(ctx, folders[wire.LockboxBlobs], b, fetch)
		if err != nil {
			return w, fmt.Errorf("write %s: %w", b.Digest, err)
		}
		if n > 0 {
			w.Blobs, w.Bytes = w.Blobs+1, w.Bytes+n
		}
	}
	if err := errors.Join(writeAll(folders[wire.LockboxChannels], x.Channels), writeAll(folders[wire.LockboxDevices], x.Devices)); err != nil {
		return w, err
	}
	if err := root.write(wire.LockboxMark, []byte(wire.LockboxFormat)); err != nil {
		return w, fleet.ErrLockboxFolder.With("%v", err)
	}
	return w, nil
}

func writeAll(to folder, files []fleet.LockboxFile) error {
	for _, f := range files {
		if !hashName(f.Name) {
			return fleet.ErrLockboxFolder.With("%q is no name of a file in a lockbox", f.Name)
		}
		if err := to.write(f.Name, f.Bytes); err != nil {
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
func writeBlob(ctx context.Context, to folder, b fleet.LockboxBlob, fetch Fetch) (int64, error) {
	if !bundle.ValidDigest(b.Digest) {
		return 0, fleet.ErrBlobUnknown.With("%q is no digest", b.Digest)
	}
	name := strings.TrimPrefix(b.Digest, "sha256:")
	d := bundle.Descriptor{Digest: b.Digest, Size: b.Size}
	if f, err := to.open(name); err == nil {
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
	return b.Size, to.writeFrom(name, bundle.VerifyReader(r, d))
}

// maxReceipts bounds how many files of a folder are looked at.
const maxReceipts = 100_000

// Receipts calls take with every receipt of the lockbox in dir. Files that are no
// receipts by name or kind are passed over; an error of take is returned at the
// end, when all others were given.
func Receipts(dir string, take func(b []byte) error) error {
	root, err := openLockbox(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fleet.ErrLockboxFolder.With("%s holds no lockbox", dir)
	}
	if err != nil {
		return err
	}
	defer root.close()
	return each(root, wire.LockboxReceipts, wire.MaxReceipt, func(_ folder, _ string, b []byte) error { return take(b) })
}

// Requests calls take with every request to enrol, and writes what it answers under
// the hash of the key that asked. A request that was answered is removed: the device
// knows how to ask again. Where there is no lockbox there is no request.
func Requests(dir string, take func(b []byte) (answer []byte, err error)) error {
	root, err := openLockbox(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.close()
	return each(root, wire.LockboxRequests, maxRequest, func(requests folder, name string, b []byte) error {
		var r wire.EnrolRequest
		if err := json.Unmarshal(b, &r); err != nil {
			return fleet.ErrBadRequest.With("request %s on the stick: %v", name, err)
		}
		answer, err := take(b)
		if err != nil {
			return err
		}
		answers, err := root.make(wire.LockboxAnswers)
		if err != nil {
			return err
		}
		defer answers.close()
		if err := answers.write(fmt.Sprintf("%x", sha256.Sum256(r.PublicKey)), answer); err != nil {
			return fleet.ErrLockboxFolder.With("%v", err)
		}
		return requests.root.Remove(name)
	})
}

// maxRequest is how long a request to enrol may be.
const maxRequest = 64 << 10

// openLockbox opens the lockbox in dir; fs.ErrNotExist when there is none.
func openLockbox(dir string) (folder, error) {
	stick, err := openFolder(dir)
	if err != nil {
		return stick, err
	}
	defer stick.close()
	return stick.sub(wire.LockboxDir)
}

// each reads every regular file of a folder that is named by a hash and not longer
// than limit. A folder that is not there holds none.
func each(root folder, name string, limit int64, take func(in folder, name string, b []byte) error) error {
	in, err := root.sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.close()
	names, err := in.list()
	if err != nil {
		return err
	}
	var all error
	for _, n := range names {
		b, err := in.read(n, limit)
		if err == nil {
			err = take(in, n, b)
		}
		all = errors.Join(all, err)
	}
	return all
}
