// Package blobtest is what every store of blobs must keep: one suite, run on each
// implementation.
package blobtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Store keeps blobs by their digest.
type Store interface {
	// Has tells whether a blob is here whole, and its size.
	Has(digest string) (size int64, ok bool, err error)
	// Put stores what r holds, at most limit bytes. ErrBlobMismatch: it is longer
	// or not what the digest says; ErrBlobUnknown: the digest is none. After an
	// error nothing is here. A blob that is here already is not read again.
	Put(digest string, r io.Reader, limit int64) error
	// Open reads a blob; the error wraps fs.ErrNotExist when it is not here.
	Open(digest string) (io.ReadCloser, error)
}

const limit = 1 << 20

// Run runs the suite on empty stores.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Run("comes back", func(t *testing.T) { comesBack(t, open(t)) })
	t.Run("refusals leave nothing", func(t *testing.T) { refusals(t, open(t)) })
	t.Run("is not read again", func(t *testing.T) { notAgain(t, open(t)) })
	t.Run("many at once", func(t *testing.T) { together(t, open(t)) })
}

func comesBack(t *testing.T, s Store) {
	for _, size := range []int{0, 1, 4096, limit} {
		data := bytes.Repeat([]byte{7}, size)
		digest := bundle.DigestOf(data)
		if err := s.Put(digest, iotest.HalfReader(bytes.NewReader(data)), limit); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if n, ok, err := s.Has(digest); n != int64(size) || !ok || err != nil {
			t.Errorf("%d bytes: has %d, %v, %v", size, n, ok, err)
		}
		f, err := s.Open(digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read back %d, %v", size, len(got), err)
		}
	}
}

func refusals(t *testing.T, s Store) {
	data := []byte("a model")
	digest := bundle.DigestOf(data)
	broken := errors.New("the connection broke")
	for _, c := range []struct {
		name, digest string
		r            io.Reader
		limit        int64
		want         error
	}{
		{"other bytes", bundle.DigestOf([]byte("another")), bytes.NewReader(data), limit, fleet.ErrBlobMismatch},
		{"fewer bytes", digest, bytes.NewReader(data[:3]), limit, fleet.ErrBlobMismatch},
		{"bytes behind it", digest, bytes.NewReader(append(data, 'x')), limit, fleet.ErrBlobMismatch},
		{"longer than the limit", digest, bytes.NewReader(data), 6, fleet.ErrBlobMismatch},
		{"a reader that breaks", digest, io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), limit, broken},
		{"a path", "sha256:../../etc/passwd", bytes.NewReader(data), limit, fleet.ErrBlobUnknown},
		{"a short digest", "sha256:00", bytes.NewReader(data), limit, fleet.ErrBlobUnknown},
		{"another kind of digest", "sha512:" + digest[7:], bytes.NewReader(data), limit, fleet.ErrBlobUnknown},
		{"no digest", "", bytes.NewReader(data), limit, fleet.ErrBlobUnknown},
	} {
		if err := s.Put(c.digest, c.r, c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, ok, _ := s.Has(c.digest); ok {
			t.Errorf("%s: is here", c.name)
		}
		if f, err := s.Open(c.digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: opened %v, %v", c.name, f, err)
		}
	}
	if err := s.Put(digest, bytes.NewReader(data), 7); err != nil {
		t.Errorf("exactly the limit, after all that: %v", err)
	}
}

func notAgain(t *testing.T, s Store) {
	data := []byte("a model")
	digest := bundle.DigestOf(data)
	if err := s.Put(digest, bytes.NewReader(data), limit); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(digest, iotest.ErrReader(errors.New("read")), limit); err != nil {
		t.Error(err)
	}
}

func together(t *testing.T, s Store) {
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			data := []byte(fmt.Sprint("blob ", n%4))
			digest := bundle.DigestOf(data)
			if err := s.Put(digest, iotest.OneByteReader(bytes.NewReader(data)), limit); err != nil {
				t.Error(err)
			}
			if _, ok, err := s.Has(digest); !ok || err != nil {
				t.Errorf("blob %d: %v, %v", n, ok, err)
			}
		})
	}
	all.Wait()
}
