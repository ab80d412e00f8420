package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var update = flag.Bool("update", false, "write the recordings of this protocol number anew")

// messages holds one of each type with every field set, by the name of its
// recording.
var messages = map[string]any{
	"hello": &wire.Hello{
		Protocols: []int{1}, Agent: "1.2.3", Epoch: 1<<63 + 5, Channel: "production", Held: held, Generation: 9,
		Facts: map[string]string{"arch": "arm64", "class": "arm64-rpi4"}, Models: []wire.ModelState{modelState}, Clock: clock,
		Queues: []wire.QueueState{{Kind: wire.KindReport, Last: 70000, Dropped: 3}},
	},
	"welcome": &wire.Welcome{
		Protocol: 1, Generation: 10, Nonce: []byte("0123456789abcdef"), Window: 60, Heartbeat: 300,
		Acked: []wire.Ack{{Kind: wire.KindSample, Epoch: 7, Sequence: 8}}, Metadata: true,
	},
	"get-refresh": &wire.Get{Request: 5, Refresh: &held},
	"get-blob":    &wire.Get{Request: 1<<32 - 1, Blob: &wire.BlobGet{Digest: [32]byte{1, 2, 31: 32}, Ranges: []wire.Range{{Offset: 0, Length: wire.MaxBlock}, {Offset: 1 << 40, Length: 1}}}},
	"meta":        &wire.Meta{Request: 5, More: true, Files: []wire.MetaFile{{Repo: wire.RepoCatalog, Role: "production", Version: 4, Offset: 10, Total: 12, Bytes: []byte("{}")}}},
	"meta-error":  &wire.Meta{Request: 5, Error: "catalog.empty"},
	"busy":        &wire.Busy{Request: 6, AfterMS: 500, Code: "blob.unknown"},
	"ack":         &wire.Ack{Kind: wire.KindEvent, Epoch: 1<<64 - 1, Sequence: 3},
	"ask":         &wire.Ask{ID: "ask_1", Verb: "report"},
	"answer":      &wire.Answer{ID: "ask_1", Error: "ask.unknown"},
	"batch":       &wire.Batch{Records: []wire.Record{{Epoch: 7, Sequence: 1, Payload: []byte{1}}, {Epoch: 7, Sequence: 3, Payload: []byte{2, 3}}}},
	"envelope":    &wire.Envelope{Type: wire.ReportType, Payload: []byte{0xa0}, Signature: []byte("signature")},
	"report": &wire.Report{
		Device: "meter-1", Epoch: 7, Counter: 8, Generation: 9, Nonce: []byte("0123456789abcdef"), Models: []wire.ModelState{modelState}, Clock: clock,
		Posture: []wire.Posture{{Layer: "landlock", Have: true, Detail: "abi 4"}},
	},
	"report-shown": &wire.Report{Device: "meter-1", Epoch: 7, Counter: 8, Clock: clock, Models: []wire.ModelState{{Model: "digits", Active: &wire.SlotState{
		Path: "production/digits/1.1.0", Bundle: "sha256:cc", Verdict: "good", Proven: true, Proof: &bundle.Proof{
			Cases: 40, Held: 39, Slices: []bundle.SliceShare{{Slice: "site=a", Cases: 10, Held: 9}},
			Cost: bundle.Cost{P50US: 700, P95US: 800, P99US: 900, Start: 14000, Cold: 20000, PeakKB: 23116}, Base: &bundle.Cost{P50US: 600}, Kernels: "builtin", Threads: 2,
			Tried:  []bundle.Tried{{Kernels: "xnnpack", Why: "it crashed"}},
			Shadow: &bundle.Shade{Requests: 200, Agreed: 195, Dropped: 3, P50US: 900, P95US: 1000, LiveP95: 700, Note: "not seen"},
		}}}}},
	"report-workers": &wire.Report{Device: "meter-1", Epoch: 7, Counter: 8, Clock: clock, Models: []wire.ModelState{{Model: "digits", Active: &wire.SlotState{
		Path: "production/digits/1.1.0", Verdict: "good", Proof: &bundle.Proof{Cases: 40, Held: 40, Threads: 1, Workers: 2}}}}},
	"event": &wire.Event{Unix: 1764000000, Type: "update.refused", Model: "digits", Path: "production/digits/1.1.0", Code: "prove.golden", Detail: "3 of 40", Attrs: map[string]string{"case": "17"}},
	"sample": &wire.Sample{
		Start: 1764000000, Seconds: 60, Model: "digits", Bundle: "sha256:aa", Runtime: "sha256:bb", Rollout: "rol_1", Arm: "treated", Requests: 1000,
		Errors: map[string]uint64{"deadline": 2}, Latency: sketch.Latency{Bytes: []byte{1, 1, 2}}, Classes: []uint64{1, 0, 999},
		Score: &sketch.Histogram{Lo: -0.5, Hi: 1, Bins: []uint64{0, 5}, Under: 1, Over: 2, NaN: 3},
		Input: &sketch.Moments{N: 5, Mean: 0.5, M2: 0.25, Min: -1, Max: 1}, NaN: 4,
		Host: map[string]float64{"load1": 0.5}, Path: "production/digits/1.1.0",
	},
	"sample-watched": &wire.Sample{
		Start: 1764000000, Seconds: 60, Model: "digits", Requests: 3, Wait: sketch.Latency{Bytes: []byte{1, 1, 2}},
		Entropy: &sketch.Histogram{Hi: 1, Bins: []uint64{3, 0}}, Margin: &sketch.Histogram{Hi: 1, Bins: []uint64{0, 3}},
		Detections: &sketch.Histogram{Lo: -0.5, Hi: 31.5, Bins: []uint64{1, 2}}, Sizes: map[string]uint64{"640x480": 2, "other": 1},
		Inputs: []sketch.Input{{Requests: 2, Values: sketch.Moments{N: 5, Mean: 0.5, M2: 0.25, Min: -1, Max: 1}, NaN: 1, Low: 2, High: 3,
			Bins: &sketch.Histogram{Hi: 1, Bins: []uint64{2, 3}}, Means: &sketch.Histogram{Hi: 1, Bins: []uint64{1, 1}}}, {Requests: 2}},
	},
	"sample-worker": &wire.Sample{Start: 1764000000, Seconds: 60, Model: "digits", Requests: 3, Memory: 12345, Crashes: 2},
	"sample-truth": &wire.Sample{
		Start: 1764000000, Seconds: 60, Model: "digits",
		Truth:   &wire.Truth{Right: 90, Wrong: 10, Confused: []wire.Confused{{Right: 3, Answered: 8, Count: 7}}, Other: 3, Late: 2},
		Metrics: map[string]sketch.Moments{"bill.corrections": {N: 2, Mean: 0.5, M2: 0.5, Min: 0, Max: 1}},
	},
	"receipt": &wire.Receipt{
		Device: "meter-1", Lockbox: "lbx_1", Hello: wire.Hello{Protocols: []int{1}, Agent: "1.2.3", Epoch: 7, Channel: "production", Held: held, Clock: clock},
		Report: &wire.Record{Epoch: 7, Sequence: 9, Payload: []byte{1}},
		Queued: []wire.ReceiptBatch{{Kind: wire.KindSample, Batch: wire.Batch{Records: []wire.Record{{Epoch: 7, Sequence: 1, Payload: []byte{1}}}}}},
	},
	"hello-signpost": &wire.Hello{Protocols: []int{1}, Agent: "1.2.3", Epoch: 7, Channel: "production", Held: held, Clock: clock,
		Signpost: &wire.SignpostHeld{Number: 2, Mark: []byte("12345678"), Using: "fleet.example:8883", Trouble: "no such host"}},
	"hello-run": &wire.Hello{Protocols: []int{1}, Agent: "1.2.3", Epoch: 7, Channel: "production", Held: held, Clock: clock, Run: 1<<63 + 5},
	"welcome-signpost": &wire.Welcome{Protocol: 1, Nonce: []byte("0123456789abcdef"), Window: 60, Heartbeat: 300,
		Signpost: &wire.Envelope{Type: wire.SignpostType, Payload: []byte{0xa0}, Signature: []byte("signature")}},
	"signpost": &wire.Signpost{Device: "meter-1", Number: 3, CAs: [][]byte{{0x30, 1}, {0x30, 2}},
		Addresses: []wire.Address{{Server: "https://new.example:8443", MQTT: "new.example:8883"}, {Server: "https://fleet.example:8443", MQTT: "fleet.example:8883"}}},
	"hello-capture": &wire.Hello{Protocols: []int{1}, Agent: "1.2.3", Epoch: 7, Channel: "production", Held: held, Clock: clock,
		Capture: &wire.CaptureHeld{Number: 2, Mark: []byte("12345678"), Allowed: true, Kept: 3, Dropped: 4}},
	"welcome-capture": &wire.Welcome{Protocol: 1, Nonce: []byte("0123456789abcdef"), Window: 60, Heartbeat: 300,
		Capture: &wire.Envelope{Type: wire.CaptureType, Payload: []byte{0xa0}, Signature: []byte("signature")}},
	"capture-orders": &wire.CaptureOrders{Device: "meter-1", Number: 3, Orders: []wire.CaptureOrder{
		{ID: "cap_1", Model: "digits", Where: "feedback=wrong", Max: 500, Bytes: 5 << 20, Expires: 1764000000, Stopped: true}}},
	"captured": &wire.Captured{Capture: "cap_1", Sample: []byte("0123456789abcdef"), Unix: 1764000000, Path: "production/digits/1.1.0", Answered: "seven", Score: 0.5, Feedback: "wrong", Label: "one",
		Inputs: []wire.CapturedInput{{Tensor: []byte("{}"), Shape: []int{1, 2}, Size: wire.MaxCapturePart + 2}}, Digest: bytes.Repeat([]byte{1}, 32), Part: 1, Parts: 2, Bytes: []byte{1, 2}, Redacted: true},
	"captured-picture": &wire.Captured{Capture: "cap_1", Sample: []byte("0123456789abcdef"), Unix: 1764000000, Inputs: []wire.CapturedInput{{Tensor: []byte("{}"), Size: 2, Encoding: "jpeg"}},
		Digest: bytes.Repeat([]byte{1}, 32), Parts: 1, Bytes: []byte{1, 2}},
	"captured-said": &wire.Captured{Capture: "cap_1", Sample: []byte("0123456789abcdef"), Unix: 1764000000, Feedback: "right", Label: "one"},
	"metadata-set":  &wire.MetaSet{Files: []wire.MetaFile{{Repo: wire.RepoDirector, Role: "root", Version: 1, Total: 2, Bytes: []byte("{}")}}},
	"enrol-token": &wire.EnrolToken{
		Server: "https://fleet.example:8443", ID: "tok_1", Secret: bytes.Repeat([]byte{1}, 32), CA: bytes.Repeat([]byte{2}, 32),
		CatalogRoot: bytes.Repeat([]byte{3}, 32), DirectorRoot: bytes.Repeat([]byte{4}, 32), Channel: "production",
	},
}

