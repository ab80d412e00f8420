package telemetry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// between calls do once, after the named method of the store, or fails the nth
// change.
type between struct {
	telemetry.Store
	after string
	do    func()
	fail  int // of the changes, counted from 1; 0: none
	n     int
}

var errDied = errors.New("the server died here")

func (b *between) Wish(ctx context.Context, d string) (*fleet.Wish, error) {
	w, err := b.Store.Wish(ctx, d)
	if b.after == "Wish" {
		b.after = ""
		b.do()
	}
	return w, err
}

func (b *between) change() error {
	if b.n++; b.n == b.fail {
		return errDied
	}
	return nil
}

func (b *between) UpdateDevice(ctx context.Context, id string, f func(*fleet.Device) error) error {
	return errors.Join(b.change(), b.Store.UpdateDevice(ctx, id, f)) // committed, and the answer lost
}

func (b *between) SettleMembers(ctx context.Context, d string, f func([]fleet.Member) []fleet.Member) error {
	if err := b.change(); err != nil {
		return err
	}
	return b.Store.SettleMembers(ctx, d, f)
}

func (b *between) InsertReports(ctx context.Context, rs []fleet.Report) error {
	if err := b.change(); err != nil {
		return err
	}
	return b.Store.InsertReports(ctx, rs)
}

func (b *between) AddAudit(ctx context.Context, a fleet.Audit) error {
	if err := b.change(); err != nil {
		return err
	}
	return b.Store.AddAudit(ctx, a)
}

func (b *between) SetAcked(ctx context.Context, d string, a wire.Ack) error {
	if err := b.change(); err != nil {
		return err
	}
	return b.Store.SetAcked(ctx, d, a)
}

func TestWhatAReportProves(t *testing.T) {
	unproven := active(path, "trying")
	unproven.Active.Proven = false
	for _, c := range []struct {
		name   string
		change func(*rig, *wire.Report)
		proof  string
		newest bool
	}{
		{"signed, risen, newest nonce", func(*rig, *wire.Report) {}, fleet.Proven, true},
		{"nonce of a former welcome", func(r *rig, _ *wire.Report) { r.hello() }, fleet.Claimed, true},
		{"no nonce", func(_ *rig, rep *wire.Report) { rep.Nonce = nil }, fleet.Claimed, true},
		{"no welcome yet, empty nonce", func(r *rig, rep *wire.Report) {
			rep.Nonce = nil
			must(r.t, r.db.UpdateDevice(r.t.Context(), device, func(d *fleet.Device) error { d.Nonce = nil; return nil }))
		}, fleet.Claimed, true},
		{"counter fallen", func(_ *rig, rep *wire.Report) { rep.Counter = 1 }, fleet.Claimed, false},
		{"counter not risen", func(_ *rig, rep *wire.Report) { rep.Counter-- }, fleet.Claimed, false},
		{"serves what did not pass prove", func(_ *rig, rep *wire.Report) { rep.Models = []wire.ModelState{unproven} }, fleet.Claimed, true},
		{"former epoch", func(r *rig, _ *wire.Report) {
			old := r.epoch
			r.epoch++
			r.hello()
			r.epoch = old
		}, fleet.Claimed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.hello()
			r.counter = 4
			r.send(r.report(active(before, "good")))
			rep := r.report(active(path, "good"))
			c.change(r, rep)
			r.send(rep)
			stored, err := r.db.Reports(t.Context(), device, 1)
			must(t, err)
			if stored[0].Proof != c.proof {
				t.Errorf("stored as %s, want %s", stored[0].Proof, c.proof)
			}
			want := path
			if !c.newest {
				want = before
			}
			if d := r.device(); d.Models[0].Active.Path != want {
				t.Errorf("the device runs %s, want %s", d.Models[0].Active.Path, want)
			}
			proof := c.proof
			if !c.newest {
				proof = fleet.Proven // by the report before
			}
			if d := r.device(); d.Proof != proof {
				t.Errorf("the device's state is %s, want %s", d.Proof, proof)
			}
		})
	}
}

