package capture_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/capture"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// rig is a Keeper with a real queue and a server's key. It lives in a bubble of
// synctest.
type rig struct {
	*capture.Keeper
	t      *testing.T
	c      capture.Config
	dir    string
	key    *ecdsa.PrivateKey
	set    *queue.Set
	number int64
	stop   func()
}

func newRig(t *testing.T, change func(*capture.Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	var err error
	if r.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	r.c = capture.Config{
		FS: durable.OS{}, Dir: filepath.Join(r.dir, "capture"), Device: "meter-1", Allowed: true, Quota: 4 << 20, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Open: func(e *wire.Envelope) (*wire.CaptureOrders, error) {
			return e.OpenCaptureOrders([]*ecdsa.PublicKey{&r.key.PublicKey})
		},
	}
	if change != nil {
		change(&r.c)
	}
	r.start()
	return r
}

// start opens what the disk holds and runs it.
func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.set, err = queue.OpenSet(durable.OS{}, filepath.Join(r.dir, "queue"), 1<<20); err == nil {
		err = r.set.OpenCapture(r.c.Quota)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.c.Queue = r.set.Capture
	if r.Keeper, err = capture.Open(r.c); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	k := r.Keeper
	go func() { done <- k.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := errors.Join(<-done, r.set.Close()); err != nil {
			r.t.Error(err)
		}
	}
}

// order is a capture with wide bounds, which change narrows.
func order(id, where string, change func(*wire.CaptureOrder)) wire.CaptureOrder {
	o := wire.CaptureOrder{ID: id, Model: "digits", Where: where, Max: 100, Bytes: 1 << 20, Expires: time.Now().Add(time.Hour).Unix()}
	if change != nil {
		change(&o)
	}
	return o
}

// orders signs and hands over.
func (r *rig) orders(os ...wire.CaptureOrder) {
	r.t.Helper()
	r.number++
	env, err := wire.SignCaptureOrders(r.key, &wire.CaptureOrders{Device: "meter-1", Number: r.number, Orders: os})
	if err == nil {
		err = r.Take(env)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// answer has a request answered with a class and a score; its input is n bytes of
// the id's first letter.
func (r *rig) answer(id string, n int, score float64) {
	slot := infer.Slot{Key: observe.Key{Model: "digits", Path: "dev/digits/1.0.0"}, Contract: &bundle.Contract{Inputs: []bundle.Tensor{{Name: "image", DType: "UINT8", Shape: []int{1, -1}}}}}
	a := &oip.Answered{ID: id, Slot: slot, Labels: func() []string { return []string{"zero", "one"} }, Inputs: [][]byte{bytes.Repeat([]byte(id[:1]), n)}}
	r.Answered(a, truth.Seen{Certainty: sketch.Certainty{Best: 1, Score: score}, Classes: 2})
	synctest.Wait()
}

func (r *rig) says(id string, right bool) {
	r.Judged(truth.Judged{ID: truth.IDOf(id), Key: observe.Key{Model: "digits"}, Right: right, Label: 0, Name: "zero"})
	synctest.Wait()
}

// captured puts together what is in the queue: "capture letter×bytes feedback label".
func (r *rig) captured() []string {
	r.t.Helper()
	batches, err := r.set.Capture.Waiting(1 << 30)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	var whole []byte
	for _, b := range batches {
		for _, record := range b.Records {
			var c wire.Captured
			if err := wire.Decode(record.Payload, &c); err != nil {
				r.t.Fatal(err)
			}
			if whole = append(whole, c.Bytes...); c.Part+1 < c.Parts {
				continue
			}
			text := c.Capture
			if c.Parts > 0 {
				if sum := sha256.Sum256(whole); !bytes.Equal(sum[:], c.Digest) || int64(len(whole)) != c.Size() || c.Path != "dev/digits/1.0.0" || c.Answered != "one" || c.Inputs[0].Shape[1] != len(whole) {
					r.t.Errorf("%+v", c)
				}
				text += fmt.Sprintf(" %c×%d", whole[0], len(whole))
			}
			out = append(out, strings.TrimSpace(text+" "+c.Feedback+" "+c.Label))
			whole = nil
		}
	}
	return out
}

func (r *rig) want(want ...string) {
	r.t.Helper()
	if d := cmp.Diff(want, r.captured()); d != "" {
		r.t.Error(d)
	}
}

func (r *rig) dropped(capture string) map[string]uint64 {
	for _, o := range r.Status().Orders {
		if o.ID == capture {
			return o.Dropped
		}
	}
	return nil
}

// TestWhatIsWanted and nothing else is kept: at once, after feedback, by several
// orders; what is said later is told.
func TestWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer r.stop()
		r.answer("a", 10, 0.1) // before anybody asked
		r.says("a", false)
		r.orders(order("low", "score<0.5", nil), order("wrong", "feedback=wrong", nil), order("other", "score<1", func(o *wire.CaptureOrder) { o.Model = "letters" }))
		r.answer("b", 10, 0.1)
		r.answer("c", 10, 0.9)
		r.answer("d", wire.MaxCapturePart+1, 0.9)
		r.want("low b×10")
		r.says("c", false)
		r.says("d", true)
		r.says("b", false) // was sent by one order, is wanted by another
		r.says("never", false)
		r.want("low b×10", "wrong c×10 wrong zero", "low wrong zero", "wrong b×10 wrong zero")
		r.answer("e", wire.MaxCapturePart+1, 0.9)
		r.says("e", false)
		if got := r.captured(); len(got) != 5 || got[4] != fmt.Sprintf("wrong e×%d wrong zero", wire.MaxCapturePart+1) {
			t.Error(got)
		}
	})
}

