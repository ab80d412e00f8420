package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func open(t *testing.T, dir string, epoch uint64, limit int64) *Queue {
	t.Helper()
	q, err := Open(Config{FS: durable.OS{}, Dir: dir, Kind: wire.KindEvent, Epoch: epoch, MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func add(t *testing.T, q *Queue, n int) {
	t.Helper()
	for i := range n {
		if _, err := q.Append(fmt.Appendf(nil, "record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func next(t *testing.T, q *Queue, max int) []wire.Record {
	t.Helper()
	rs, err := q.Next(max, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestRecordsSurviveReopen(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 7, 1<<20)
	add(t, q, 10)
	q.Close()
	q = open(t, dir, 7, 1<<20)
	rs := next(t, q, 100)
	if len(rs) != 10 || rs[0].Sequence != 1 || rs[9].Sequence != 10 || string(rs[9].Payload) != "record 9" {
		t.Fatalf("got %d records: %v", len(rs), rs)
	}
	if seq, err := q.Append([]byte("x")); err != nil || seq != 11 {
		t.Fatalf("sequence %d after reopening, %v", seq, err)
	}
}

func TestAckForgets(t *testing.T) {
	q := open(t, t.TempDir(), 7, 1<<20)
	add(t, q, 10)
	if err := q.Ack(7, 4); err != nil {
		t.Fatal(err)
	}
	if rs := next(t, q, 3); len(rs) != 3 || rs[0].Sequence != 5 {
		t.Fatalf("after ack 4: %v", rs)
	}
	if err := q.Ack(99, 100); err != nil { // of an epoch that is not ours
		t.Fatal(err)
	}
	if err := q.Ack(7, 10); err != nil {
		t.Fatal(err)
	}
	if rs := next(t, q, 3); rs != nil {
		t.Fatalf("after everything was acknowledged: %v", rs)
	}
}

func TestFullQueueDropsOldestAndCounts(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 7, 64<<10)
	payload := bytes.Repeat([]byte("a"), 1000)
	for range 200 {
		if _, err := q.Append(payload); err != nil {
			t.Fatal(err)
		}
	}
	dropped := q.State().Dropped
	rs := next(t, q, 1000)
	if dropped == 0 || rs[0].Sequence != dropped+1 || q.State().Last != 200 {
		t.Fatalf("dropped %d, first left %d, last %d", dropped, rs[0].Sequence, q.State().Last)
	}
	if n := q.bytes(); n > 64<<10 {
		t.Fatalf("%d bytes on disk", n)
	}
	q.Close()
	if got := open(t, dir, 7, 64<<10).State().Dropped; got != dropped {
		t.Fatalf("dropped %d after reopening, was %d", got, dropped)
	}
}

func TestTornTailIsCutOff(t *testing.T) {
	for cut := 1; cut < 16; cut++ {
		dir := t.TempDir()
		q := open(t, dir, 7, 1<<20)
		add(t, q, 3)
		q.Close()
		path := q.last().path
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b[:len(b)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		q = open(t, dir, 7, 1<<20)
		if rs := next(t, q, 10); len(rs) != 2 || q.State().Dropped != 0 {
			t.Fatalf("cut %d: %d records, dropped %d", cut, len(rs), q.State().Dropped)
		}
		if seq, err := q.Append([]byte("y")); err != nil || seq != 3 {
			t.Fatalf("cut %d: sequence %d, %v", cut, seq, err)
		}
	}
}

func TestDamageDrawsANewEpoch(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSet(durable.OS{}, dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s.Event, 5)
	s.Close()
	path := s.Event.last().path
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[headerSize+frameSize+2] ^= 1 // inside the first record
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenSet(durable.OS{}, dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Epoch() == s.Epoch() || again.Event.State().Dropped == 0 {
		t.Fatalf("epoch %x, before %x; dropped %d", again.Epoch(), s.Epoch(), again.Event.State().Dropped)
	}
}

// TestDamageWhileItRuns spoils a segment of an open queue: what came before the
// damage and after its segment is handed out, what lies between is counted, and no
// number comes twice.
func TestDamageWhileItRuns(t *testing.T) {
	spoil := map[string]func(path string) error{
		"a flipped byte": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)-1] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
		"no header": func(path string) error { return os.WriteFile(path, []byte("DLQ"), 0o600) },
		"cut":       func(path string) error { return os.Truncate(path, headerSize+4) },
		"gone":      os.Remove,
	}
	for name, f := range spoil {
		for _, which := range []string{"an older segment", "the newest segment"} {
			t.Run(name+" in "+which, func(t *testing.T) {
				q := open(t, t.TempDir(), 1, 1<<20)
				q.c.MaxBytes = 1 << 16 // segments of 4 KiB
				add(t, q, 400)
				bad := q.segments[len(q.segments)-1]
				if which == "an older segment" {
					bad = q.segments[1]
				}
				if err := f(bad.path); err != nil {
					t.Fatal(err)
				}
				got := uint64(0)
				var last uint64
				for i := range 2 {
					for {
						rs, err := q.Next(7, 1<<20)
						if err != nil {
							t.Fatal(err)
						}
						if len(rs) == 0 {
							break
						}
						for _, r := range rs {
							if r.Sequence <= last {
								t.Fatalf("%d after %d", r.Sequence, last)
							}
							last = r.Sequence
						}
						got += uint64(len(rs))
						if err := q.Ack(1, last); err != nil {
							t.Fatal(err)
						}
					}
					if i == 0 {
						add(t, q, 10)
					}
				}
				if st := q.State(); last != 410 || st.Dropped == 0 || st.Dropped > bad.count || got+st.Dropped != 410 {
					t.Errorf("%d handed out up to %d, %d dropped", got, last, st.Dropped)
				}
			})
		}
	}
}

func TestEpochIsKeptAndLostWithAQueue(t *testing.T) {
	dir := t.TempDir()
	epoch := func() uint64 {
		s, err := OpenSet(durable.OS{}, dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Epoch()
	}
	first := epoch()
	if got := epoch(); got != first {
		t.Fatalf("epoch %x after reopening, was %x", got, first)
	}
	if err := os.RemoveAll(filepath.Join(dir, "sample")); err != nil {
		t.Fatal(err)
	}
	if got := epoch(); got == first {
		t.Fatal("a lost queue goes on in the same epoch: its numbers would come again")
	}
}

// TestAckAcrossEpochs drains a queue whose epoch was renewed, twice without a
// record between: every record is handed out once, and nothing is left on disk.
func TestAckAcrossEpochs(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1, 1<<20)
	for epoch, n := range []int{0, 0, 3, 0, 2, 1} {
		if err := q.renew(uint64(epoch + 1)); err != nil {
			t.Fatal(err)
		}
		add(t, q, n)
	}
	var got []mark
	for {
		rs, err := q.Next(2, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) == 0 || len(got) > 10 {
			break
		}
		for _, r := range rs {
			got = append(got, mark{r.Epoch, r.Sequence})
		}
		last := got[len(got)-1]
		for _, m := range []mark{last, {3, 3}, last} { // also one that comes late
			if err := q.Ack(m.epoch, m.sequence); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []mark{{3, 1}, {3, 2}, {5, 1}, {5, 2}, {6, 1}}; !slices.Equal(got, want) {
		t.Errorf("handed out %v, want %v", got, want)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix)); err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
}

// TestAcknowledgedStaysSo acknowledges everything, begins a new epoch and
// acknowledges that: what is written to last cannot be deleted yet when it is
// acknowledged, and must not come back.
func TestAcknowledgedStaysSo(t *testing.T) {
	q := open(t, t.TempDir(), 1, 1<<20)
	for epoch := uint64(1); epoch < 4; epoch++ {
		if err := q.renew(epoch); err != nil {
			t.Fatal(err)
		}
		add(t, q, 3)
		for _, seq := range []uint64{2, 3} {
			rs, err := q.Next(2, 1<<20)
			if err != nil || len(rs) == 0 || rs[0].Epoch != epoch {
				t.Fatalf("epoch %d: handed out %v, %v", epoch, rs, err)
			}
			if err := q.Ack(epoch, seq); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Ack(epoch-1, 3); err != nil { // comes again, late
			t.Fatal(err)
		}
		if rs, err := q.Next(9, 1<<20); err != nil || len(rs) > 0 {
			t.Fatalf("epoch %d: %v came back, %v", epoch, rs, err)
		}
	}
}

// TestRenewBesideAppends draws epochs while records that name theirs come in: each
// names the one that it is numbered in, and no number comes twice. The race
// detector watches.
func TestRenewBesideAppends(t *testing.T) {
	s, err := OpenSet(durable.OS{}, t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const records, epochs = 200, 10
	var g errgroup.Group
	g.Go(func() error {
		for range records {
			if _, err := s.Report.AppendOf(func(epoch, _ uint64) ([]byte, error) { return binary.LittleEndian.AppendUint64(nil, epoch), nil }); err != nil {
				return err
			}
			s.Epoch()
		}
		return nil
	})
	g.Go(func() error {
		for range epochs {
			if err := s.Renew(); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[mark]bool{}
	for {
		rs, err := s.Report.Next(wire.MaxBatch, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			if named := uint64At(r.Payload, 0); named != r.Epoch || seen[mark{r.Epoch, r.Sequence}] {
				t.Fatalf("record %d of epoch %x names %x", r.Sequence, r.Epoch, named)
			}
			seen[mark{r.Epoch, r.Sequence}] = true
		}
		last := rs[len(rs)-1]
		if err := s.Report.Ack(last.Epoch, last.Sequence); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != records {
		t.Fatalf("%d of %d records", len(seen), records)
	}
}

func TestTooLong(t *testing.T) {
	q := open(t, t.TempDir(), 7, 1<<20)
	for _, n := range []int{0, MaxRecord + 1} {
		if _, err := q.Append(make([]byte, n)); !errors.Is(err, ErrTooLong) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("DLQ1"))
	f.Add(make([]byte, headerSize+40))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseHeader(b)
		if len(b) < headerSize {
			return
		}
		if end, _ := scan(b, func([]byte) {}); end < headerSize || end > len(b) {
			t.Fatalf("end %d of %d", end, len(b))
		}
	})
}
