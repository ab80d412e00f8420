package link

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var _ trust.Source = Source{}

// serverSim stands in for the session: what the link publishes is handed to
// serve, which answers through the link. The both-ends tests with the real broker
// are in testbed/lab.
type serverSim struct {
	mqtt.Client // the rest is not used
	l           *Link
	serve       func(k wire.Kind, payload []byte)
	refuse      error
}

func (s *serverSim) Publish(topic string, _ byte, _ bool, payload any) mqtt.Token {
	t := &doneToken{err: s.refuse}
	if s.refuse == nil {
		_, _, k, err := wire.ParseTopic(topic)
		if err != nil {
			t.err = err
			return t
		}
		s.serve(k, payload.([]byte))
	}
	return t
}

type doneToken struct {
	mqtt.Token
	err error
}

func (t *doneToken) WaitTimeout(time.Duration) bool { return true }
func (t *doneToken) Error() error                   { return t.err }

// welcomed makes a link whose session is up.
func welcomed(serve func(l *Link, k wire.Kind, payload []byte)) (*Link, *serverSim) {
	l := New(Config{Device: "meter-1", Log: slog.New(slog.DiscardHandler)})
	s := &serverSim{l: l, serve: func(k wire.Kind, b []byte) { serve(l, k, b) }}
	up(l, s)
	return l, s
}

func up(l *Link, s *serverSim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = s
	close(l.up)
}

func encode(msg any) []byte {
	b, err := wire.Encode(msg)
	if err != nil {
		panic(err) // messages of the test's own making
	}
	return b
}

func decodeGet(t *testing.T, b []byte) *wire.Get {
	t.Helper()
	var g wire.Get
	if err := wire.Decode(b, &g); err != nil {
		t.Fatal(err)
	}
	return &g
}

// file is an io.WriterAt that counts how often each byte came.
type file struct {
	b    []byte
	came []int
}

func newFile(n int) *file { return &file{make([]byte, n), make([]int, n)} }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	copy(f.b[off:], p)
	for i := range p {
		f.came[off+int64(i)]++
	}
	return len(p), nil
}

func blob(n int) ([]byte, [32]byte) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b, [32]byte{1, 2, 3}
}

func blockOf(data []byte, digest [32]byte, request uint32, r Range) []byte {
	h := wire.BlockHeader{Request: request, Digest: [16]byte(digest[:16]), Offset: r.Offset, Total: int64(len(data))}
	return wire.EncodeBlock(h, data[r.Offset:r.Offset+r.Length])
}

// Pull brings exactly what is missing, each byte once, whatever else arrives.
func TestPullTakesOnlyWhatItAskedFor(t *testing.T) {
	data, digest := blob(700_000)
	other := make([]byte, len(data))
	l, _ := welcomed(func(l *Link, _ wire.Kind, b []byte) {
		g := decodeGet(t, b)
		for _, r := range g.Blob.Ranges {
			good := blockOf(data, digest, g.Request, r)
			broken := bytes.Clone(good)
			broken[len(broken)-1] ^= 1
			l.answer(wire.KindBlock, broken)
			l.answer(wire.KindBlock, blockOf(other, [32]byte{9}, g.Request, r))
			l.answer(wire.KindBlock, blockOf(other, digest, g.Request+1, r))
			l.answer(wire.KindBlock, blockOf(other, digest, g.Request, Range{Offset: 3, Length: r.Length}))
			l.answer(wire.KindBlock, blockOf(other, digest, g.Request, Range{Offset: r.Offset, Length: r.Length - 1}))
			l.answer(wire.KindBlock, blockOf(append(bytes.Clone(other), 0), digest, g.Request, r))
			l.answer(wire.KindMeta, encode(&wire.Meta{Request: g.Request}))
			l.answer(wire.KindBlock, good)
			l.answer(wire.KindBlock, good)
		}
	})
	f := newFile(len(data))
	missing := []Range{{Offset: 0, Length: 100}, {Offset: 5000, Length: 600_000}, {Offset: 699_999, Length: 1}}
	if err := l.Pull(t.Context(), digest, int64(len(data)), missing, f); err != nil {
		t.Fatal(err)
	}
	for i, n := range f.came {
		want := 0
		for _, r := range missing {
			if int64(i) >= r.Offset && int64(i) < r.Offset+r.Length {
				want = 1
			}
		}
		if n != want || want == 1 && f.b[i] != data[i] {
			t.Fatalf("byte %d came %d times, want %d", i, n, want)
		}
	}
}