// TestPictures are kept as they came, and redacted as pictures.
func TestPictures(t *testing.T) {
	magic := []byte("\x89PNG\r\n\x1a\n")
	came := append(bytes.Clone(magic), "a picture"...)
	for name, tt := range map[string]struct {
		script, want string
	}{"as it came": {"", "a picture"}, "redacted": {`test "$DUNLIN_ENCODING" = png && sed s/picture/longer/`, "a longer"}, "no picture": {"echo", ""}, "endless": {"cat; yes", ""}} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "redact")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			if tt.script == "" {
				program = ""
			}
			r := newRig(t, func(c *capture.Config) { c.Redact = program })
			defer r.stop()
			r.orders(order("x", "score<1", nil))
			slot := infer.Slot{Key: observe.Key{Model: "digits"}, Contract: &bundle.Contract{Inputs: []bundle.Tensor{{Name: "image", DType: "UINT8", Shape: []int{1, 8, 8, 3}}}}}
			r.Answered(&oip.Answered{ID: "a", Slot: slot, Labels: func() []string { return nil }, Inputs: [][]byte{make([]byte, 192)}, Files: func() [][]byte { return [][]byte{came} }},
				truth.Seen{Certainty: sketch.Certainty{Best: 1, Score: 0.1}, Classes: 2})
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(20 * time.Second); r.Held().Kept+r.Held().Dropped == 0; <-tick.C {
				if time.Now().After(end) {
					t.Fatal("neither kept nor dropped")
				}
			}
			records, err := r.set.Capture.Next(9, 1<<20)
			if err != nil || len(records) != map[bool]int{true: 1, false: 0}[tt.want != ""] {
				t.Fatalf("%d records, %v", len(records), err)
			}
			for _, x := range records {
				var c wire.Captured
				if err := wire.Decode(x.Payload, &c); err != nil || c.Inputs[0].Encoding != "png" || !bytes.HasPrefix(c.Bytes, append(bytes.Clone(magic), tt.want...)) {
					t.Errorf("%v: %q, %+v", err, c.Bytes, c.Inputs)
				}
			}
		})
	}
}

