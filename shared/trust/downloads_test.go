package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// keeper is a source that keeps what it may write to, to write again when the
// blob has long been verified.
type keeper struct {
	*world
	mu      sync.Mutex
	writers []io.WriterAt
}

func (k *keeper) Fetch(ctx context.Context, b Blob, missing []Range, w io.WriterAt) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writers = append(k.writers, w)
	return k.world.Fetch(ctx, b, missing, w)
}

func (w *world) blob(size int) (digest string, data []byte) {
	data = bytes.Repeat([]byte("block "), size/6+1)[:size]
	sum := sha256.Sum256(data)
	w.blobs[sum] = data
	return "sha256:" + hex.EncodeToString(sum[:]), data
}

// TestOneDownloadOfABlobAtATime lets two models want one runtime: one fetches it,
// and nobody can change it afterwards.
func TestOneDownloadOfABlobAtATime(t *testing.T) {
	k := &keeper{world: newWorld(t)}
	d := k.device("meter-1")
	digest, data := k.blob(100_000)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := d.c.Download(t.Context(), k, digest, int64(len(data))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(k.writers) != 1 {
		t.Errorf("fetched %d times", len(k.writers))
	}
	for _, w := range k.writers {
		if _, err := w.WriteAt([]byte("EVIL"), 0); err == nil {
			t.Error("a source writes to a verified blob")
		}
	}
	p, _ := d.c.Have(digest)
	if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, data) {
		t.Error("the verified blob has changed", err)
	}
}

// TestWaitingForADownloadEnds with its context, and a blob that is on its way is
// neither forgotten nor swept.
func TestWaitingForADownloadEnds(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	digest, data := w.blob(1000)
	b, err := parseDigest(digest)
	if err != nil {
		t.Fatal(err)
	}
	done, err := d.c.downloads.begin(t.Context(), b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(d.dir, "blobs", hex.EncodeToString(b.Digest[:])+partSuffix)
	if err := os.WriteFile(part, data[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.c.Download(ctx, w, digest, int64(len(data))); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v", err)
	}
	if err := errors.Join(d.c.Forget(digest), d.c.Sweep(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); err != nil {
		t.Errorf("a blob on its way: %v", err)
	}
	done()
	if _, err := d.c.Download(t.Context(), w, digest, int64(len(data))); err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	var digests []string
	for size := range 3 {
		digest, data := w.blob(1000 + size)
		digests = append(digests, digest)
		if _, err := d.c.Download(t.Context(), w, digest, int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	w.cutAfter = 1000
	cut, data := w.blob(2000)
	if _, err := d.c.Download(t.Context(), w, cut, int64(len(data))); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	other := filepath.Join(d.dir, "blobs", "lost+found")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.c.Sweep(map[string]bool{digests[1]: true}); err != nil {
		t.Fatal(err)
	}
	keep, _ := d.c.Have(digests[1])
	left, err := filepath.Glob(filepath.Join(d.dir, "blobs", "*"))
	if err != nil || len(left) != 2 || left[0] != keep && left[1] != keep {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if err := d.c.Sweep(nil); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}
