package broker

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// A message that is not understood changes nothing, whatever its topic; the
// session goes on.
func TestMalformedOnEveryTopic(t *testing.T) {
	r := start(t)
	d := r.device(t, "meter-1")
	d.Write(subscribePacket(0, wire.DownFilter("meter-1")))
	bad := map[string][]byte{
		"nothing":         {},
		"not CBOR":        []byte("\xff\xff"),
		"text":            []byte(`{"protocols":[1]}`),
		"unknown key":     {0xa1, 0x18, 99, 0},
		"key twice":       {0xa2, 1, 0x81, 1, 1, 0x81, 1},
		"of another kind": encode(t, &wire.Ask{ID: "x", Verb: "report"}),
		"cut off":         {0xa1, 1, 0x81},
		"deep":            bytes.Repeat([]byte{0x81}, 10_000),
		"huge array":      {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"endless map":     {0xbf, 0xff},
	}
	kinds := []wire.Kind{wire.KindHello, wire.KindGet, wire.KindReport, wire.KindSample, wire.KindEvent}
	for _, k := range kinds {
		for name, b := range bad {
			d.Write(publishPacket(wire.UpTopic("meter-1", k), 0, false, b))
			if err := r.handle("meter-1", k, b); !errors.Is(err, wire.ErrMalformed) || code(err) != "wire.malformed" {
				t.Errorf("%s on %s: %v, code %s", name, k, err, code(err))
			}
		}
	}
	if got := d.fence(t); len(got) > 0 {
		t.Errorf("answered with %v", got)
	}
	// What is behind them on the same connections is handled, so they were too.
	d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindHello), 0, false, encode(t, &wire.Hello{Protocols: []int{1}})))
	d.receive(t, wire.DownTopic("meter-1", wire.KindWelcome))
	if got := r.sim.of("meter-1"); !cmp.Equal(got, []wire.Kind{wire.KindHello}) {
		t.Errorf("the application heard %v", got)
	}
}

func TestHelloAndRecords(t *testing.T) {
	r := start(t)
	d := r.device(t, "meter-1")
	d.Write(subscribePacket(0, wire.DownFilter("meter-1")))
	d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindHello), 0, false, encode(t, &wire.Hello{Protocols: []int{1}, Generation: 7})))
	var w wire.Welcome
	decode(t, d.receive(t, wire.DownTopic("meter-1", wire.KindWelcome)), &w)
	if w.Generation != 7 {
		t.Fatalf("%+v", w)
	}
	for _, k := range []wire.Kind{wire.KindReport, wire.KindSample, wire.KindEvent} {
		b := &wire.Batch{Records: []wire.Record{{Epoch: 3, Sequence: 1, Payload: []byte{1}}, {Epoch: 3, Sequence: 2, Payload: []byte{2}}}}
		d.Write(publishPacket(wire.UpTopic("meter-1", k), 0, false, encode(t, b)))
		var a wire.Ack
		decode(t, d.receive(t, wire.DownTopic("meter-1", wire.KindAck)), &a)
		if want := (wire.Ack{Kind: k, Epoch: 3, Sequence: 2}); a != want {
			t.Errorf("%+v, want %+v", a, want)
		}
	}
	if err := r.Ask("meter-1", &wire.Ask{ID: "a", Verb: "report"}); err != nil {
		t.Fatal(err)
	}
	var a wire.Ask
	decode(t, d.receive(t, wire.DownTopic("meter-1", wire.KindAsk)), &a)
	if a.Verb != "report" {
		t.Errorf("%+v", a)
	}
}

// What the application could not store is not acknowledged; a refresh that it
// could not answer is told so.
func TestNoAckWithoutStore(t *testing.T) {
	r := start(t)
	r.sim.fail(errors.New("disk full"))
	d := r.device(t, "meter-1")
	d.Write(subscribePacket(0, wire.DownFilter("meter-1")))
	event := func(sequence uint64) {
		b := &wire.Batch{Records: []wire.Record{{Epoch: 3, Sequence: sequence, Payload: []byte{1}}}}
		d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindEvent), 0, false, encode(t, b)))
		r.sim.await(t, call{device: "meter-1", kind: wire.KindEvent})
	}
	event(1)
	d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindGet), 0, false, encode(t, &wire.Get{Request: 9, Refresh: &wire.Held{}})))
	r.sim.await(t, call{device: "meter-1", kind: wire.KindGet})
	r.sim.fail(nil)
	event(2)
	var m wire.Meta
	var a wire.Ack
	for m.Request == 0 || a.Kind == "" { // each comes on a connection of its own
		head, body, err := d.next(patience)
		if err != nil {
			t.Fatal(err)
		}
		if head&0xf0 != 0x30 {
			continue
		}
		switch topic, b := message(body); topic {
		case wire.DownTopic("meter-1", wire.KindMeta):
			decode(t, b, &m)
		case wire.DownTopic("meter-1", wire.KindAck):
			decode(t, b, &a)
		}
	}
	if m.Request != 9 || m.Error != fleet.ErrInternal.Code || m.Files != nil {
		t.Errorf("%+v", m)
	}
	if a.Sequence != 2 {
		t.Errorf("acknowledged %+v", a)
	}
}

