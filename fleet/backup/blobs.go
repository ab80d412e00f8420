package backup

import (
	"fmt"
	"io"
	"slices"

	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Missing names every blob of the backup that is not whole in dir, the directory of a
// server's blobs or a copy of one; empty: there is none.
func (a *Archive) Missing(dir string) (missing []string, err error) {
	if len(a.Blobs) == 0 {
		return nil, nil
	}
	store, err := blob.Look(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range a.Blobs {
		if !bundle.ValidDigest(b.Digest) {
			return nil, damaged("%q is no digest", b.Digest)
		}
		if dir == "" || !whole(store, b) {
			missing = append(missing, b.Digest)
		}
	}
	return missing, nil
}

func whole(store *blob.Dir, b Blob) bool {
	f, err := store.OpenAt(b.Digest)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || b.Size >= 0 && st.Size() != b.Size {
		return false
	}
	_, err = io.Copy(io.Discard, bundle.VerifyReader(f, bundle.Descriptor{Digest: b.Digest, Size: st.Size()}))
	return err == nil
}

// CopyBlobs brings those that are not missing from one directory into another.
func (a *Archive) CopyBlobs(from, into string, missing []string) error {
	source, err := blob.Look(from)
	if err != nil {
		return err
	}
	to, err := blob.Open(into)
	if err != nil {
		return err
	}
	for _, b := range a.Blobs {
		if slices.Contains(missing, b.Digest) {
			continue
		}
		if err := copyBlob(source, to, b.Digest); err != nil {
			return fmt.Errorf("restore blob %s: %w", b.Digest, err)
		}
	}
	return nil
}

func copyBlob(from, into *blob.Dir, digest string) error {
	f, err := from.OpenAt(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return into.Put(digest, f, st.Size())
}