// The session is lost in the middle of a window, again and again; what had come
// does not come again.
func TestPullGoesOnInTheNextSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, digest := blob(2_000_000)
		var l *Link
		var s *serverSim
		gets := 0
		l, s = welcomed(func(l *Link, _ wire.Kind, b []byte) {
			gets++
			g := decodeGet(t, b)
			for i, r := range g.Blob.Ranges {
				if gets%2 == 1 && i == 2 {
					l.down()
					time.AfterFunc(time.Minute, func() { up(l, s) })
					return
				}
				l.answer(wire.KindBlock, blockOf(data, digest, g.Request, r))
			}
		})
		f := newFile(len(data))
		if err := l.Pull(t.Context(), digest, int64(len(data)), []Range{{Offset: 0, Length: int64(len(data))}}, f); err != nil {
			t.Fatal(err)
		}
		for i, n := range f.came {
			if n != 1 || f.b[i] != data[i] {
				t.Fatalf("byte %d came %d times", i, n)
			}
		}
		if gets < 3 {
			t.Fatalf("%d requests: nothing was cut", gets)
		}
	})
}

// A session that is gone but not yet noticed is not asked in a tight loop.
func TestPullDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := welcomed(nil)
		s.refuse = errors.New("not connected")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := l.Pull(ctx, [32]byte{}, 10, []Range{{Length: 10}}, newFile(10))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n := l.next; n > 20 {
			t.Fatalf("asked %d times in a second", n)
		}
	})
}

func TestPullHonoursBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, digest := blob(10)
		began, gets := time.Now(), 0
		l, _ := welcomed(func(l *Link, _ wire.Kind, b []byte) {
			g := decodeGet(t, b)
			if gets++; gets < 4 {
				l.answer(wire.KindBusy, encode(&wire.Busy{Request: g.Request, AfterMS: 7000}))
				return
			}
			l.answer(wire.KindBlock, blockOf(data, digest, g.Request, g.Blob.Ranges[0]))
		})
		if err := l.Pull(t.Context(), digest, 10, []Range{{Length: 10}}, newFile(10)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 21*time.Second {
			t.Fatalf("it took %v", d)
		}
	})
}

// A refusal is not asked for again.
func TestPullEndsWhenTheServerRefuses(t *testing.T) {
	gets := 0
	l, _ := welcomed(func(l *Link, _ wire.Kind, b []byte) {
		gets++
		l.answer(wire.KindBusy, encode(&wire.Busy{Request: decodeGet(t, b).Request, Code: "blob.not_assigned"}))
	})
	err := l.Pull(t.Context(), [32]byte{}, 10, []Range{{Length: 10}}, newFile(10))
	var busy *Busy
	if !errors.As(err, &busy) || busy.Code != "blob.not_assigned" || gets != 1 {
		t.Fatalf("%v after %d requests", err, gets)
	}
}

// A server that does not answer is told from one that does.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := welcomed(func(*Link, wire.Kind, []byte) {})
		if err := l.Pull(t.Context(), [32]byte{}, 10, []Range{{Length: 10}}, newFile(10)); !errors.Is(err, errTimeout) {
			t.Errorf("pull: %v", err)
		}
		if _, err := l.Metadata(t.Context(), &wire.Held{}); !errors.Is(err, errTimeout) {
			t.Errorf("metadata: %v", err)
		}
		if len(l.waiting) > 0 {
			t.Errorf("%d requests wait for ever", len(l.waiting))
		}
	})
}

