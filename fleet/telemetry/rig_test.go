package telemetry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	device = "meter-1"
	path   = "production/digits/1.1.0"
	before = "production/digits/1.0.0"
)

// rig is a server's intake on a real database, and one device with its key.
type rig struct {
	t   *testing.T
	db  *sqlite.DB
	in  *telemetry.Ingest
	key *ecdsa.PrivateKey
	now time.Time

	woken         int
	epoch         uint64
	counter, next uint64
	nonce         []byte
	generation    int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	r := &rig{t: t, db: db, key: key, now: start, epoch: 1<<63 + 7}
	r.in = &telemetry.Ingest{
		Store: db,
		Newer: func(context.Context, string, wire.Held) (bool, error) { return r.generation == 0, nil },
		Wake:  func() { r.woken++ }, Heartbeat: 5 * time.Minute,
		Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler),
	}
	r.enrol(device, &key.PublicKey)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) enrol(id string, key *ecdsa.PublicKey) {
	r.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	must(r.t, err)
	tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "production", Max: 1, Expires: start.Add(time.Hour), Created: start}
	must(r.t, r.db.CreateEnrolToken(r.t.Context(), tok, fleet.Audit{}))
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: "production", PublicKey: spki, Serial: "1", Enrolled: start}
	_, _, err = r.db.Enrol(r.t.Context(), tok.ID, [32]byte{}, d, []byte("cert"), start)
	must(r.t, err)
}

func (r *rig) device() *fleet.Device {
	r.t.Helper()
	d, err := r.db.Device(r.t.Context(), device)
	must(r.t, err)
	return d
}

func (r *rig) hello() *wire.Welcome {
	r.t.Helper()
	w, err := r.in.Hello(r.t.Context(), device, &wire.Hello{
		Protocols: []int{wire.Protocol}, Agent: "1.0", Epoch: r.epoch, Channel: "production", Generation: r.generation,
		Facts: map[string]string{"arch": "arm64", "class": "arm64-pi5"}, Queues: []wire.QueueState{{Kind: wire.KindSample, Last: 9, Dropped: 2}},
	})
	must(r.t, err)
	r.nonce = w.Nonce
	return w
}

// report is the next one that the device would sign.
func (r *rig) report(models ...wire.ModelState) *wire.Report {
	r.counter++
	return &wire.Report{Device: device, Epoch: r.epoch, Counter: r.counter, Generation: r.generation, Nonce: r.nonce, Models: models, Clock: wire.Clock{Unix: r.now.Unix(), Source: "synchronised"}}
}

func (r *rig) sign(rep *wire.Report) []byte {
	r.t.Helper()
	env, err := wire.Sign(r.key, wire.ReportType, rep)
	must(r.t, err)
	return encode(r.t, env)
}

func encode(t *testing.T, msg any) []byte {
	t.Helper()
	b, err := wire.Encode(msg)
	must(t, err)
	return b
}

// batch numbers payloads as the device's queue would.
func (r *rig) batch(payloads ...[]byte) *wire.Batch {
	b := &wire.Batch{}
	for _, p := range payloads {
		r.next++
		b.Records = append(b.Records, wire.Record{Epoch: r.epoch, Sequence: r.next, Payload: p})
	}
	return b
}

func (r *rig) send(reps ...*wire.Report) {
	r.t.Helper()
	var payloads [][]byte
	for _, rep := range reps {
		payloads = append(payloads, r.sign(rep))
	}
	_, err := r.in.Records(r.t.Context(), device, wire.KindReport, r.batch(payloads...))
	must(r.t, err)
}

// rollout starts one over the rig's device and puts its release into the wish.
func (r *rig) rollout(spec fleet.Spec) *fleet.Rollout {
	r.t.Helper()
	ro, ms := rollout.New(spec, []*fleet.Device{r.device()}, "me", r.now)
	must(r.t, r.db.CreateRollout(r.t.Context(), ro, ms, fleet.Audit{}))
	r.assign(ro, ms[0])
	return ro
}

func (r *rig) assign(ro *fleet.Rollout, m fleet.Member) {
	r.t.Helper()
	epoch, ok, err := r.db.Lease(r.t.Context(), "rollouts", "rig", time.Hour, r.now)
	must(r.t, err)
	if !ok {
		r.t.Fatal("no lease")
	}
	m.Assigned = r.now
	c := fleet.Commit{Epoch: epoch, Rollout: *ro, Members: []fleet.Member{m}, Device: m.Device, Change: func(w *fleet.Wish) error {
		w.Put(fleet.Item{Model: ro.Spec.Model, Path: ro.Spec.Path(), Attempt: ro.Spec.Attempt, Rollout: ro.ID})
		return nil
	}}
	must(r.t, r.db.CommitRollout(r.t.Context(), c, r.now, func(*fleet.Wish) ([]fleet.MetaRow, error) { return nil, nil }))
}

func (r *rig) member(ro *fleet.Rollout) fleet.Member {
	r.t.Helper()
	ms, err := r.db.Members(r.t.Context(), ro.ID)
	must(r.t, err)
	return ms[0]
}

func active(p, verdict string) wire.ModelState {
	return wire.ModelState{Model: "digits", Active: &wire.SlotState{Path: p, Bundle: "sha256:1", Verdict: verdict, Proven: true}, Attempt: 1}
}

func candidate(p, verdict, code string, attempt int64) wire.ModelState {
	m := active(before, "good")
	m.Candidate = &wire.SlotState{Path: p, Bundle: "sha256:2", Verdict: verdict, Code: code, Reason: "because"}
	m.Attempt, m.Answered = attempt, 12
	return m
}

func spec() fleet.Spec {
	return fleet.Spec{Model: "digits", Version: "1.1.0", Channel: "production"}
}
