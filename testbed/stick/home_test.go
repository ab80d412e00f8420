package stick

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func sample(start int64) *wire.Sample {
	q := &sketch.Quantiles{}
	q.Add(120)
	return &wire.Sample{Start: start, Seconds: 60, Model: "digits", Requests: 1, Latency: q.Encode()}
}

func batch(k wire.Kind, rs ...wire.Record) wire.ReceiptBatch {
	return wire.ReceiptBatch{Kind: k, Batch: wire.Batch{Records: rs}}
}

// TestHome brings a device's receipt home, twice, and then the same records by
// network: the device is proven, the rollout counts it, samples and events are
// there once, and the next lockbox says what the server has.
func TestHome(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	s.wish(d.id, "1.0.0")
	dir, x, _ := s.export(fleet.LockboxRequest{})
	_, err := d.plug(dir)
	must(t, err)
	s.now = s.now.Add(10 * day)
	samples := batch(wire.KindSample, d.record(sample(60)), d.record(sample(120)))
	events := batch(wire.KindEvent, d.record(&wire.Event{Type: "usb.imported"}))
	report := d.runs("1.0.0", d.note().Nonce)
	b := d.receipt(x.ID, &report, samples, events)
	want := fleet.LockboxReceipt{Device: d.id, Lockbox: x.ID, Proof: fleet.Proven, Reports: 1, Samples: 2, Events: 1}
	for range 2 {
		got, err := s.in.Receipt(t.Context(), b)
		must(t, err)
		if *got != want {
			t.Errorf("%+v, want %+v", *got, want)
		}
	}
	if _, err := s.in.Records(t.Context(), d.id, wire.KindSample, &samples.Batch); err != nil {
		t.Error(err)
	}
	ss, err := s.db.Samples(t.Context(), d.id, 0, 9)
	must(t, err)
	es, err := s.db.Events(t.Context(), d.id, "", 9)
	must(t, err)
	if len(ss) != 2 || len(es) != 1 {
		t.Errorf("%d samples, %d events", len(ss), len(es))
	}
	ms, err := s.db.Members(t.Context(), s.rollout.ID)
	must(t, err)
	if len(ms) != 1 || ms[0].Outcome != fleet.OutcomeGood || ms[0].Acked.IsZero() {
		t.Errorf("member %+v", ms)
	}
	if x, err := s.db.Device(t.Context(), d.id); err != nil || x.Epoch != d.epoch || x.Facts["class"] != "pi" || x.Agent != "1.0" {
		t.Errorf("device %+v, %v", x, err)
	}
	dir, _, _ = s.export(fleet.LockboxRequest{})
	d.now = s.now
	_, err = d.plug(dir)
	must(t, err)
	acked := map[wire.Kind]uint64{}
	for _, a := range d.note().Acked {
		if a.Epoch == "7" {
			acked[a.Kind] = a.Sequence
		}
	}
	if acked[wire.KindSample] != 2 || acked[wire.KindEvent] != 3 || acked[wire.KindReport] != 0 {
		t.Errorf("the next lockbox acknowledges %v", acked)
	}
}

// TestReceiptIsRefused names who or what is not believed; nothing of it is kept.
func TestReceiptIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		receipt func(s *server, d *device, good []byte) []byte
		want    *fleet.Error
	}{
		"a changed byte": {func(_ *server, _ *device, b []byte) []byte { b[len(b)/2] ^= 1; return b }, fleet.ErrReceipt},
		"cut":            {func(_ *server, _ *device, b []byte) []byte { return b[:len(b)-9] }, fleet.ErrReceipt},
		"empty":          {func(*server, *device, []byte) []byte { return nil }, fleet.ErrReceipt},
		"longer":         {func(_ *server, _ *device, b []byte) []byte { return append(b, 0) }, fleet.ErrReceipt},
		"another's key": {func(s *server, d *device, _ []byte) []byte {
			d.key = s.enrol("meter-2").key
			return d.receipt("lbx", nil)
		}, fleet.ErrReceipt},
		"nobody's": {func(_ *server, d *device, _ []byte) []byte { d.id = "meter-9"; return d.receipt("lbx", nil) }, fleet.ErrReceipt},
		"revoked": {func(s *server, d *device, b []byte) []byte {
			must(s.t, s.db.Revoke(s.t.Context(), d.id, fleet.Audit{ID: "aud_1"}))
			return b
		}, fleet.ErrDeviceRevoked},
		"of a kind that is not kept": {func(_ *server, d *device, _ []byte) []byte {
			return d.receipt("lbx", nil, batch(wire.KindHello, d.record(sample(60))))
		}, fleet.ErrReceipt},
		"a report of another": {func(s *server, d *device, _ []byte) []byte {
			r := s.enrol("meter-2").runs("1.0.0", nil)
			return d.receipt("lbx", &r)
		}, fleet.ErrReceipt},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			d := s.enrol("meter-1")
			s.wish(d.id, "1.0.0")
			dir, x, _ := s.export(fleet.LockboxRequest{})
			_, err := d.plug(dir)
			must(t, err)
			report := d.runs("1.0.0", d.note().Nonce)
			good := d.receipt(x.ID, &report, batch(wire.KindSample, d.record(sample(60))))
			if _, err := s.in.Receipt(t.Context(), c.receipt(s, d, good)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %s", err, c.want.Code)
			}
			stored, err := s.db.Device(t.Context(), "meter-1")
			must(t, err)
			ss, err := s.db.Samples(t.Context(), "meter-1", 0, 9)
			must(t, err)
			if stored.Proof != "" || len(ss) != 0 {
				t.Errorf("kept: proof %q, %d samples", stored.Proof, len(ss))
			}
		})
	}
}