// take covers the missing ranges without gap or overlap, in pieces of the asked
// size.
func TestTake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rest []Range
		at := int64(0)
		for range rapid.IntRange(1, 5).Draw(t, "ranges") {
			at += rapid.Int64Range(1, 1000).Draw(t, "gap")
			n := rapid.Int64Range(1, 1<<20).Draw(t, "length")
			rest = append(rest, Range{Offset: at, Length: n})
			at += n
		}
		want := append([]Range(nil), rest...)
		size := rapid.Int64Range(wire.MinBlock, wire.MaxBlock).Draw(t, "size")
		var got []Range
		for len(rest) > 0 {
			var ask []Range
			ask, rest = take(rest, size)
			if len(ask) == 0 || len(ask) > window {
				t.Fatalf("%d ranges", len(ask))
			}
			g := &wire.Get{Blob: &wire.BlobGet{Ranges: ask}}
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
			for _, r := range ask {
				if n := len(got); n > 0 && got[n-1].Offset+got[n-1].Length == r.Offset {
					got[n-1].Length += r.Length
					continue
				}
				got = append(got, r)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Ranges follow the speed of the line between the limits of the wire.
func TestAdapt(t *testing.T) {
	l := New(Config{})
	for range 10 {
		l.adapt(slowBlock + time.Second)
	}
	if l.blockSize() != wire.MinBlock {
		t.Errorf("slow line: %d", l.blockSize())
	}
	l.adapt(slowBlock / 2)
	if l.blockSize() != wire.MinBlock {
		t.Errorf("neither slow nor fast: %d", l.blockSize())
	}
	for range 10 {
		l.adapt(time.Second)
	}
	if l.blockSize() != wire.MaxBlock {
		t.Errorf("fast line: %d", l.blockSize())
	}
}

// refreshWith answers one refresh with parts.
func refreshWith(t *testing.T, parts ...*wire.Meta) ([]wire.MetaFile, error) {
	t.Helper()
	l, _ := welcomed(func(l *Link, _ wire.Kind, b []byte) {
		g := decodeGet(t, b)
		l.answer(wire.KindMeta, []byte("not CBOR"))
		for _, p := range parts {
			p.Request = g.Request
			l.answer(wire.KindMeta, encode(p))
		}
	})
	return l.Metadata(t.Context(), &wire.Held{})
}

func TestMetadata(t *testing.T) {
	piece := func(role string, off, total int64, b string) wire.MetaFile {
		return wire.MetaFile{Repo: "catalog", Role: role, Version: 1, Offset: off, Total: total, Bytes: []byte(b)}
	}
	got, err := refreshWith(t,
		&wire.Meta{More: true, Files: []wire.MetaFile{piece("root", 0, 2, "{}"), piece("targets", 0, 5, "ab")}},
		&wire.Meta{More: true, Files: []wire.MetaFile{piece("targets", 2, 5, "cd")}},
		&wire.Meta{Files: []wire.MetaFile{piece("targets", 4, 5, "e"), piece("dev", 0, 0, "")}})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, f := range got {
		text = append(text, f.Role+"="+string(f.Bytes))
	}
	if diff := cmp.Diff([]string{"root={}", "targets=abcde", "dev="}, text); diff != "" {
		t.Error(diff)
	}
	if got, err := refreshWith(t, &wire.Meta{}); err != nil || len(got) > 0 {
		t.Errorf("nothing new: %v, %v", got, err)
	}
	for name, parts := range map[string][]*wire.Meta{
		"refused":         {{Error: "catalog.empty"}},
		"begins inside":   {{Files: []wire.MetaFile{piece("root", 1, 2, "}")}}},
		"a gap":           {{Files: []wire.MetaFile{piece("root", 0, 3, "{"), piece("root", 2, 3, "}")}}},
		"out of place":    {{Files: []wire.MetaFile{piece("root", 0, 2, "{"), piece("root", 5, 2, "}")}}},
		"of another role": {{Files: []wire.MetaFile{piece("root", 0, 2, "{"), piece("dev", 1, 2, "}")}}},
		"cut off":         {{Files: []wire.MetaFile{piece("root", 0, 3, "{}")}}},
		"too long":        {{Files: []wire.MetaFile{piece("root", 0, 1, "{}")}}},
	} {
		if got, err := refreshWith(t, parts...); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// However much there is to say and to ask, the server never sees more than 200
// messages at once and 100 a second after that: it would shut the device out.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, sent := time.Now(), 0
		var mu sync.Mutex
		l, client := welcomed(func(l *Link, k wire.Kind, b []byte) {
			mu.Lock()
			sent++
			if limit := 200 + 100*time.Since(began).Seconds(); float64(sent) > limit {
				t.Errorf("%d messages after %v", sent, time.Since(began))
			}
			mu.Unlock()
			if k == wire.KindGet {
				l.answer(wire.KindMeta, encode(&wire.Meta{Request: decodeGet(t, b).Request}))
			}
		})
		s := &session{l: l, client: client}
		var g sync.WaitGroup
		g.Go(func() {
			for range 500 {
				if err := s.publish(t.Context(), wire.KindAnswer, &wire.Answer{}); err != nil {
					t.Error(err)
				}
			}
		})
		g.Go(func() {
			for range 2000 {
				if _, err := l.Metadata(t.Context(), &wire.Held{}); err != nil {
					t.Error(err)
				}
			}
		})
		g.Wait()
		t.Logf("%d messages in %v", sent, time.Since(began))
	})
}

// Everything that waits ends with the session.
func TestDownEndsWhatWaits(t *testing.T) {
	l, _ := welcomed(func(l *Link, _ wire.Kind, _ []byte) { l.down() })
	if _, err := l.Metadata(t.Context(), &wire.Held{}); !errors.Is(err, ErrNoSession) {
		t.Fatal(err)
	}
	if l.Connected() {
		t.Fatal("still connected")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Metadata(ctx, &wire.Held{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// FuzzAnswer hands foreign bytes to a waiting request.
func FuzzAnswer(f *testing.F) {
	data, digest := blob(100)
	f.Add(uint8(0), blockOf(data, digest, 1, Range{Length: 100}))
	f.Add(uint8(1), encode(&wire.Meta{Request: 1, Files: []wire.MetaFile{{Repo: "catalog", Role: "root", Total: 2, Bytes: []byte("{}")}}}))
	f.Add(uint8(2), encode(&wire.Busy{Request: 1, AfterMS: -5}))
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		kinds := []wire.Kind{wire.KindBlock, wire.KindMeta, wire.KindBusy}
		l, _ := welcomed(func(*Link, wire.Kind, []byte) {})
		_, replies, done, err := l.ask()
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		l.answer(kinds[int(i)%len(kinds)], b)
		if len(replies) > 0 {
			if r := <-replies; r.meta != nil {
				var out []wire.MetaFile
				for _, f := range r.meta.Files {
					if out, err = join(out, f); err != nil {
						return
					}
				}
				whole(out)
			}
		}
	})
}

// queueSim is a queue in memory; both-ends tests use the real one.
type queueSim struct {
	mu      sync.Mutex
	records []wire.Record
	acked   []wire.Ack
	rewound []wire.Ack
}

func (q *queueSim) Next(max, _ int) ([]wire.Record, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records[:min(max, len(q.records))], nil
}

func (q *queueSim) Ack(epoch, sequence uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acked = append(q.acked, wire.Ack{Epoch: epoch, Sequence: sequence})
	for len(q.records) > 0 && q.records[0].Epoch == epoch && q.records[0].Sequence <= sequence {
		q.records = q.records[1:]
	}
	return nil
}

func (q *queueSim) Rewind(epoch, sequence uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rewound = append(q.rewound, wire.Ack{Epoch: epoch, Sequence: sequence})
	return nil
}

// A batch is sent once and again only when its acknowledgement does not come; the
// next one waits for it.
func TestDrain(t *testing.T) {
	q := &queueSim{}
	for i := range 2 * wire.MaxBatch {
		q.records = append(q.records, wire.Record{Epoch: 5, Sequence: uint64(i + 1), Payload: []byte{1}})
	}
	var sent []wire.Batch
	l, client := welcomed(func(_ *Link, k wire.Kind, b []byte) {
		var batch wire.Batch
		if err := wire.Decode(b, &batch); err != nil || k != wire.KindEvent {
			t.Fatal(k, err)
		}
		sent = append(sent, batch)
	})
	d := &drain{s: &session{l: l, client: client}, kind: wire.KindEvent, queue: q}
	first := func(n int) uint64 { return sent[n].Records[0].Sequence }
	now := time.Unix(0, 0)
	steps := []struct {
		name  string
		do    func()
		sent  int
		first uint64
	}{
		{"the oldest first", func() { d.step(t.Context(), now) }, 1, 1},
		{"not again at once", func() { d.step(t.Context(), now.Add(resend-1)) }, 1, 1},
		{"again when no acknowledgement comes", func() { d.step(t.Context(), now.Add(resend)) }, 2, 1},
		{"an older acknowledgement is not its", func() { d.acked(wire.Ack{Epoch: 5, Sequence: 0}); d.step(t.Context(), now.Add(resend+1)) }, 2, 1},
		{"nor one of another epoch", func() { d.acked(wire.Ack{Epoch: 4, Sequence: wire.MaxBatch}); d.step(t.Context(), now.Add(resend+1)) }, 2, 1},
		{"the next after its own", func() { d.acked(wire.Ack{Epoch: 5, Sequence: wire.MaxBatch}); d.step(t.Context(), now.Add(resend+1)) }, 3, wire.MaxBatch + 1},
		{"nothing when all is acknowledged", func() {
			d.acked(wire.Ack{Epoch: 5, Sequence: 2 * wire.MaxBatch})
			d.step(t.Context(), now.Add(resend+2))
		}, 3, wire.MaxBatch + 1},
	}
	for _, s := range steps {
		s.do()
		if len(sent) != s.sent || first(len(sent)-1) != s.first {
			t.Fatalf("%s: %d batches, the last from %d", s.name, len(sent), first(len(sent)-1))
		}
	}
	client.refuse = errors.New("not connected")
	q.records = []wire.Record{{Epoch: 5, Sequence: 999, Payload: []byte{1}}}
	d.step(t.Context(), now.Add(time.Hour))
	client.refuse = nil
	d.step(t.Context(), now.Add(time.Hour+1))
	if len(sent) != 4 || first(3) != 999 {
		t.Fatalf("after a publish that did not go out: %d batches", len(sent))
	}
}

// A session that is to begin anew ends at once and is begun without a pause.
func TestReconnect(t *testing.T) {
	l, s := welcomed(func(*Link, wire.Kind, []byte) {})
	l.c.Agent, l.c.Queues = quietDevice{}, nil
	ended := make(chan error)
	x := &session{l: l, client: s, in: make(chan inbound), lost: make(chan error)}
	go func() { ended <- x.serve(t.Context()) }()
	l.Reconnect()
	if err := <-ended; !errors.Is(err, errAnew) {
		t.Errorf("ended with %v", err)
	}
}

// quietDevice says what must be said.
type quietDevice struct{}

func (quietDevice) Hello() *wire.Hello     { return &wire.Hello{Protocols: []int{wire.Protocol}} }
func (quietDevice) Welcomed(*wire.Welcome) {}
func (quietDevice) Asked(*wire.Ask) string { return "" }
