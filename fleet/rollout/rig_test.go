package rollout_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var begin = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is the server around rollouts, on a real database, with devices that say
// hello and send signed reports. Its clock stands still unless it is moved.
type rig struct {
	t        testing.TB
	file     string
	online   ed25519.PrivateKey
	db       *sqlite.DB
	director *director.Service
	in       *telemetry.Ingest
	service  *rollout.Service
	loop     *rollout.Loop
	now      time.Time
	key      *ecdsa.PrivateKey // of every device
	fleet    []*simulated
	gates    rollout.Gates
	holders  int
}

// simulated is one device: it does what its wish says and tells how it went.
type simulated struct {
	id       string
	active   string // path
	told     uint64 // records
	knows    int64  // generation
	verdicts map[string]string
}

func newRig(t testing.TB, classes map[string]int) *rig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	_, online, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	r := &rig{t: t, file: filepath.Join(t.TempDir(), "fleet.db"), key: key, online: online, now: begin}
	r.open()
	r.publish("digits", "1.0.0", bundle.KindModel, nil)
	r.publish("digits", "1.1.0", bundle.KindModel, nil)
	r.publish("runtime-litert-arm64", "2.3.0", bundle.KindRuntime, &bundle.RuntimeABI{Name: "litert", Version: "2.3.0", Arch: "arm64"})
	for class, n := range classes {
		for i := range n {
			r.enrol(fmt.Sprintf("%s-%d", class, i), class, "arm64")
		}
	}
	return r
}

// open starts the server on the rig's file.
func (r *rig) open() {
	r.t.Helper()
	db, err := sqlite.Open(r.t.Context(), r.file)
	must(r.t, err)
	r.t.Cleanup(func() { db.Close() })
	r.db = db
	clock := func() time.Time { return r.now }
	r.director = &director.Service{Store: db, Key: r.online, Now: clock}
	r.in = &telemetry.Ingest{Store: db, Newer: func(context.Context, string, wire.Held) (bool, error) { return true, nil },
		Wake: func() {}, Heartbeat: 5 * time.Minute, Now: clock, Log: slog.New(slog.DiscardHandler)}
	r.service = &rollout.Service{Store: db, Now: clock, Wake: func() {}}
	r.restart(r.director)
}

// copied starts another server like this one, which was closed before.
func (r *rig) copied() *rig {
	r.t.Helper()
	b, err := os.ReadFile(r.file)
	must(r.t, err)
	c := &rig{t: r.t, file: filepath.Join(r.t.TempDir(), "fleet.db"), key: r.key, online: r.online, now: r.now}
	must(r.t, os.WriteFile(c.file, b, 0o600))
	c.open()
	for _, s := range r.fleet {
		c.fleet = append(c.fleet, &simulated{id: s.id, verdicts: map[string]string{}})
	}
	return c
}

// restart lets another process carry rollouts out, once the former one's lease is
// over.
func (r *rig) restart(a rollout.Assigner) {
	r.holders++
	r.now = r.now.Add(20 * time.Second)
	r.loop = rollout.NewLoop(rollout.Loop{Store: r.db, Assigner: a, Gates: r.gates, Release: r.db.Release, Holder: fmt.Sprint("holder ", r.holders),
		Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler)})
}

func (r *rig) publish(model, version, kind string, abi *bundle.RuntimeABI) {
	r.t.Helper()
	rel := fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, r.now), Channel: "production", Digest: bundle.DigestOf([]byte(model + version)), Length: 9, Published: r.now,
		Release: bundle.Release{Kind: kind, Model: model, Version: version, Counter: 1, ABI: abi}}
	if kind == bundle.KindModel {
		rel.Needs, rel.Hardware = &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"}, "arch=arm64"
	}
	must(r.t, r.db.PutMetadata(r.t.Context(), nil, nil, []fleet.Release{rel}, fleet.Audit{}))
}

func (r *rig) enrol(id, class, arch string) {
	r.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&r.key.PublicKey)
	must(r.t, err)
	tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "production", Max: 1, Expires: begin.Add(time.Hour), Created: begin}
	must(r.t, r.db.CreateEnrolToken(r.t.Context(), tok, fleet.Audit{}))
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: "production", PublicKey: spki, Serial: "1", Enrolled: begin, Facts: map[string]string{"class": class, "arch": arch}}
	_, _, err = r.db.Enrol(r.t.Context(), tok.ID, [32]byte{}, d, []byte("cert"), begin)
	must(r.t, err)
	r.fleet = append(r.fleet, &simulated{id: id, verdicts: map[string]string{}})
}