// TestProof is given for a nonce of a lockbox, to the newest that is known of the
// device only.
func TestProof(t *testing.T) {
	for name, c := range map[string]struct {
		receipt func(s *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte
		want    string // of the device, afterwards
		epoch   uint64
	}{
		"with the lockbox's nonce": {func(_ *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte {
			r := d.runs("1.0.0", nonce)
			return d.receipt(x.ID, &r)
		}, fleet.Proven, 7},
		"after it expired, on its way home": {func(s *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte {
			r := d.runs("1.0.0", nonce)
			s.now = s.now.Add(60 * day)
			return d.receipt(x.ID, &r)
		}, fleet.Proven, 7},
		"half a year later": {func(s *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte {
			r := d.runs("1.0.0", nonce)
			s.now = s.now.Add(180 * day)
			return d.receipt(x.ID, &r)
		}, fleet.Claimed, 7},
		"with another's nonce": {func(s *server, d *device, x *fleet.LockboxExport, _ []byte) []byte {
			s.enrol("meter-2")
			s.export(fleet.LockboxRequest{})
			ls, err := s.db.Lockboxes(s.t.Context(), "meter-2")
			must(s.t, err)
			r := d.runs("1.0.0", ls[0].Nonce)
			return d.receipt(x.ID, &r)
		}, fleet.Claimed, 7},
		"without one": {func(_ *server, d *device, x *fleet.LockboxExport, _ []byte) []byte {
			r := d.runs("1.0.0", nil)
			return d.receipt(x.ID, &r)
		}, fleet.Claimed, 7},
		"of the first of two lockboxes": {func(s *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte {
			s.export(fleet.LockboxRequest{})
			r := d.runs("1.0.0", nonce)
			return d.receipt(x.ID, &r)
		}, fleet.Proven, 7},
		"of a lockbox that nobody knows": {func(_ *server, d *device, _ *fleet.LockboxExport, nonce []byte) []byte {
			r := d.runs("1.0.0", nonce)
			return d.receipt("lbx_unknown", &r)
		}, "", 0},
		"older than what the device said by network": {func(s *server, d *device, x *fleet.LockboxExport, nonce []byte) []byte {
			r := d.runs("1.0.0", nonce)
			b := d.receipt(x.ID, &r)
			s.now, d.epoch = s.now.Add(time.Hour), 9 // its disk was lost meanwhile
			h := d.hello()
			_, err := s.in.Hello(s.t.Context(), d.id, &h)
			must(s.t, err)
			return b
		}, "", 9},
		"newer than what the device said by network": {func(s *server, d *device, _ *fleet.LockboxExport, _ []byte) []byte {
			d.epoch = 3
			h := d.hello()
			_, err := s.in.Hello(s.t.Context(), d.id, &h)
			must(s.t, err)
			s.now, d.epoch = s.now.Add(time.Hour), 7
			dir, x, _ := s.export(fleet.LockboxRequest{})
			_, err = d.plug(dir)
			must(s.t, err)
			r := d.runs("1.0.0", d.note().Nonce)
			return d.receipt(x.ID, &r)
		}, fleet.Proven, 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			d := s.enrol("meter-1")
			s.wish(d.id, "1.0.0")
			dir, x, _ := s.export(fleet.LockboxRequest{})
			_, err := d.plug(dir)
			must(t, err)
			_, err = s.in.Receipt(t.Context(), c.receipt(s, d, x, d.note().Nonce))
			must(t, err)
			got, err := s.db.Device(t.Context(), d.id)
			must(t, err)
			if got.Proof != c.want || got.Epoch != c.epoch {
				t.Errorf("proof %q, epoch %d; want %q, %d", got.Proof, got.Epoch, c.want, c.epoch)
			}
			rs, err := s.db.Reports(t.Context(), d.id, 9)
			must(t, err)
			if len(rs) != 1 {
				t.Errorf("%d reports are stored", len(rs))
			}
		})
	}
}

// TestReceiptsOfAFolder reads what may be receipts and nothing else.
func TestReceiptsOfAFolder(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	dir, _, _ := s.export(fleet.LockboxRequest{})
	stick, err := d.plug(dir)
	must(t, err)
	must(t, stick.WriteReceipt([]byte("receipt")))
	folder := filepath.Join(dir, wire.LockboxDir, wire.LockboxReceipts)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	name := func(c byte) string { return filepath.Join(folder, string(bytes.Repeat([]byte{c}, 64))) }
	must(t, os.Symlink(secret, name('a')))
	must(t, os.Mkdir(name('b'), 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "readme"), []byte("x"), 0o644))
	must(t, os.WriteFile(filepath.Join(folder, ".x.tmp-00000000"), []byte("x"), 0o644))
	must(t, os.WriteFile(name('c'), nil, 0o644))
	must(t, os.Truncate(name('c'), 1<<40))
	var got []string
	err = lockbox.Receipts(dir, func(b []byte) error { got = append(got, string(b)); return nil })
	if len(got) != 1 || got[0] != "receipt" || !errors.Is(err, fleet.ErrReceipt) {
		t.Errorf("%q, %v", got, err)
	}
	if err := lockbox.Receipts(t.TempDir(), nil); !errors.Is(err, fleet.ErrLockboxFolder) {
		t.Errorf("an empty folder: %v", err)
	}
}
