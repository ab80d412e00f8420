package capture_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/capture"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// store is the database with devices that need no enrolment.
type store struct{ *sqlite.DB }

var devices = []*fleet.Device{{ID: "meter-1", Online: true, Labels: map[string]string{"site": "harbour"}}, {ID: "meter-2", Labels: map[string]string{"site": "hill"}}}

func (s store) Devices(context.Context, fleet.DeviceFilter) ([]*fleet.Device, error) {
	return devices, nil
}

func (s store) Device(_ context.Context, id string) (*fleet.Device, error) {
	for _, d := range devices {
		if d.ID == id {
			return d, nil
		}
	}
	return nil, fleet.ErrDeviceUnknown
}

// rig is a service over a real database and blobs.
type rig struct {
	*capture.Service
	t     *testing.T
	db    *sqlite.DB
	dir   string
	now   time.Time
	seq   uint64
	poked []string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), now: noon}
	var err error
	if r.db, err = sqlite.Open(t.Context(), filepath.Join(r.dir, "fleet.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.db.Close() })
	blobs, err := blob.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Service = &capture.Service{
		Store: store{r.db}, Blobs: blobs, Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler),
		Poke: func(ids []string) { r.poked = append(r.poked, ids...) },
		Sign: func(_ context.Context, _ string, o *wire.CaptureOrders) (*wire.Envelope, error) {
			b, err := wire.Encode(o)
			return &wire.Envelope{Type: wire.CaptureType, Payload: b}, errors.Join(err, o.Check())
		},
	}
	return r
}