// TestForeignAndBrokenReportsChangeNothing puts each in front of a good one: it is
// named with its code, the good one takes effect, and the device goes on.
func TestForeignAndBrokenReportsChangeNothing(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	for _, c := range []struct {
		name    string
		payload func(*rig) []byte
		want    error
	}{
		{"another key", func(r *rig) []byte { r.key = other; return r.sign(r.report()) }, wire.ErrSignature},
		{"another type", func(r *rig) []byte {
			env, err := wire.Sign(r.key, "application/other", r.report())
			must(t, err)
			return encode(t, env)
		}, wire.ErrSignature},
		{"another device", func(r *rig) []byte { rep := r.report(); rep.Device = "meter-2"; return r.sign(rep) }, wire.ErrMalformed},
		{"another epoch than its record", func(r *rig) []byte { rep := r.report(); rep.Epoch++; return r.sign(rep) }, wire.ErrMalformed},
		{"no envelope", func(*rig) []byte { return []byte("hello") }, wire.ErrMalformed},
		{"a changed byte", func(r *rig) []byte {
			env, err := wire.Sign(r.key, wire.ReportType, r.report())
			must(t, err)
			env.Payload[len(env.Payload)/2] ^= 1
			return encode(t, env)
		}, wire.ErrSignature},
		{"signed, but no report", func(r *rig) []byte {
			env, err := wire.Sign(r.key, wire.ReportType, map[int]string{99: "x"})
			must(t, err)
			return encode(t, env)
		}, wire.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.hello()
			good := r.sign(r.report(active(before, "good")))
			b := r.batch(c.payload(r), good)
			for range 2 { // the acknowledgement of the first is lost
				ack, err := r.in.Records(t.Context(), device, wire.KindReport, b)
				must(t, err)
				if ack.Sequence != 2 {
					t.Errorf("%+v", ack)
				}
			}
			r.wantRefused(fmt.Sprintf("report, epoch %x: 1 %s, because: ", r.epoch, wire.Code(c.want)))
			if d := r.device(); d.Counter != 1 || d.Models[0].Active.Path != before {
				t.Errorf("the device is at report %d: %+v", d.Counter, d.Models)
			}
			rs, err := r.db.Reports(t.Context(), device, 9)
			must(t, err)
			if len(rs) != 1 || rs[0].Sequence != 2 {
				t.Errorf("stored: %+v", rs)
			}
		})
	}
}

// wantRefused wants the audit to name refused records, once for each of these
// beginnings.
func (r *rig) wantRefused(beginnings ...string) {
	r.t.Helper()
	as, err := r.db.Audit(r.t.Context(), device, "", 9)
	must(r.t, err)
	as = slices.DeleteFunc(as, func(a fleet.Audit) bool { return a.Act != "record.refused" })
	if len(as) != len(beginnings) {
		r.t.Fatalf("%d times refused, want %d: %+v", len(as), len(beginnings), as)
	}
	slices.Reverse(as) // the oldest first
	for n, a := range as {
		if !strings.HasPrefix(a.Detail, beginnings[n]) || len(a.Detail) <= len(beginnings[n]) || a.Actor != "server" {
			r.t.Errorf("refused: %+v, want %s", a, beginnings[n])
		}
	}
}

func TestRepeatsChangeNothing(t *testing.T) {
	r := newRig(t)
	r.hello()
	first := r.batch(r.sign(r.report(active(before, "good"))), r.sign(r.report(active(path, "trying"))))
	second := r.batch(r.sign(r.report(active(path, "good"))))
	for n, b := range []*wire.Batch{first, second, first, second} {
		ack, err := r.in.Records(t.Context(), device, wire.KindReport, b)
		must(t, err)
		if want := b.Records[len(b.Records)-1].Sequence; ack.Sequence != want || ack.Epoch != r.epoch || ack.Kind != wire.KindReport {
			t.Errorf("batch %d: %+v", n, ack)
		}
	}
	if rs, _ := r.db.Reports(t.Context(), device, 9); len(rs) != 3 {
		t.Errorf("%d reports stored", len(rs))
	}
	if as, _ := r.db.Acked(t.Context(), device, r.epoch); len(as) != 1 || as[0].Sequence != 3 {
		t.Errorf("acknowledged: %v", as)
	}
	if d := r.device(); d.Models[0].Active.Verdict != "good" || d.Counter != 3 || d.Proof != fleet.Proven {
		t.Errorf("a repeat took the device back: %+v", d)
	}
}