func TestBlocks(t *testing.T) {
	r := start(t)
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(rand.Int())
	}
	digest := r.sim.addBlob(data)
	r.sim.may["meter-1"] = true
	d := r.device(t, "meter-1")
	d.Write(subscribePacket(0, wire.DownFilter("meter-1")))
	get := func(g *wire.BlobGet) {
		d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindGet), 0, false, encode(t, &wire.Get{Request: 5, Blob: g})))
	}
	ranges := []wire.Range{{Offset: 0, Length: wire.MaxBlock}, {Offset: 299_999, Length: 1}, {Offset: 1000, Length: wire.MinBlock}}
	get(&wire.BlobGet{Digest: digest, Ranges: ranges})
	for _, want := range ranges {
		h, b, err := wire.DecodeBlock(d.receive(t, wire.DownTopic("meter-1", wire.KindBlock)))
		if err != nil {
			t.Fatal(err)
		}
		if (h != wire.BlockHeader{Request: 5, Digest: [16]byte(digest[:16]), Offset: want.Offset, Length: int(want.Length), Total: 300_000}) {
			t.Errorf("%+v for %+v", h, want)
		}
		if !bytes.Equal(b, data[want.Offset:want.Offset+want.Length]) {
			t.Errorf("block at %d has other bytes", h.Offset)
		}
	}
	get(&wire.BlobGet{Digest: [32]byte{1}, Ranges: ranges})
	if b := busy(t, d, "meter-1"); b.Code != fleet.ErrBlobUnknown.Code || b.Request != 5 {
		t.Errorf("unknown blob: %+v", b)
	}
	get(&wire.BlobGet{Digest: digest, Ranges: []wire.Range{{Offset: 299_999, Length: 2}}})
	get(&wire.BlobGet{Digest: digest, Ranges: []wire.Range{{Offset: 1<<63 - 1, Length: 2}}})
	get(&wire.BlobGet{Digest: digest, Ranges: []wire.Range{{Offset: 299_999, Length: 1}}})
	if h, _, err := wire.DecodeBlock(d.receive(t, wire.DownTopic("meter-1", wire.KindBlock))); err != nil || h.Offset != 299_999 || h.Length != 1 {
		t.Errorf("beyond the blob: %+v, %v", h, err)
	}

	other := r.device(t, "meter-2")
	other.Write(subscribePacket(0, wire.DownFilter("meter-2")))
	other.Write(publishPacket(wire.UpTopic("meter-2", wire.KindGet), 0, false, encode(t, &wire.Get{Request: 6, Blob: &wire.BlobGet{Digest: digest, Ranges: ranges}})))
	if b := busy(t, other, "meter-2"); b.Code != fleet.ErrBlobNotAssigned.Code {
		t.Errorf("blob of another: %+v", b)
	}
}

func busy(t *testing.T, d *raw, device string) (b wire.Busy) {
	t.Helper()
	decode(t, d.receive(t, wire.DownTopic(device, wire.KindBusy)), &b)
	return b
}

// A device that asks and does not read is put off: what waits for it stays
// bounded.
func TestBusyBoundsWhatIsInFlight(t *testing.T) {
	r := start(t)
	digest := r.sim.addBlob(make([]byte, 1<<20))
	r.sim.may["slow"] = true
	d := r.device(t, "slow")
	d.Write(subscribePacket(0, wire.DownFilter("slow")))
	r.sim.await(t, call{device: "slow", kind: wire.KindPresence, online: true})
	g := &wire.BlobGet{Digest: digest}
	for i := range wire.MaxRanges {
		g.Ranges = append(g.Ranges, wire.Range{Offset: int64(i) * wire.MaxBlock, Length: wire.MaxBlock})
	}
	get := func(request uint32) {
		d.Write(publishPacket(wire.UpTopic("slow", wire.KindGet), 0, false, encode(t, &wire.Get{Request: request, Blob: g})))
	}
	full := 0
	waitFor(t, func() bool { // until the network between takes no more
		if full++; r.pending("slow") <= maxPending {
			get(1)
			full = 0
		}
		return full > 10
	})
	// A request may be judged before the blocks of the one before it are counted.
	if n := r.pending("slow"); n > maxPending+2*wire.MaxRanges*(wire.MaxBlock+1000) {
		t.Errorf("%d bytes wait", n)
	}
	probe, err := r.dial("probe")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	sent, err := probe.SubscribeSync("dunlin.v1.slow.down.busy")
	if err := errors.Join(err, probe.Flush()); err != nil {
		t.Fatal(err)
	}
	get(2)
	if _, err := sent.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	b := busy(t, d, "slow") // behind the blocks that waited
	if b.Code != "" || b.AfterMS <= 0 {
		t.Errorf("%+v", b)
	}
}