func (r *rig) create(change func(*fleet.CaptureSpec)) *fleet.Capture {
	r.t.Helper()
	s := fleet.CaptureSpec{Model: "digits", Where: "feedback=wrong", Max: 100, MBPerDevice: 1, Hours: 24}
	if change != nil {
		change(&s)
	}
	c, err := r.Create(r.t.Context(), s, "acc_1")
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// sample is the records of a sample of n bytes.
func (r *rig) sample(c, name string, n int) []wire.Captured {
	r.t.Helper()
	id := sha256.Sum256([]byte(name))
	data := []byte(strings.Repeat(name[:1], n))
	sum := sha256.Sum256(data)
	var out []wire.Captured
	parts := uint32((n + wire.MaxCapturePart - 1) / wire.MaxCapturePart)
	for part := range slices.Chunk(data, wire.MaxCapturePart) {
		out = append(out, wire.Captured{Capture: c, Sample: id[:16], Unix: noon.Unix(), Path: "dev/digits/1.0.0", Answered: "8", Inputs: []wire.CapturedInput{{Tensor: []byte(`{"name":"image"}`), Shape: []int{n}, Size: int64(n)}},
			Digest: sum[:], Part: uint32(len(out)), Parts: parts, Bytes: part})
	}
	return out
}

func (r *rig) brings(device string, cs ...wire.Captured) (bad []uint64) {
	r.t.Helper()
	var records []wire.Record
	for i := range cs {
		b, err := wire.Encode(&cs[i])
		if err != nil {
			r.t.Fatal(err)
		}
		r.seq++
		records = append(records, wire.Record{Epoch: 1, Sequence: r.seq, Payload: b})
	}
	if err := r.Take(r.t.Context(), device, records, func(seq uint64, _ error) { bad = append(bad, seq) }); err != nil {
		r.t.Fatal(err)
	}
	return bad
}

func (r *rig) samples(c string) []fleet.CapturedSample {
	r.t.Helper()
	out, err := r.Pull(r.t.Context(), c, "", 100, "acc_2")
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// files counts blobs on the disk.
func (r *rig) files() int {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.dir, "sha256"))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

func (r *rig) acts() (out []string) {
	r.t.Helper()
	as, err := r.db.Audit(r.t.Context(), "", "", 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range slices.Backward(as) {
		out = append(out, a.Actor+" "+a.Act)
	}
	return out
}

// TestOrders: each device is told of the captures that select it, once, and again
// when they change; one whose owner allows none is told nothing.
func TestOrders(t *testing.T) {
	r := newRig(t)
	held := &wire.CaptureHeld{Allowed: true}
	tell := func(device string) *wire.CaptureOrders {
		t.Helper()
		env, err := r.Tell(t.Context(), device, held)
		if err != nil {
			t.Fatal(err)
		}
		if env == nil {
			return nil
		}
		o := &wire.CaptureOrders{}
		if err := wire.Decode(env.Payload, o); err != nil || o.Device != device || o.Number != held.Number+1 {
			t.Fatalf("%v %+v", err, o)
		}
		mark, err := wire.CaptureMark(o.Orders)
		if err != nil {
			t.Fatal(err)
		}
		held = &wire.CaptureHeld{Allowed: true, Number: o.Number, Mark: mark}
		return o
	}
	if tell("meter-1") != nil {
		t.Error("orders without a capture")
	}
	c := r.create(func(s *fleet.CaptureSpec) { s.Selector = "site=harbour" })
	if len(r.poked) != 1 {
		t.Errorf("poked %v", r.poked)
	}
	if tell("meter-2") != nil {
		t.Error("orders for a device that is not selected")
	}
	for _, h := range []*wire.CaptureHeld{nil, {}} {
		if env, err := r.Tell(t.Context(), "meter-1", h); env != nil || err != nil {
			t.Errorf("orders for %+v: %v", h, err)
		}
	}
	o := tell("meter-1")
	if o == nil || len(o.Orders) != 1 || o.Orders[0].ID != c.ID || o.Orders[0].Bytes != 1<<20 || o.Orders[0].Stopped || o.Orders[0].Expires != noon.Add(24*time.Hour).Unix() {
		t.Fatalf("%+v", o)
	}
	if tell("meter-1") != nil {
		t.Error("told again")
	}
	if _, err := r.Stop(t.Context(), c.ID, "acc_1"); err != nil {
		t.Fatal(err)
	}
	if o := tell("meter-1"); o == nil || !o.Orders[0].Stopped {
		t.Errorf("stopped: %+v", o)
	}
	r.now = noon.Add(24 * time.Hour)
	if o := tell("meter-1"); o == nil || len(o.Orders) != 0 {
		t.Errorf("over: %+v", o)
	}
}

// TestSpecs that make no sense are refused, and nothing is audited.
func TestSpecs(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(*fleet.CaptureSpec){
		"condition": func(s *fleet.CaptureSpec) { s.Where = "size>5" }, "no condition": func(s *fleet.CaptureSpec) { s.Where = "" }, "model": func(s *fleet.CaptureSpec) { s.Model = "a/b" },
		"samples": func(s *fleet.CaptureSpec) { s.Max = 0 }, "bytes": func(s *fleet.CaptureSpec) { s.MBPerDevice = 1 << 20 }, "life": func(s *fleet.CaptureSpec) { s.Hours = 24 * 91 },
		"selector": func(s *fleet.CaptureSpec) { s.Selector = "=,=" },
	} {
		s := fleet.CaptureSpec{Model: "digits", Where: "feedback=wrong", Max: 100, MBPerDevice: 1, Hours: 24}
		change(&s)
		if _, err := r.Create(t.Context(), s, "acc_1"); !errors.Is(err, fleet.ErrCaptureInvalid) && !errors.Is(err, fleet.ErrSelector) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range wire.MaxCaptureOrders {
		r.create(nil)
	}
	if _, err := r.Create(t.Context(), fleet.CaptureSpec{Model: "digits", Where: "feedback=wrong", Max: 100, MBPerDevice: 1, Hours: 24}, "acc_1"); !errors.Is(err, fleet.ErrCaptureMany) {
		t.Error(err)
	}
	if n := len(r.acts()); n != wire.MaxCaptureOrders {
		t.Errorf("%d acts", n)
	}
}

// TestSamples come in parts, in any order and again; only whole ones are shown, with
// what was said of them.
func TestSamples(t *testing.T) {
	r := newRig(t)
	c := r.create(nil)
	long := r.sample(c.ID, "long", 3*wire.MaxCapturePart/2)
	r.brings("meter-1", long[1])
	if len(r.samples(c.ID)) != 0 {
		t.Error("half a sample is shown")
	}
	r.brings("meter-1", long[1], long[0], long[0])
	r.brings("meter-2", r.sample(c.ID, "long", 3*wire.MaxCapturePart/2)...) // the same bytes of another device
	r.brings("meter-1", wire.Captured{Capture: c.ID, Sample: long[0].Sample, Feedback: "wrong", Label: "7"}, wire.Captured{Capture: c.ID, Sample: make([]byte, 16), Feedback: "wrong"})
	got := r.samples(c.ID)
	if len(got) != 2 || got[0].Device != "meter-1" || got[0].About.Label != "7" || got[0].About.Feedback != "wrong" || got[0].About.Answered != "8" || got[1].About.Label != "" {
		t.Fatalf("%+v", got)
	}
	b, err := r.Open(t.Context(), c.ID, "meter-1", got[0].Sample, "acc_2")
	if err != nil || string(b) != strings.Repeat("l", 3*wire.MaxCapturePart/2) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, x := range [][3]string{{c.ID, "meter-3", got[0].Sample}, {c.ID, "meter-1", "00"}, {c.ID, "meter-1", "x"}, {"cap_x", "meter-1", got[0].Sample}} {
		if _, err := r.Open(t.Context(), x[0], x[1], x[2], "acc_2"); !errors.Is(err, fleet.ErrCaptureUnknown) {
			t.Errorf("%v: %v", x, err)
		}
	}
	shown, ds, err := r.Show(t.Context(), c.ID)
	if err != nil || shown.Samples != 2 || len(ds) != 2 || ds[0].Bytes != 3*wire.MaxCapturePart/2 {
		t.Errorf("%+v %+v %v", shown, ds, err)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "sha256")); err != nil { // as after a restore
		t.Fatal(err)
	}
	if _, err := r.Open(t.Context(), c.ID, "meter-1", got[0].Sample, "acc_2"); !errors.Is(err, fleet.ErrCaptureGone) {
		t.Error(err)
	}
	// Pages.
	first, err := r.Pull(t.Context(), c.ID, "", 1, "acc_2")
	if err != nil || len(first) != 1 {
		t.Fatalf("%v %v", first, err)
	}
	second, err := r.Pull(t.Context(), c.ID, first[0].Device+"/"+first[0].Sample, 1, "acc_2")
	if err != nil || len(second) != 1 || second[0].Device != "meter-2" {
		t.Errorf("%v %v", second, err)
	}
	want := []string{"acc_1 capture.create", "acc_2 capture.pull", "acc_2 capture.pull", "acc_2 capture.read", "acc_2 capture.read", "acc_2 capture.pull"}
	if got := r.acts(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestNobodyBringsMore than the capture allows: bytes of a device, samples of all,
// captures that are not there, records that are none.
func TestNobodyBringsMore(t *testing.T) {
	r := newRig(t)
	c := r.create(func(s *fleet.CaptureSpec) { s.Max = 3 })
	r.brings("meter-1", r.sample(c.ID, "a", 10)...)
	for i := range 20 { // 1 MB is all
		r.brings("meter-1", r.sample(c.ID, fmt.Sprint("b", i), wire.MaxCapturePart*9)...)
	}
	shown, ds, err := r.Show(t.Context(), c.ID)
	if err != nil || shown.Samples != 2 || shown.Refused == 0 || ds[0].Bytes > 1<<20 {
		t.Errorf("%+v %+v %v", shown, ds, err)
	}
	r.brings("meter-2", append(r.sample(c.ID, "c", 10), r.sample(c.ID, "d", 10)...)...)
	if shown, _, err := r.Show(t.Context(), c.ID); err != nil || shown.Samples != 3 || !shown.Order().Stopped {
		t.Errorf("%+v %v", shown, err)
	}
	files := r.files()
	r.brings("meter-1", r.sample("cap_of_nobody", "e", 10)...)
	r.now = noon.Add(24 * time.Hour)
	r.brings("meter-2", r.sample(c.ID, "f", 10)...)
	if r.files() != files {
		t.Errorf("%d blobs more", r.files()-files)
	}
	bad := 0
	err = r.Take(t.Context(), "meter-1", []wire.Record{{Epoch: 1, Sequence: 1, Payload: []byte{0xa0}}, {Epoch: 1, Sequence: 2, Payload: []byte("x")}}, func(uint64, error) { bad++ })
	if err != nil || bad != 2 {
		t.Errorf("%d bad, %v", bad, err)
	}
}

// TestErased is gone from the database and the disk, but for bytes that another
// sample has too; captures that are over go by themselves.
func TestErased(t *testing.T) {
	r := newRig(t)
	one, two := r.create(nil), r.create(func(s *fleet.CaptureSpec) { s.Hours = 48 })
	r.brings("meter-1", r.sample(one.ID, "a", 10)...)
	r.brings("meter-1", r.sample(two.ID, "b", 10)...)
	r.brings("meter-2", append(r.sample(one.ID, "b", 10), r.sample(one.ID, "c", 10)...)...)
	if r.files() != 3 {
		t.Fatalf("%d blobs", r.files())
	}
	if n, err := r.Erase(t.Context(), fleet.Erase{Device: "meter-1"}, "acc_1"); n != 2 || err != nil || r.files() != 2 {
		t.Errorf("%d erased, %v, %d blobs", n, err, r.files())
	}
	if got := r.samples(one.ID); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	for _, e := range []fleet.Erase{{}, {Device: "a", Capture: "b"}} {
		if _, err := r.Erase(t.Context(), e, "acc_1"); !errors.Is(err, fleet.ErrBadRequest) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if _, err := r.Erase(t.Context(), fleet.Erase{Capture: "cap_x"}, "acc_1"); !errors.Is(err, fleet.ErrCaptureUnknown) {
		t.Error(err)
	}
	r.now = noon.Add(24*time.Hour - 1)
	if err := r.Sweep(t.Context()); err != nil || r.files() != 2 {
		t.Errorf("%v, %d blobs before its end", err, r.files())
	}
	r.now = noon.Add(24 * time.Hour)
	r.brings("meter-1", r.sample(two.ID, "d", 10)...)
	if err := r.Sweep(t.Context()); err != nil || r.files() != 1 {
		t.Errorf("%v, %d blobs after its end", err, r.files())
	}
	if cs, err := r.List(t.Context()); err != nil || len(cs) != 1 || cs[0].ID != two.ID {
		t.Errorf("%+v %v", cs, err)
	}
	if n, err := r.Erase(t.Context(), fleet.Erase{Capture: two.ID}, "acc_1"); n != 1 || err != nil || r.files() != 0 {
		t.Errorf("%d erased, %v, %d blobs", n, err, r.files())
	}
	if got := r.acts(); !slices.Contains(got, "server capture.expire") || !slices.Contains(got, "acc_1 data.erase") {
		t.Errorf("%q", got)
	}
}

// TestOrphans that a crash left between a blob and its row are removed at the start.
func TestOrphans(t *testing.T) {
	r := newRig(t)
	c := r.create(nil)
	r.brings("meter-1", r.sample(c.ID, "a", 10)...)
	sum := sha256.Sum256([]byte("left"))
	if err := r.Blobs.Put("sha256:"+hex.EncodeToString(sum[:]), strings.NewReader("left"), 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); r.files() != 1; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%d blobs", r.files())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(r.samples(c.ID)) != 1 {
		t.Error("what has a name is gone")
	}
}