// TestAReplayedReportChangesNothing sends the newest report again as another record,
// in the same session and after the next welcome: what was proven stays, what was
// claimed is not proven by it, and its time does not move.
func TestAReplayedReportChangesNothing(t *testing.T) {
	for _, first := range []string{fleet.Proven, fleet.Claimed} {
		r := newRig(t)
		ro := r.rollout(spec())
		r.generation = 1
		r.hello()
		rep := r.report(active(path, "good"))
		if first == fleet.Claimed { // signed for a welcome that is not known yet
			rep.Nonce = []byte("sixteen bytes...")
		}
		signed := r.sign(rep)
		for n := range 4 {
			switch n {
			case 2:
				must(t, r.db.UpdateDevice(t.Context(), device, func(d *fleet.Device) error { d.Nonce = []byte("sixteen bytes..."); return nil }))
			case 3:
				r.hello()
			}
			r.now = r.now.Add(time.Minute)
			_, err := r.in.Records(t.Context(), device, wire.KindReport, r.batch(signed))
			must(t, err)
			if d := r.device(); d.Proof != first || !d.ReportedAt.Equal(start.Add(time.Minute)) || d.Counter != 1 {
				t.Errorf("%s, sent %d times: %s at %v, counter %d", first, n+1, d.Proof, d.ReportedAt, d.Counter)
			}
			want := map[string]string{fleet.Proven: fleet.OutcomeGood, fleet.Claimed: ""}[first]
			if m := r.member(ro); m.Outcome != want {
				t.Errorf("%s, sent %d times: the outcome is %q", first, n+1, m.Outcome)
			}
		}
		rs, err := r.db.Reports(t.Context(), device, 9)
		must(t, err)
		for _, x := range rs[:len(rs)-1] {
			if x.Proof != fleet.Claimed {
				t.Errorf("%s: replay %d is stored as %s", first, x.Sequence, x.Proof)
			}
		}
	}
}

// TestNothingIsAcknowledgedBeforeItIsKept lets the server die at every change that
// a report makes; the device sends it again, and the end is the same.
func TestNothingIsAcknowledgedBeforeItIsKept(t *testing.T) {
	points := 0
	for fail := 1; ; fail++ {
		r := newRig(t)
		ro := r.rollout(spec())
		r.generation = 1
		r.hello()
		b := r.batch(r.sign(r.report(candidate(path, "trying", "", 1))), []byte("not understood"), r.sign(r.report(active(path, "good"))))
		store := &between{Store: r.db, fail: fail}
		r.in.Store = store
		_, err := r.in.Records(t.Context(), device, wire.KindReport, b)
		if err == nil {
			points = store.n
			break
		}
		if as, _ := r.db.Acked(t.Context(), device, r.epoch); len(as) != 0 {
			t.Fatalf("change %d: acknowledged although the server died", fail)
		}
		_, err = r.in.Records(t.Context(), device, wire.KindReport, b)
		must(t, err)
		if m := r.member(ro); m.Outcome != fleet.OutcomeGood || m.Answered != 12 {
			t.Errorf("change %d: member is %+v", fail, m)
		}
		rs, err := r.db.Reports(t.Context(), device, 9)
		must(t, err)
		if len(rs) != 2 || rs[0].Proof != fleet.Proven || rs[1].Proof != fleet.Proven {
			t.Errorf("change %d: %d reports: %+v", fail, len(rs), rs)
		}
		if d := r.device(); d.Counter != 2 || d.Proof != fleet.Proven {
			t.Errorf("change %d: the device is at report %d, %s", fail, d.Counter, d.Proof)
		}
	}
	if points < 5 {
		t.Errorf("died at %d points only", points)
	}
	t.Logf("died at each of %d changes", points)
}