// A refresh comes in parts that fit into messages, whatever the files are, and
// put together they are the files.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var files []wire.MetaFile
		for i := range rapid.IntRange(0, 6).Draw(t, "files") {
			n := rapid.OneOf(rapid.IntRange(0, 2000), rapid.IntRange(partSize-200, partSize+200), rapid.IntRange(0, 5*partSize)).Draw(t, "bytes")
			files = append(files, wire.MetaFile{Repo: wire.RepoCatalog, Role: fmt.Sprint("role-", i), Version: int64(i), Total: int64(n), Bytes: bytes.Repeat([]byte{byte(i)}, n)})
		}
		var got []wire.MetaFile
		parts := split(files)
		for _, p := range parts {
			b, err := wire.Encode(&wire.Meta{Request: 1<<32 - 1, Files: p, More: true})
			if err != nil || len(b) > wire.MaxMessage {
				t.Fatalf("a part of %d bytes, %v", len(b), err)
			}
			for _, f := range p {
				if f.Offset == 0 {
					f.Bytes = bytes.Clone(f.Bytes)
					got = append(got, f)
					continue
				}
				last := &got[len(got)-1]
				if last.Role != f.Role || int64(len(last.Bytes)) != f.Offset {
					t.Fatalf("piece at %d of %s behind %d bytes of %s", f.Offset, f.Role, len(last.Bytes), last.Role)
				}
				last.Bytes = append(last.Bytes, f.Bytes...)
			}
		}
		if len(parts) == 0 || len(got) != len(files) {
			t.Fatalf("%d parts, %d files of %d", len(parts), len(got), len(files))
		}
		for i := range files {
			if !bytes.Equal(got[i].Bytes, files[i].Bytes) || got[i].Total != files[i].Total {
				t.Fatalf("%s has %d of %d bytes", files[i].Role, len(got[i].Bytes), len(files[i].Bytes))
			}
		}
	})
}

func TestRefreshInParts(t *testing.T) {
	r := start(t)
	r.sim.files = []wire.MetaFile{
		{Repo: wire.RepoDirector, Role: "timestamp", Version: 2, Bytes: []byte("{}")},
		{Repo: wire.RepoCatalog, Role: "targets", Version: 3, Bytes: bytes.Repeat([]byte("x"), 250<<10)},
	}
	d := r.device(t, "meter-1")
	d.Write(subscribePacket(0, wire.DownFilter("meter-1")))
	d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindGet), 0, false, encode(t, &wire.Get{Request: 4, Refresh: &wire.Held{}})))
	parts, total := 0, 0
	for more := true; more; parts++ {
		var m wire.Meta
		decode(t, d.receive(t, wire.DownTopic("meter-1", wire.KindMeta)), &m)
		if m.Request != 4 || m.Error != "" {
			t.Fatalf("%+v", m)
		}
		for _, f := range m.Files {
			total += len(f.Bytes)
		}
		more = m.More
	}
	if parts != 3 || total != 250<<10+2 {
		t.Errorf("%d parts of %d bytes", parts, total)
	}
}

// Run ends the sessions, waits for what is being handled and leaves nothing
// behind.
func TestStopLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	r := start(t)
	d := r.device(t, "meter-1")
	held, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.sim.mu.Lock()
	r.sim.onHello = func() { once.Do(func() { close(entered); <-held }) }
	r.sim.mu.Unlock()
	d.Write(publishPacket(wire.UpTopic("meter-1", wire.KindHello), 0, false, encode(t, &wire.Hello{Protocols: []int{1}})))
	<-entered
	ended := make(chan struct{})
	go func() { r.stop(); close(ended) }()
	if _, _, err := d.next(patience); err == nil {
		t.Fatal("the session goes on")
	}
	select {
	case <-ended:
		t.Fatal("Run ended while a hello was handled")
	default:
	}
	close(held)
	<-ended
	d.Close()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+2 })
	if disk := dirSize(t, r.dir); disk > 0 {
		t.Errorf("%d bytes are left", disk)
	}
}

func decode(t *testing.T, b []byte, out any) {
	t.Helper()
	if err := wire.Decode(b, out); err != nil {
		t.Fatal(err)
	}
}
