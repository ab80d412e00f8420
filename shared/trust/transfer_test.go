package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// transfer is a blob on its way to a device's disk: cut once, gone on with,
// downloaded whole.
type transfer struct {
	data    []byte
	sum     [32]byte
	pieces  int // until the line is cut; 0: it is not
	fetched int // bytes since the last crash
}

const (
	pieceSize = 1024
	cutPieces = 3 // two are noted because they are enough, the third because of the cut
)

func newTransfer() *transfer {
	data := bytes.Repeat([]byte("0123456789abcdef"), (cutPieces*pieceSize+500)/16)
	return &transfer{data: data, sum: sha256.Sum256(data)}
}

func (d *transfer) digest() string { return "sha256:" + hex.EncodeToString(d.sum[:]) }

func (d *transfer) Refresh(context.Context, Held) ([]File, error) { return nil, errCut }

// Fetch implements Source.
func (d *transfer) Fetch(_ context.Context, _ Blob, missing []Range, w io.WriterAt) error {
	sent := 0
	for _, r := range missing {
		for at := r.Offset; at < r.Offset+r.Length; at += pieceSize {
			if sent++; d.pieces > 0 && sent > d.pieces {
				return errCut
			}
			piece := d.data[at:min(at+pieceSize, r.Offset+r.Length)]
			if _, err := w.WriteAt(piece, at); err != nil {
				return err
			}
			d.fetched += len(piece)
		}
	}
	return nil
}

// client is one for blobs alone: it needs no metadata.
func (d *transfer) client(f durable.FS) *Client {
	return &Client{c: Config{FS: f, Blobs: "/blobs"}, noteEvery: 2 * pieceSize}
}

func (d *transfer) download(f durable.FS) error {
	_, err := d.client(f).Download(context.Background(), d, d.digest(), int64(len(d.data)))
	return err
}

func (d *transfer) whole(f durable.FS) error {
	p, ok := d.client(f).Have(d.digest())
	if !ok {
		return errors.New("the blob is gone")
	}
	if b, err := durable.ReadFile(f, p, MaxBlob); err != nil || !bytes.Equal(b, d.data) {
		return fmt.Errorf("%s is not what its digest says: %w", p, err)
	}
	return nil
}

// inspect wants the blob whole under its name or not at all, and then goes on:
// what was noted is not fetched again, nothing has to be thrown away.
func (d *transfer) inspect(f durable.FS, done int) error {
	_, have := d.client(f).Have(d.digest())
	if done >= 2 || have {
		if err := d.whole(f); err != nil {
			return err
		}
	}
	pieces, fetched := d.pieces, d.fetched
	defer func() { d.pieces, d.fetched = pieces, fetched }()
	d.pieces, d.fetched = 0, 0
	if err := d.download(f); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	if allowed := len(d.data) - min(done, 1)*cutPieces*pieceSize; d.fetched > allowed {
		return fmt.Errorf("%d bytes were fetched again, %d were missing", d.fetched, allowed)
	}
	if names := f.(*crashfs.FS).Names(); len(names) != 2 {
		return fmt.Errorf("left: %q", names)
	}
	return d.whole(f)
}

func (d *transfer) explore(x crashfs.Explorer) (crashfs.Result, error) {
	f := crashfs.New()
	if err := f.Mkdir("setup", "/blobs", 0); err != nil {
		return crashfs.Result{}, err
	}
	f.Settle()
	d.fetched, d.pieces = 0, cutPieces
	inspected := map[[32]byte]bool{}
	x.Check = func(after *crashfs.FS, done int) error {
		key := digest(after, done, false)
		if inspected[key] {
			return nil
		}
		inspected[key] = true
		if err := durable.Sweep(after, "sweep", "/blobs"); err != nil {
			return err
		}
		return d.inspect(after, done)
	}
	return x.Run(f, func(f durable.FS, done func()) error {
		if err := d.download(f); !errors.Is(err, errCut) {
			return fmt.Errorf("the line was cut, the download says %w", err)
		}
		done()
		d.pieces = 0
		if err := d.download(f); err != nil {
			return err
		}
		done()
		return nil
	})
}

func TestCrashesInDownload(t *testing.T) {
	r, err := newTransfer().explore(crashfs.Explorer{Limit: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("2 operations, %d crash points, %d states", len(r.Labels)+3, r.States)
}

// Any step may fail: the download says so, nothing wrong gets the blob's name
// whatever crash comes then, and the next try works.
func TestEveryStepOfADownloadMayFail(t *testing.T) {
	broken, steps, states := errors.New("input/output error"), 0, 0
	for i := 0; ; i++ {
		d, f, n, label := newTransfer(), crashfs.New(), -1, ""
		if err := f.Mkdir("setup", "/blobs", 0); err != nil {
			t.Fatal(err)
		}
		f.Settle()
		f.Before = func(s crashfs.Step) error {
			if n++; n == i {
				label = s.Label
				return broken
			}
			return nil
		}
		crash := func(done int) {
			f.Crashes(16, rand.New(rand.NewPCG(1, 2)), func(after *crashfs.FS) bool {
				states++
				if _, have := d.client(after).Have(d.digest()); have || done > 0 {
					if err := d.whole(after); err != nil {
						t.Errorf("step %d %s fails, after a crash: %v; on disk: %q", i, label, err, after.Names())
					}
				}
				return true
			})
		}
		d.pieces = cutPieces
		said := d.download(f)
		crash(0)
		d.pieces = 0
		if err := d.download(f); err != nil {
			said = errors.Join(said, err)
			crash(0)
		}
		if label == "" {
			break // there are no more steps
		}
		steps++
		if !errors.Is(said, broken) && !strings.HasSuffix(label, ".remove") {
			t.Errorf("step %d %s fails, nobody says so: %v", i, label, said)
		}
		if err := d.download(f); err != nil {
			t.Errorf("step %d %s fails, the next try: %v", i, label, err)
		}
		crash(1)
	}
	t.Logf("%d failing steps, %d states", steps, states)
}
