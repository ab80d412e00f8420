package trust

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fetcher is a source of blobs that does what it likes.
type fetcher func(missing []Range, w io.WriterAt) error

func (fetcher) Refresh(context.Context, Held) ([]File, error) { return nil, nil }

// Fetch implements Source.
func (f fetcher) Fetch(_ context.Context, _ Blob, missing []Range, w io.WriterAt) error {
	return f(missing, w)
}

// sends is a source that writes bytes at an offset and says that this was all.
func sends(b []byte, at int64) fetcher {
	return func(_ []Range, w io.WriterAt) error { _, err := w.WriteAt(b, at); return err }
}

// TestWrongSources downloads from sources that send too little, too much or other
// bytes and say that this was all. Nothing but the right bytes gets the blob's name;
// what was sent into its right place waits for the next source, in two files that a
// sweep knows, and an honest source brings the rest.
func TestWrongSources(t *testing.T) {
	right := bytes.Repeat([]byte("right"), 2000)
	wrong := bytes.Repeat([]byte("wrong"), 2000)
	length := int64(len(right))
	digest := "sha256:" + hashOf(string(right))
	for _, c := range []struct {
		name string
		src  fetcher
		code string
		kept string // noted ranges; empty: no file is left
		then string // code of the honest download that follows
	}{
		{"nothing", func([]Range, io.WriterAt) error { return nil }, CodeBlob, "null", ""},
		{"the beginning", sends(right[:4000], 0), CodeBlob, `[{"Offset":0,"Length":4000}]`, ""},
		{"all but a byte", sends(right[:length-1], 0), CodeBlob, `[{"Offset":0,"Length":9999}]`, ""},
		{"the end", sends(right[4000:], 4000), CodeBlob, `[{"Offset":4000,"Length":6000}]`, ""},
		{"all but the middle", func(m []Range, w io.WriterAt) error {
			return errors.Join(sends(right[:10], 0)(m, w), sends(right[20:], 20)(m, w))
		}, CodeBlob, `[{"Offset":0,"Length":10},{"Offset":20,"Length":9980}]`, ""},
		{"a wrong beginning", sends(wrong[:4000], 0), CodeBlob, `[{"Offset":0,"Length":4000}]`, CodeBlob},
		{"more at once", sends(append(bytes.Clone(right), 0), 0), CodeTooLarge, "null", ""},
		{"more behind it", func(m []Range, w io.WriterAt) error {
			return errors.Join(sends(right, 0)(m, w), sends([]byte("more"), length)(m, w))
		}, CodeTooLarge, `[{"Offset":0,"Length":10000}]`, ""},
		{"far behind", sends([]byte("x"), 1<<40), CodeTooLarge, "null", ""},
		{"at the greatest offset", sends(right, math.MaxInt64), CodeTooLarge, "null", ""},
		{"before it", sends([]byte("x"), -1), CodeTooLarge, "null", ""},
		{"at the least offset", sends(right, math.MinInt64), CodeTooLarge, "null", ""},
		{"other bytes of its length", sends(wrong, 0), CodeBlob, "", ""},
		{"one other bit", sends(append(bytes.Clone(right[:length-1]), right[length-1]^1), 0), CodeBlob, "", ""},
		{"zeros", sends(make([]byte, length), 0), CodeBlob, "", ""},
		{"right, then wrong over it", func(m []Range, w io.WriterAt) error {
			return errors.Join(sends(right, 0)(m, w), sends(wrong[:7], 3)(m, w))
		}, CodeBlob, "", ""},
		{"more, and takes no notice", func(m []Range, w io.WriterAt) error {
			sends([]byte("more"), length)(m, w)
			return sends(right, 0)(m, w)
		}, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.device("meter-1")
			blobs := filepath.Join(d.dir, "blobs")
			before := snapshot(t, filepath.Join(d.dir, "trust"))
			_, err := d.c.Download(t.Context(), c.src, digest, length)
			if got := refusalCode(err); got != c.code || (err == nil) != (c.code == "") {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if c.code != "" {
				if _, ok := d.c.Have(digest); ok {
					t.Fatal("the blob has its name")
				}
				wantKept(t, blobs, digest, c.kept)
			}
			d.open("meter-1") // as after a restart
			honest := fetcher(func(missing []Range, w io.WriterAt) error {
				for _, r := range missing {
					if err := sends(right[r.Offset:r.Offset+r.Length], r.Offset)(nil, w); err != nil {
						return err
					}
				}
				return nil
			})
			if _, err := d.c.Download(t.Context(), honest, digest, length); refusalCode(err) != c.then || (err == nil) != (c.then == "") {
				t.Fatalf("an honest source after it: %v, want %q", err, c.then)
			}
			if c.then != "" {
				wantKept(t, blobs, digest, "")
			}
			p, err := d.c.Download(t.Context(), honest, digest, length)
			w.must(err)
			if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, right) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if left, _ := filepath.Glob(filepath.Join(blobs, "*")); len(left) != 1 {
				t.Errorf("beside the blob: %v", left)
			}
			if diff := cmp.Diff(before, snapshot(t, filepath.Join(d.dir, "trust"))); diff != "" {
				t.Errorf("metadata changed: %s", diff)
			}
		})
	}
}

func refusalCode(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// wantKept wants a part with a note of these ranges, or nothing, and nothing else.
func wantKept(t *testing.T, blobs, digest, ranges string) {
	t.Helper()
	name := filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:"))
	left, err := filepath.Glob(filepath.Join(blobs, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if ranges == "" {
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		return
	}
	if diff := cmp.Diff([]string{name + haveSuffix, name + partSuffix}, left); diff != "" {
		t.Error(diff)
	}
	if b, err := os.ReadFile(name + haveSuffix); err != nil || string(b) != ranges {
		t.Errorf("noted %s, want %s, %v", b, ranges, err)
	}
	if st, err := os.Stat(name + partSuffix); err != nil || st.Size() > 10_000 {
		t.Errorf("part of %d bytes, %v", st.Size(), err)
	}
}