func TestOutcomes(t *testing.T) {
	old := spec()
	old.Attempt = 2
	notProven := func(r *rig, rep *wire.Report) { rep.Nonce = nil }
	type step struct {
		state   wire.ModelState
		change  func(*rig, *wire.Report)
		outcome string
		code    string
	}
	for _, c := range []struct {
		name  string
		spec  fleet.Spec
		steps []step
	}{
		{"good when proven", spec(), []step{
			{state: active(before, "good")},
			{state: candidate(path, "unknown", "", 1)},
			{state: active(path, "trying")},
			{state: active(path, "good"), change: notProven},
			{state: active(path, "good"), outcome: fleet.OutcomeGood},
		}},
		{"refused, also when only claimed", spec(), []step{
			{state: candidate(path, "bad", "prove.golden", 1), change: notProven, outcome: fleet.OutcomeFailed, code: "prove.golden"},
		}},
		{"taken back after it was good", spec(), []step{
			{state: active(path, "good"), outcome: fleet.OutcomeGood},
			{state: candidate(path, "bad", "probation.score", 1), outcome: fleet.OutcomeFailed, code: "probation.score"},
		}},
		{"bad of a former attempt does not count", old, []step{
			{state: candidate(path, "bad", "prove.golden", 1)},
			{state: candidate(path, "bad", "prove.latency", 2), outcome: fleet.OutcomeFailed, code: "prove.latency"},
		}},
		{"another release is nobody's outcome", spec(), []step{
			{state: candidate("production/digits/9.9.9", "bad", "prove.golden", 1)},
			{state: candidate("staging/digits/1.1.0", "bad", "prove.golden", 1)},
		}},
		{"another model is nobody's outcome", spec(), []step{
			{state: wire.ModelState{Model: "gauge", Active: &wire.SlotState{Path: path, Verdict: "good", Proven: true}}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			ro := r.rollout(c.spec)
			r.generation = 1
			r.hello()
			for n, s := range c.steps {
				r.now = r.now.Add(time.Second)
				rep := r.report(s.state)
				if s.change != nil {
					s.change(r, rep)
				}
				woken, had := r.woken, r.member(ro).Outcome
				r.send(rep)
				m := r.member(ro)
				if m.Outcome != s.outcome || m.Code != s.code {
					t.Fatalf("step %d: %q %q, want %q %q", n, m.Outcome, m.Code, s.outcome, s.code)
				}
				if m.Outcome != had && (!m.Settled.Equal(r.now) || r.woken == woken) {
					t.Errorf("step %d: settled at %v, woken %v", n, m.Settled, r.woken > woken)
				}
			}
		})
	}
}

func TestSilentDeviceThatComesBackIsGood(t *testing.T) {
	r := newRig(t)
	ro := r.rollout(spec())
	r.generation = 1
	r.hello()
	must(t, r.db.SettleMembers(t.Context(), device, func(ms []fleet.Member) []fleet.Member {
		ms[0].Outcome = fleet.OutcomeSilent
		return ms
	}))
	r.send(r.report(active(path, "good")))
	if m := r.member(ro); m.Outcome != fleet.OutcomeGood {
		t.Errorf("%+v", m)
	}
}

func TestReportsBeforeTheAssignmentAndAfterTheEndSettleNothing(t *testing.T) {
	r := newRig(t)
	ro := r.rollout(spec())
	r.generation = 1
	r.hello()
	must(t, r.db.SetRolloutStatus(t.Context(), ro.ID, []string{fleet.RolloutRunning}, fleet.RolloutAborted, "enough", fleet.Audit{}))
	r.send(r.report(active(path, "good")))
	if m := r.member(ro); m.Outcome != "" {
		t.Errorf("settled after the end: %+v", m)
	}
}

func sample() *wire.Sample {
	q := &sketch.Quantiles{}
	q.Add(120)
	h := sketch.NewHistogram(0, 1, 10)
	h.Add(0.5)
	return &wire.Sample{Start: start.Unix(), Seconds: 60, Model: "digits", Path: path, Requests: 1, Latency: q.Encode(), Score: &h}
}

func TestSamplesAndEventsAreKeptOnce(t *testing.T) {
	r := newRig(t)
	r.hello()
	event := &wire.Event{Unix: start.Unix(), Type: "update.refused", Model: "digits", Code: "prove.golden"}
	for _, c := range []struct {
		kind wire.Kind
		b    *wire.Batch
	}{{wire.KindSample, r.batch(encode(t, sample()), encode(t, sample()))}, {wire.KindEvent, r.batch(encode(t, event))}} {
		for range 2 {
			_, err := r.in.Records(t.Context(), device, c.kind, c.b)
			must(t, err)
		}
	}
	ss, err := r.db.Samples(t.Context(), device, 0, 9)
	must(t, err)
	es, err := r.db.Events(t.Context(), device, "", 9)
	must(t, err)
	if len(ss) != 2 || len(es) != 1 {
		t.Fatalf("%d samples, %d events", len(ss), len(es))
	}
	if diff := cmp.Diff(*sample(), ss[0].Sample); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(*event, es[0].Event); diff != "" {
		t.Error(diff)
	}
}

// TestRecordsThatCannotBeAddedUpAreLeftOut puts each between two good ones, which
// are kept.
func TestRecordsThatCannotBeAddedUpAreLeftOut(t *testing.T) {
	event := &wire.Event{Type: "x"}
	for _, c := range []struct {
		name string
		kind wire.Kind
		good any
		msg  any
	}{
		{"latency that is no sketch", wire.KindSample, sample(), func() *wire.Sample { s := sample(); s.Latency.Bytes = []byte{9, 9}; return s }()},
		{"score without bins", wire.KindSample, sample(), func() *wire.Sample { s := sample(); s.Score.Bins = nil; return s }()},
		{"window of no length", wire.KindSample, sample(), func() *wire.Sample { s := sample(); s.Seconds = 0; return s }()},
		{"window of a year", wire.KindSample, sample(), func() *wire.Sample { s := sample(); s.Seconds = 365 * 86400; return s }()},
		{"unknown key", wire.KindSample, sample(), map[int]int{99: 1}},
		{"event that is a list", wire.KindEvent, event, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			good := encode(t, c.good)
			ack, err := r.in.Records(t.Context(), device, c.kind, r.batch(good, encode(t, c.msg), good))
			must(t, err)
			if want := (wire.Ack{Kind: c.kind, Epoch: r.epoch, Sequence: 3}); ack != want {
				t.Errorf("%+v, want %+v", ack, want)
			}
			r.wantRefused(fmt.Sprintf("%s, epoch %x: 2 wire.malformed, because: ", c.kind, r.epoch))
			if got := r.kept(c.kind); !cmp.Equal(got, []uint64{1, 3}) {
				t.Errorf("kept %v", got)
			}
		})
	}
}