var (
	clock = wire.Clock{Unix: 1764000000, Source: "synchronised"}
	held  = wire.Held{
		Director: wire.Versions{Root: 1, Timestamp: 2, Snapshot: 3, Targets: 4}, Catalog: wire.Versions{Root: 5, Timestamp: 6, Snapshot: 7, Targets: 8},
		Roles: map[string]int64{"dev": 9, "production": 10},
	}
	modelState = wire.ModelState{
		Model:     "digits",
		Active:    &wire.SlotState{Path: "production/digits/1.0.0", Bundle: "sha256:aa", Runtime: "sha256:bb", Verdict: "good", Proven: true},
		Candidate: &wire.SlotState{Path: "production/digits/1.1.0", Bundle: "sha256:cc", Verdict: "bad", Code: "prove.golden", Reason: "3 of 40 cases"},
		Step:      "prove", Generation: 9, Attempt: 2, Rollout: "rol_1", Answered: 12,
	}
)

// fresh returns an empty message of the same type.
func fresh(msg any) any { return reflect.New(reflect.TypeOf(msg).Elem()).Interface() }

// golden returns the recorded bytes of protocol number n. With -update those of
// the number of today are written first; older ones are never touched.
func golden(t *testing.T, n int, name string, now []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "v"+strconv.Itoa(n), name+".hex")
	if *update && n == wire.Protocol {
		if err := os.WriteFile(path, []byte(wrap(hex.EncodeToString(now))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (a new message? run the test with -update)", err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wrap(s string) string {
	var b strings.Builder
	for ; len(s) > 64; s = s[64:] {
		b.WriteString(s[:64] + "\n")
	}
	return b.String() + s + "\n"
}

func encode(t *testing.T, msg any) []byte {
	t.Helper()
	b, err := wire.Encode(msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A message is sent and read as it was recorded when its protocol number was
// new: devices in the field do not change with the server.
func TestMessagesAreAsRecorded(t *testing.T) {
	for name, msg := range messages {
		t.Run(name, func(t *testing.T) {
			b := encode(t, msg)
			want := golden(t, wire.Protocol, name, b)
			if !bytes.Equal(b, want) {
				t.Errorf("encoded\n%x, recorded\n%x", b, want)
			}
			got := fresh(msg)
			if err := wire.Decode(want, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(msg, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every field of every message is set in messages: a field that is added later
// without a recording is found here.
func TestRecordingsCoverEveryField(t *testing.T) {
	set := map[reflect.Type]map[string]bool{}
	for _, msg := range messages {
		covered(reflect.ValueOf(msg), set)
	}
	for typ, fields := range set {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && !fields[f.Name] {
				t.Errorf("%v.%s is zero in every recording", typ, f.Name)
			}
		}
	}
}

func covered(v reflect.Value, set map[reflect.Type]map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			covered(v.Elem(), set)
		}
	case reflect.Slice:
		for i := range v.Len() {
			covered(v.Index(i), set)
		}
	case reflect.Struct:
		if set[v.Type()] == nil {
			set[v.Type()] = map[string]bool{}
		}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				set[v.Type()][v.Type().Field(i).Name] = true
			}
			covered(v.Field(i), set)
		}
	}
}

// Whatever is cut, doubled, unknown or left over is refused, in every message.
func TestDamagedMessagesAreRefused(t *testing.T) {
	for name, msg := range messages {
		t.Run(name, func(t *testing.T) {
			good := encode(t, msg)
			refuse := func(what string, b []byte) {
				t.Helper()
				if err := wire.Decode(b, fresh(msg)); !errors.Is(err, wire.ErrMalformed) {
					t.Errorf("%s: %v", what, err)
				}
			}
			for n := range good {
				refuse("cut at "+strconv.Itoa(n), good[:n])
			}
			refuse("a byte behind", append(bytes.Clone(good), 0))
			if good[0]&0xe0 != 0xa0 || good[0]&0x1f > 22 {
				t.Fatalf("%x is no short map", good[0])
			}
			more := append([]byte{good[0] + 1}, good[1:]...)
			refuse("unknown key", append(bytes.Clone(more), 0x18, 99, 0))
			var key, value cbor.RawMessage
			rest, err := cbor.UnmarshalFirst(good[1:], &key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cbor.UnmarshalFirst(rest, &value); err != nil {
				t.Fatal(err)
			}
			refuse("key twice", append(append(bytes.Clone(more), key...), value...))
			refuse("text keys", []byte{0xa1, 0x61, 'a', 0x01})
			refuse("map of any length", append(append([]byte{0xbf}, good[1:]...), 0xff))
			refuse("tagged", append([]byte{0xc1}, good...))
			refuse("not a map", []byte{0x01})
			refuse("too long", append(bytes.Clone(good), make([]byte, wire.MaxMessage)...))
		})
	}
}

// What decodes but makes no sense is refused too.
func TestChecks(t *testing.T) {
	long := strings.Repeat("x", 300)
	many := map[string]string{}
	for i := range 65 {
		many[strconv.Itoa(i)] = ""
	}
	nonce := make([]byte, 16)
	address := []wire.Address{{Server: "https://a:1", MQTT: "a:1"}}
	record := wire.Record{Epoch: 1, Sequence: 1, Payload: []byte{1}}
	blob := func(rs ...wire.Range) *wire.Get { return &wire.Get{Blob: &wire.BlobGet{Ranges: rs}} }
	token := func(change func(*wire.EnrolToken)) *wire.EnrolToken {
		x := *messages["enrol-token"].(*wire.EnrolToken)
		change(&x)
		return &x
	}
	for name, msg := range map[string]any{
		"hello without protocols":          &wire.Hello{},
		"hello with too many protocols":    &wire.Hello{Protocols: make([]int, 9)},
		"hello with too many facts":        &wire.Hello{Protocols: []int{1}, Facts: many},
		"hello with a long fact":           &wire.Hello{Protocols: []int{1}, Facts: map[string]string{"a": long}},
		"hello with an empty fact name":    &wire.Hello{Protocols: []int{1}, Facts: map[string]string{"": "x"}},
		"hello with an escape in a fact":   &wire.Hello{Protocols: []int{1}, Facts: map[string]string{"class": "\x1b[2J"}},
		"hello with a line in a fact name": &wire.Hello{Protocols: []int{1}, Facts: map[string]string{"a\nkey": "x"}},
		"hello with a turned fact":         &wire.Hello{Protocols: []int{1}, Facts: map[string]string{"class": "right\u202eto left"}},
		"hello with a long agent":          &wire.Hello{Protocols: []int{1}, Agent: long},
		"hello with an escape for agent":   &wire.Hello{Protocols: []int{1}, Agent: "1.0\a"},
		"hello with a long fact name":      &wire.Hello{Protocols: []int{1}, Facts: map[string]string{long: "x"}},
		"hello with too many models":       &wire.Hello{Protocols: []int{1}, Models: make([]wire.ModelState, 65)},
		"hello with a long trouble":        &wire.Hello{Protocols: []int{1}, Signpost: &wire.SignpostHeld{Trouble: long}},
		"signpost without CAs":             &wire.Signpost{Device: "a", Number: 1, Addresses: address},
		"signpost with too many CAs":       &wire.Signpost{Device: "a", Number: 1, CAs: make([][]byte, 5), Addresses: address},
		"signpost with an empty CA":        &wire.Signpost{Device: "a", Number: 1, CAs: [][]byte{{}}, Addresses: address},
		"signpost without addresses":       &wire.Signpost{Device: "a", Number: 1, CAs: [][]byte{{1}}},
		"signpost with too many addresses": &wire.Signpost{Device: "a", Number: 1, CAs: [][]byte{{1}}, Addresses: make([]wire.Address, 5)},
		"signpost without TLS":             &wire.Signpost{Device: "a", Number: 1, CAs: [][]byte{{1}}, Addresses: []wire.Address{{Server: "http://a:1", MQTT: "a:1"}}},
		"signpost without a port":          &wire.Signpost{Device: "a", Number: 1, CAs: [][]byte{{1}}, Addresses: []wire.Address{{Server: "https://a:1", MQTT: "a"}}},
		"signpost without a number":        &wire.Signpost{Device: "a", CAs: [][]byte{{1}}, Addresses: address},
		"signpost of nobody":               &wire.Signpost{Number: 1, CAs: [][]byte{{1}}, Addresses: address},
		"hello with too many queues":       &wire.Hello{Protocols: []int{1}, Queues: make([]wire.QueueState, 5)},
		"welcome with a short nonce":       &wire.Welcome{Nonce: nonce[:15], Window: 60, Heartbeat: 60},
		"welcome without window":           &wire.Welcome{Nonce: nonce, Heartbeat: 60},
		"welcome with a negative window":   &wire.Welcome{Nonce: nonce, Window: -1, Heartbeat: 60},
		"welcome with a long heartbeat":    &wire.Welcome{Nonce: nonce, Window: 60, Heartbeat: 86401},
		"welcome with too many acks":       &wire.Welcome{Nonce: nonce, Window: 60, Heartbeat: 60, Acked: make([]wire.Ack, 5)},
		"sample with a metric of no name":  &wire.Sample{Seconds: 60, Metrics: map[string]sketch.Moments{"": {N: 1}}},
		"sample with an empty metric":      &wire.Sample{Seconds: 60, Metrics: map[string]sketch.Moments{"a": {}}},
		"sample with impossible moments":   &wire.Sample{Seconds: 60, Metrics: map[string]sketch.Moments{"a": {N: 2, Mean: 3, Min: 0, Max: 1}}},
		"sample with too many confused":    &wire.Sample{Seconds: 60, Truth: &wire.Truth{Confused: make([]wire.Confused, wire.MaxConfused+1)}},
		"sample with a class out of reach": &wire.Sample{Seconds: 60, Truth: &wire.Truth{Confused: []wire.Confused{{Right: 1 << 20}}}},
		"hello with a long capture mark":   &wire.Hello{Protocols: []int{1}, Capture: &wire.CaptureHeld{Mark: make([]byte, 9)}},
		"capture order of nobody":          &wire.CaptureOrders{Number: 1},
		"capture orders of no number":      &wire.CaptureOrders{Device: "a"},
		"too many capture orders":          &wire.CaptureOrders{Device: "a", Number: 1, Orders: make([]wire.CaptureOrder, 9)},
		"capture order of no model":        &wire.CaptureOrders{Device: "a", Number: 1, Orders: []wire.CaptureOrder{{ID: "c", Where: "x", Max: 1, Bytes: 1, Expires: 1}}},
		"capture order with a long where":  &wire.CaptureOrders{Device: "a", Number: 1, Orders: []wire.CaptureOrder{{ID: "c", Model: "m", Where: long + long, Max: 1, Bytes: 1, Expires: 1}}},
		"capture order without bounds":     &wire.CaptureOrders{Device: "a", Number: 1, Orders: []wire.CaptureOrder{{ID: "c", Model: "m", Where: "x"}}},
		"captured of nothing":              &wire.Captured{},
		"captured with a short id":         &wire.Captured{Capture: "c", Sample: nonce[:15]},
		"captured with a long label":       &wire.Captured{Capture: "c", Sample: nonce, Label: long},
		"captured with other feedback":     &wire.Captured{Capture: "c", Sample: nonce, Feedback: "maybe"},
		"captured bytes of no part":        &wire.Captured{Capture: "c", Sample: nonce, Bytes: []byte{1}},
		"captured of no inputs":            &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Digest: make([]byte, 32)},
		"captured without a digest":        &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Inputs: []wire.CapturedInput{{Size: 1}}},
		"captured of an endless input":     &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Digest: make([]byte, 32), Inputs: []wire.CapturedInput{{Size: 1 << 40}}},
		"captured in another encoding":     &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Digest: make([]byte, 32), Inputs: []wire.CapturedInput{{Size: 1, Encoding: "gif"}}},
		"captured with too few parts":      &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Digest: make([]byte, 32), Inputs: []wire.CapturedInput{{Size: wire.MaxCapturePart + 1}}},
		"captured part beyond the last":    &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Part: 1, Bytes: []byte{1}, Digest: make([]byte, 32), Inputs: []wire.CapturedInput{{Size: 1}}},
		"captured part that is too short":  &wire.Captured{Capture: "c", Sample: nonce, Parts: 1, Bytes: []byte{1}, Digest: make([]byte, 32), Inputs: []wire.CapturedInput{{Size: 2}}},
		"get of nothing":                   &wire.Get{},
		"get of both":                      &wire.Get{Refresh: &wire.Held{}, Blob: &wire.BlobGet{Ranges: []wire.Range{{Length: 1}}}},
		"get without ranges":               blob(),
		"get of too many ranges":           blob(make([]wire.Range, 9)...),
		"get of an empty range":            blob(wire.Range{}),
		"get of a long range":              blob(wire.Range{Length: wire.MaxBlock + 1}),
		"get of a negative offset":         blob(wire.Range{Offset: -1, Length: 1}),
		"batch of nothing":                 &wire.Batch{},
		"batch of too many":                &wire.Batch{Records: make([]wire.Record, wire.MaxBatch+1)},
		"batch with sequence 0":            &wire.Batch{Records: []wire.Record{{Epoch: 1}}},
		"batch out of order":               &wire.Batch{Records: []wire.Record{{Epoch: 1, Sequence: 2}, record}},
		"batch with a record twice":        &wire.Batch{Records: []wire.Record{record, record}},
		"batch of two epochs":              &wire.Batch{Records: []wire.Record{record, {Epoch: 2, Sequence: 2}}},
		"token to a server without TLS":    token(func(x *wire.EnrolToken) { x.Server = "http://fleet.example" }),
		"token without id":                 token(func(x *wire.EnrolToken) { x.ID = "" }),
		"token without channel":            token(func(x *wire.EnrolToken) { x.Channel = "" }),
		"token with a short secret":        token(func(x *wire.EnrolToken) { x.Secret = x.Secret[1:] }),
		"token without CA fingerprint":     token(func(x *wire.EnrolToken) { x.CA = nil }),
		"token with a short catalog root":  token(func(x *wire.EnrolToken) { x.CatalogRoot = x.CatalogRoot[1:] }),
		"token without director root":      token(func(x *wire.EnrolToken) { x.DirectorRoot = nil }),
	} {
		if err := wire.Decode(encode(t, msg), fresh(msg)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTopics(t *testing.T) {
	for _, k := range wire.UpKinds {
		device, up, kind, err := wire.ParseTopic(wire.UpTopic("meter-1", k))
		if device != "meter-1" || !up || kind != k || err != nil {
			t.Errorf("up %s: %s %v %s %v", k, device, up, kind, err)
		}
	}
	for _, k := range wire.DownKinds {
		device, up, kind, err := wire.ParseTopic(wire.DownTopic("meter-1", k))
		if device != "meter-1" || up || kind != k || err != nil {
			t.Errorf("down %s: %s %v %s %v", k, device, up, kind, err)
		}
	}
	for _, bad := range []string{
		"", "dunlin/v1/", "dunlin/v1/meter-1", "dunlin/v1/meter-1/up", "dunlin/v1/meter-1/up/", "dunlin/v1/meter-1/up/welcome", "dunlin/v1/meter-1/down/hello",
		"dunlin/v1/meter-1/up/hello/x", "dunlin/v1//up/hello", "dunlin/v1/Meter/up/hello", "dunlin/v1/+/up/hello", "dunlin/v2/meter-1/up/hello", "x/dunlin/v1/meter-1/up/hello",
		"dunlin/v1/" + strings.Repeat("a", 65) + "/up/hello", "dunlin/v1/a.b/up/hello", "dunlin/v1/meter-1\n/up/hello",
	} {
		if _, _, _, err := wire.ParseTopic(bad); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