// live lets a device say hello, do what it is told and report. verdict says how a
// release fares on it: "" is good, otherwise the code of its refusal.
func (r *rig) live(s *simulated, verdict func(device, path string) string) {
	r.t.Helper()
	w, err := r.db.Wish(r.t.Context(), s.id)
	must(r.t, err)
	d, err := r.db.Device(r.t.Context(), s.id)
	must(r.t, err)
	welcome, err := r.in.Hello(r.t.Context(), s.id, &wire.Hello{Protocols: []int{wire.Protocol}, Epoch: 1, Generation: w.Generation, Facts: d.Facts})
	must(r.t, err)
	s.told++
	s.knows = w.Generation
	rep := &wire.Report{Device: s.id, Epoch: 1, Counter: s.told, Generation: w.Generation, Nonce: welcome.Nonce}
	if it, ok := w.Item("digits"); ok {
		code, known := s.verdicts[it.Path]
		if !known {
			code = verdict(s.id, it.Path)
			s.verdicts[it.Path] = code
		}
		m := wire.ModelState{Model: "digits", Attempt: it.Attempt, Rollout: it.Rollout}
		if code == "" {
			s.active = it.Path
		} else {
			m.Candidate = &wire.SlotState{Path: it.Path, Verdict: "bad", Code: code, Reason: "simulated"}
		}
		if s.active != "" {
			m.Active = &wire.SlotState{Path: s.active, Verdict: "good", Proven: true}
		}
		rep.Models = []wire.ModelState{m}
	}
	env, err := wire.Sign(r.key, wire.ReportType, rep)
	must(r.t, err)
	b, err := wire.Encode(env)
	must(r.t, err)
	_, err = r.in.Records(r.t.Context(), s.id, wire.KindReport, &wire.Batch{Records: []wire.Record{{Epoch: 1, Sequence: s.told, Payload: b}}})
	must(r.t, err)
}

func good(string, string) string { return "" }

// run lives through a rollout until it rests: the loop steps, devices live, a
// minute goes by. A loop that dies is followed by another process.
func (r *rig) run(id string, verdict func(device, path string) string) *fleet.Rollout {
	r.t.Helper()
	for range 100 {
		for {
			_, err := r.loop.Step(r.t.Context())
			if err == nil {
				break
			}
			if !errors.Is(err, errDied) {
				r.t.Fatal(err)
			}
			r.restart(r.director)
		}
		ro, err := r.db.Rollout(r.t.Context(), id)
		must(r.t, err)
		if ro.Status != fleet.RolloutRunning {
			return ro
		}
		for _, s := range r.fleet {
			if r.wish(s.id).Generation != s.knows {
				r.live(s, verdict)
			}
		}
		r.now = r.now.Add(time.Minute)
	}
	r.t.Fatal("the rollout does not end")
	return nil
}

func (r *rig) create(version string, stages ...fleet.StageSpec) *fleet.Rollout {
	r.t.Helper()
	ro, err := r.service.Create(r.t.Context(), fleet.Spec{Model: "digits", Version: version, Channel: "production", Stages: stages, Bake: fleet.Duration(time.Second)}, "me")
	must(r.t, err)
	return ro
}

func (r *rig) wish(device string) *fleet.Wish {
	r.t.Helper()
	w, err := r.db.Wish(r.t.Context(), device)
	must(r.t, err)
	return w
}

func (r *rig) members(id string) []fleet.Member {
	r.t.Helper()
	ms, err := r.db.Members(r.t.Context(), id)
	must(r.t, err)
	return ms
}

var errDied = errors.New("the server died here")

// dying is an assigner whose process dies at one commit, before or after it is
// stored.
type dying struct {
	*director.Service
	at    int // counted from 1
	after bool
	n     int
}

func (d *dying) Commit(ctx context.Context, c fleet.Commit) error {
	d.n++
	switch {
	case d.n != d.at:
		return d.Service.Commit(ctx, c)
	case d.after:
		return errors.Join(d.Service.Commit(ctx, c), errDied)
	}
	return errDied
}