// kept lists the sequences that are stored of a kind.
func (r *rig) kept(k wire.Kind) (out []uint64) {
	r.t.Helper()
	if k == wire.KindSample {
		ss, err := r.db.Samples(r.t.Context(), device, 0, 1000)
		must(r.t, err)
		for _, s := range ss {
			out = append(out, s.Sequence)
		}
	} else {
		es, err := r.db.Events(r.t.Context(), device, "", 1000)
		must(r.t, err)
		for _, e := range es {
			out = append(out, e.Sequence)
		}
	}
	slices.Sort(out)
	return out
}

// TestManyRefusals bounds what a device can make the server write down, and says
// of a longer batch only what is new.
func TestManyRefusals(t *testing.T) {
	r := newRig(t)
	bad := make([][]byte, wire.MaxBatch)
	for n := range bad {
		bad[n] = []byte{0xff}
	}
	b := r.batch(bad...)
	r.now = r.now.Add(time.Second) // audits of one millisecond have no order
	_, err := r.in.Records(t.Context(), device, wire.KindEvent, b)
	must(t, err)
	r.now = r.now.Add(time.Second)
	b.Records = append(b.Records[200:], r.batch([]byte{0xff}, encode(t, &wire.Event{Type: "x"})).Records...)
	_, err = r.in.Records(t.Context(), device, wire.KindEvent, b) // the device came back without its mark
	must(t, err)
	r.wantRefused(fmt.Sprintf("event, epoch %x: 1 wire.malformed, 2 wire.malformed,", r.epoch), fmt.Sprintf("event, epoch %x: 257 wire.malformed, because: ", r.epoch))
	as, err := r.db.Audit(t.Context(), device, "", 2)
	must(t, err)
	if d := as[1].Detail; len(d) > 512 || !strings.Contains(d, "and 240 more, the last 256,") {
		t.Errorf("%d bytes: %s", len(d), d)
	}
	if got := r.kept(wire.KindEvent); !cmp.Equal(got, []uint64{258}) {
		t.Errorf("kept %v", got)
	}
}

// TestKindsThatAreNotKept wants what no queue sends to be refused as a whole.
func TestKindsThatAreNotKept(t *testing.T) {
	r := newRig(t)
	if _, err := r.in.Records(t.Context(), device, wire.KindPresence, r.batch(encode(t, sample()))); !errors.Is(err, fleet.ErrBadRequest) {
		t.Error(err)
	}
}
