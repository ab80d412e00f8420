package queue

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// clock is a time that a test sets.
type clock struct{ now time.Time }

func keeping(t *testing.T, dir string, epoch uint64, limit int64, c *clock) *Queue {
	t.Helper()
	q := open(t, dir, epoch, limit)
	if err := q.keep(48*time.Hour, func() time.Time { return c.now }); err != nil {
		t.Fatal(err)
	}
	return q
}

// numbers are the sequences that wait, oldest first, over all epochs.
func numbers(t *testing.T, q *Queue) (out []uint64) {
	t.Helper()
	bs, err := q.Waiting(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bs {
		for _, r := range b.Records {
			out = append(out, r.Sequence)
		}
	}
	return out
}

func from(first, last uint64) (out []uint64) {
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

// TestRewind acknowledges everything and has the server forget: what it does not
// know comes again, in order, once; after a restart too.
func TestRewind(t *testing.T) {
	const n = 3000 // several segments
	for _, c := range []struct {
		about           string
		epoch, sequence uint64
		restart         bool
		want            []uint64
	}{
		{"knows everything", 7, n, false, nil},
		{"knows everything, after a restart", 7, n, true, nil},
		{"knows half", 7, n / 2, false, from(n/2+1, n)},
		{"knows half, after a restart", 7, n / 2, true, from(n/2+1, n)},
		{"knows nothing", 0, 0, false, from(1, n)},
		{"knows nothing, after a restart", 0, 0, true, from(1, n)},
		{"means another epoch", 8, 1, false, nil},
	} {
		dir, at := t.TempDir(), &clock{time.Unix(1_800_000_000, 0)}
		q := keeping(t, dir, 7, 256<<10, at)
		add(t, q, n)
		if err := q.Ack(7, n); err != nil {
			t.Fatal(err)
		}
		if got := numbers(t, q); got != nil {
			t.Fatalf("%s: %d wait after everything was acknowledged", c.about, len(got))
		}
		if c.restart {
			q.Close()
			q = keeping(t, dir, 7, 256<<10, at)
		}
		for range 2 { // every hello is answered so
			if err := q.Rewind(c.epoch, c.sequence); err != nil {
				t.Fatal(err)
			}
			// What is in the segment that is written to waits after any restart,
			// until a welcome acknowledges it.
			if err := q.Ack(c.epoch, c.sequence); err != nil {
				t.Fatal(err)
			}
		}
		if got := numbers(t, q); !slices.Equal(got, c.want) {
			t.Errorf("%s: %d wait, want %d", c.about, len(got), len(c.want))
		}
		if err := q.Ack(7, n); err != nil {
			t.Fatal(err)
		}
		if got := numbers(t, q); got != nil {
			t.Errorf("%s: %d wait at the end", c.about, len(got))
		}
	}
}

// TestNewEpochIsNotForgotten wants nothing to come again when the server knows
// nothing of an epoch in which nothing was acknowledged yet.
func TestNewEpochIsNotForgotten(t *testing.T) {
	dir, at := t.TempDir(), &clock{time.Unix(1_800_000_000, 0)}
	q := keeping(t, dir, 7, 256<<10, at)
	add(t, q, 1000)
	if err := q.renew(9); err != nil {
		t.Fatal(err)
	}
	if err := q.Ack(7, 1000); err != nil {
		t.Fatal(err)
	}
	if err := q.Rewind(0, 0); err != nil {
		t.Fatal(err)
	}
	if got := numbers(t, q); got != nil {
		t.Errorf("%d come again", len(got))
	}
	// With something acknowledged the server has forgotten, the older epoch too.
	add(t, q, 3)
	if err := q.Ack(9, 3); err != nil {
		t.Fatal(err)
	}
	if err := q.Rewind(0, 0); err != nil {
		t.Fatal(err)
	}
	if got := numbers(t, q); len(got) != 1003 {
		t.Errorf("%d come again, want 1003", len(got))
	}
}

// TestKeptGives wants what is kept to give way: to time, and to what is not
// acknowledged; none of that is counted as dropped.
func TestKeptGives(t *testing.T) {
	files := func(dir string) int {
		names, err := filepath.Glob(filepath.Join(dir, "*"+keptSuffix))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	dir, at := t.TempDir(), &clock{time.Unix(1_800_000_000, 0)}
	q := keeping(t, dir, 7, 64<<10, at)
	add(t, q, 1000)
	if err := q.Ack(7, 1000); err != nil || files(dir) == 0 {
		t.Fatalf("%d files kept, %v", files(dir), err)
	}
	at.now = at.now.Add(48*time.Hour - time.Second)
	add(t, q, 1)
	if files(dir) == 0 {
		t.Error("nothing is kept for 48 hours")
	}
	at.now = at.now.Add(time.Second)
	add(t, q, 1)
	if n := files(dir); n != 0 {
		t.Errorf("%d files kept after 48 hours", n)
	}

	dir = t.TempDir()
	q = keeping(t, dir, 7, 64<<10, at)
	add(t, q, 1000)
	if err := q.Ack(7, 1000); err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for added := 0; added < 6000; added += 100 {
		add(t, q, 100)
		bytes = q.bytes()
		for _, k := range q.kept {
			bytes += k.size
		}
		if bytes > 64<<10 {
			t.Fatalf("the queue has %d bytes", bytes)
		}
		if st := q.State(); st.Dropped > 0 {
			if files(dir) > 0 {
				t.Errorf("%d dropped while %d files are kept", st.Dropped, files(dir))
			}
			break
		}
	}
	if st := q.State(); st != (wire.QueueState{Kind: wire.KindEvent, Last: st.Last, Dropped: st.Dropped}) || st.Dropped == 0 {
		t.Errorf("%+v", st)
	}
}