// TestOrdersOfOthersAreRefused: of another key, for another device, older ones, and
// every one where the owner has not allowed it.
func TestOrdersOfOthersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		sign := func(key *ecdsa.PrivateKey, device string, number int64) *wire.Envelope {
			env, err := wire.SignCaptureOrders(key, &wire.CaptureOrders{Device: device, Number: number, Orders: []wire.CaptureOrder{order("x", "score<1", nil)}})
			if err != nil {
				t.Fatal(err)
			}
			return env
		}
		r.orders()
		r.orders()
		changed := sign(r.key, "meter-1", 9)
		changed.Payload = bytes.Replace(changed.Payload, []byte("meter-1"), []byte("meter-2"), 1)
		for name, env := range map[string]*wire.Envelope{
			"another key": sign(thief, "meter-1", 9), "another device": sign(r.key, "meter-2", 9), "the same number": sign(r.key, "meter-1", 2), "an older one": sign(r.key, "meter-1", 1), "changed": changed,
			"another type": {Type: wire.SignpostType, Payload: sign(r.key, "meter-1", 9).Payload, Signature: sign(r.key, "meter-1", 9).Signature},
		} {
			if err := r.Take(env); !errors.Is(err, capture.ErrOrders) {
				t.Errorf("%s: %v", name, err)
			}
		}
		r.answer("a", 10, 0.1)
		r.want()
		// The owner's word ends what was ordered before it, also across a restart.
		r.orders(order("x", "score<1", nil))
		r.answer("b", 10, 0.1)
		r.want("x b×10")
		r.stop()
		r.c.Allowed = false
		r.start()
		r.want()
		if err := r.Take(sign(r.key, "meter-1", 99)); err != nil || len(r.Status().Orders) != 0 || r.Held().Allowed {
			t.Errorf("%v %+v", err, r.Status())
		}
		r.answer("c", 10, 0.1)
		r.want()
	})
}

// TestBounds are never passed, and what they cost is counted by reason.
func TestBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		order  func(*wire.CaptureOrder)
		sizes  []int
		pause  time.Duration
		kept   int
		reason string
		count  uint64
	}{
		"samples":   {func(o *wire.CaptureOrder) { o.Max = 3 }, []int{1, 1, 1, 1, 1}, time.Second, 3, "", 0},
		"bytes":     {func(o *wire.CaptureOrder) { o.Bytes = 250 }, []int{100, 100, 100, 50}, time.Second, 3, "bytes", 1},
		"rate":      {nil, slices.Repeat([]int{1}, 14), 0, 10, "rate", 4},
		"too large": {func(o *wire.CaptureOrder) { o.Bytes = 1 << 40 }, []int{wire.MaxCaptureBytes + 1, 5}, time.Second, 1, "too_large", 1},
		"quota":     {func(o *wire.CaptureOrder) { o.Bytes = 1 << 40 }, []int{2 << 20, 1 << 20, 2 << 20, 10}, time.Second, 3, "quota", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				defer r.stop()
				r.orders(order("x", "score<1", tt.order))
				for i, n := range tt.sizes {
					r.answer(fmt.Sprint(i), n, 0.1)
					time.Sleep(tt.pause) // of the bubble
				}
				if got := r.captured(); len(got) != tt.kept {
					t.Errorf("kept %v", got)
				}
				if got := r.dropped("x")[tt.reason]; got != tt.count {
					t.Errorf("%v", r.dropped("x"))
				}
				if size := r.set.Capture.Size(); size > r.c.Quota {
					t.Errorf("%d bytes on the disk", size)
				}
			})
		})
	}
}

// TestBoundsHoldAfterRestart: a device that dies again and again gives no more.
func TestBoundsHoldAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.orders(order("x", "score<1", func(o *wire.CaptureOrder) { o.Max = 3 }))
		for i := range 6 {
			r.answer(fmt.Sprint(i), 10, 0.1)
			r.stop()
			r.start()
		}
		r.want("x 0×10", "x 1×10", "x 2×10")
	})
}

// TestOver: stopped, erased and expired captures take nothing more; what nobody
// wants any more, and what was sent, is gone from the disk.
func TestOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer r.stop()
		x := order("x", "score<1 or feedback=right", nil)
		r.orders(x)
		r.answer("a", 10, 0.1)
		x.Stopped = true
		r.orders(x)
		r.answer("b", 10, 0.1)
		r.want("x a×10")
		if err := r.set.Capture.Ack(r.set.Epoch(), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if size := r.set.Capture.Size(); size > 100 {
			t.Errorf("%d bytes are left of what was sent", size)
		}
		x.Stopped = false
		r.orders(x)
		r.answer("c", 10, 0.1)
		r.orders() // erased
		r.want()
		x.Expires = time.Now().Add(10 * time.Second).Unix()
		r.orders(x)
		r.answer("d", 10, 0.1)
		r.want("x d×10")
		time.Sleep(15 * time.Second)
		r.want()
		r.answer("e", 10, 0.1)
		r.want()
		if len(r.Status().Orders) != 0 {
			t.Errorf("%+v", r.Status())
		}
	})
}

// TestWaitingIsBounded: inputs that wait for feedback go, the oldest first, and that
// is counted.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer r.stop()
		r.orders(order("x", "feedback=wrong", func(o *wire.CaptureOrder) { o.Bytes = 1 << 40 }))
		for i := range 10 {
			r.answer(fmt.Sprint(i), 1<<20, 0.9)
		}
		r.says("0", false)
		r.says("1", false)
		r.says("9", false)
		r.want(fmt.Sprintf("x 9×%d wrong zero", 1<<20))
		if n := r.dropped("x")["feedback"]; n != 2 {
			t.Errorf("%v", r.dropped("x"))
		}
	})
}

// TestDamagedOrders are as none.
func TestDamagedOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.orders(order("x", "score<1", nil))
		r.stop()
		file := filepath.Join(r.c.Dir, "orders.json")
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"", "{", "null", `{"format":1,"orders":[null]}`, `{"format":2}`, `{"format":1,"orders":[{"ID":"x","Where":"nonsense"}]}`, string(good[:len(good)/2])} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r.start()
			if len(r.Status().Orders) != 0 {
				t.Errorf("%q: %+v", text, r.Status())
			}
			r.stop()
		}
		r.start()
	})
}

// TestRedaction: what leaves is what the owner's program writes, or nothing.
func TestRedaction(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   []string
	}{
		"all black":  {"head -c 10 /dev/zero | tr '\\0' z", []string{"x z×10"}},
		"by name":    {`test "$DUNLIN_INPUT $DUNLIN_DTYPE $DUNLIN_SHAPE $DUNLIN_MODEL_PATH" = "image UINT8 [1 10] dev/digits/1.0.0" && tr a y`, []string{"x y×10"}},
		"nothing":    {"true", nil},
		"fails":      {"cat; exit 1", nil},
		"too little": {"head -c 9", nil},
		"too much":   {"cat; echo", nil},
		"endless":    {"yes", nil},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "redact")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, func(c *capture.Config) { c.Redact = program })
			defer r.stop()
			r.orders(order("x", "score<1", nil))
			slot := infer.Slot{Key: observe.Key{Model: "digits", Path: "dev/digits/1.0.0"}, Contract: &bundle.Contract{Inputs: []bundle.Tensor{{Name: "image", DType: "UINT8", Shape: []int{1, -1}}}}}
			r.Answered(&oip.Answered{ID: "a", Slot: slot, Labels: func() []string { return []string{"zero", "one"} }, Inputs: [][]byte{bytes.Repeat([]byte("a"), 10)}},
				truth.Seen{Certainty: sketch.Certainty{Best: 1, Score: 0.1}, Classes: 2})
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(20 * time.Second); r.Held().Kept+r.Held().Dropped == 0; <-tick.C {
				if time.Now().After(end) {
					t.Fatal("neither kept nor dropped")
				}
			}
			r.want(tt.want...)
			if tt.want == nil && r.dropped("x")["redaction"] != 1 {
				t.Errorf("%v", r.dropped("x"))
			}
		})
	}
}
