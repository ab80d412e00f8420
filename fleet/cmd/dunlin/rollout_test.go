package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/web"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// operated is the real API over rollouts that nobody carries out; of the next
// lost creations the server does the work, and the answer is lost.
type operated struct {
	t    *testing.T
	db   *sqlite.DB
	env  map[string]string
	lost atomic.Int64
	sent atomic.Int64 // creations that came in
}

func newOperated(t *testing.T, devices ...string) *operated {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	now := time.Now()
	for _, d := range devices {
		tok := &fleet.EnrolToken{ID: "tok_" + d, Channel: "production", Max: 1, Expires: now.Add(time.Hour), Created: now}
		must(t, db.CreateEnrolToken(t.Context(), tok, fleet.Audit{}))
		_, _, err := db.Enrol(t.Context(), tok.ID, [32]byte{}, &fleet.Device{ID: d, Status: fleet.DeviceActive, Channel: "production", PublicKey: []byte(d), Enrolled: now}, []byte("certificate"), now)
		must(t, err)
	}
	rel := fleet.Release{ID: "rel_1", Channel: "production", Digest: bundle.DigestOf(nil), Length: 1, Published: now,
		Release: bundle.Release{Kind: bundle.KindModel, Model: "reader", Version: "1.0.0", Counter: 1}}
	must(t, db.PutMetadata(t.Context(), nil, nil, []fleet.Release{rel}, fleet.Audit{}))
	access, token := fleet.NewAccess("test", fleet.RoleOperator, 0, now)
	must(t, db.CreateAccess(t.Context(), access, fleet.Audit{}))
	o := &operated{t: t, db: db}
	api := web.New(web.Config{
		Store: db, Enrolment: struct{ web.Enrolment }{}, Catalog: struct{ web.Catalog }{},
		Rollouts: &rollout.Service{Store: db, Now: time.Now, Wake: func() {}}, Waiting: rollout.Waiting, Reading: rollout.Reading, Why: (&rollout.Asker{Store: db, Now: time.Now}).Why,
		Now: time.Now, Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/v1/rollouts" {
			o.sent.Add(1)
			if o.lost.Add(-1) >= 0 {
				api.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(dir, "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644))
	o.env = map[string]string{"DUNLIN_SERVER": s.URL, "DUNLIN_TOKEN": token, "DUNLIN_CA": ca}
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o *operated) dunlin(line string) (code int, out string) {
	var b bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &b, err: &b, getenv: func(name string) string { return o.env[name] }}
	return c.run(o.t.Context(), strings.Fields(line)), b.String()
}

func (o *operated) rollouts() []fleet.Rollout {
	o.t.Helper()
	rs, err := o.db.Rollouts(context.Background(), "", "", 99)
	must(o.t, err)
	return rs
}

// TestALostAnswerMakesOneRollout loses the answers of creations that were done.
func TestALostAnswerMakesOneRollout(t *testing.T) {
	o := newOperated(t, "meter-1")
	o.lost.Store(2)
	code, out := o.dunlin("rollout create reader@1.0.0")
	if code != 0 || o.sent.Load() != 3 || len(o.rollouts()) != 1 || !strings.Contains(out, o.rollouts()[0].ID) {
		t.Fatalf("exit %d, sent %d times, %d rollouts: %s", code, o.sent.Load(), len(o.rollouts()), out)
	}
	// A refusal is an answer: it is told once.
	if code, out := o.dunlin("rollout create reader@1.0.0"); code == 0 || !strings.Contains(out, "rollout.conflict") || o.sent.Load() != 4 {
		t.Errorf("exit %d, sent %d times: %s", code, o.sent.Load(), out)
	}
}

// TestARepeatedJobMakesOneRollout runs the same command again under a key of its
// own, also after the rollout has ended; a fresh key makes another one.
func TestARepeatedJobMakesOneRollout(t *testing.T) {
	o := newOperated(t, "meter-1")
	const create = "rollout create reader@1.0.0 -o json"
	_, first := o.dunlin(create + " --idempotency-key job-7")
	o.dunlin("rollout abort " + o.rollouts()[0].ID + " --wait")
	if code, again := o.dunlin(create + " --idempotency-key job-7"); code != 0 || again != first || len(o.rollouts()) != 1 {
		t.Errorf("exit %d, %d rollouts: %s", code, len(o.rollouts()), again)
	}
	if code, out := o.dunlin(create); code != 0 || len(o.rollouts()) != 2 {
		t.Errorf("exit %d, %d rollouts: %s", code, len(o.rollouts()), out)
	}
}

// TestAbortWaits wants an end only when the device has acknowledged its former wish,
// and an aborted rollout not to be shown as one that runs.
func TestAbortWaits(t *testing.T) {
	o := newOperated(t, "meter-1", "meter-2")
	o.dunlin("rollout create reader@1.0.0")
	r := o.rollouts()[0]
	now := time.Now()
	sign := func(*fleet.Wish) ([]fleet.MetaRow, error) { return nil, nil }
	epoch, _, err := o.db.Lease(t.Context(), "rollouts", "test", time.Hour, now)
	must(t, err)
	ms, err := o.db.Members(t.Context(), r.ID)
	must(t, err)
	change := func(status string) {
		t.Helper()
		r.Status = status
		must(t, o.db.CommitRollout(t.Context(), fleet.Commit{Epoch: epoch, Rollout: r, Members: ms[:1], Device: ms[0].Device, Change: func(*fleet.Wish) error { return nil }}, now, sign))
	}
	for i := range r.Stages {
		r.Stages[i].Started = now
	}
	ms[0].Assigned, ms[0].Acked = now, now
	change(fleet.RolloutRunning)

	out := &watched{lines: make(chan string, 99)}
	c := &cli{in: strings.NewReader(""), out: out, err: out, getenv: func(name string) string { return o.env[name] }}
	done := make(chan int, 1)
	go func() { done <- c.run(o.t.Context(), []string{"rollout", "abort", r.ID, "--wait"}) }()
	out.until(t, "1 at work")
	ms[0].Undone = now
	change(fleet.RolloutAborted)
	out.until(t, "1 on the way back")
	select {
	case code := <-done:
		t.Fatalf("exit %d while the device is on its way back", code)
	default:
	}
	must(t, o.db.UpdateDevice(t.Context(), ms[0].Device, func(d *fleet.Device) error { d.Generation = 2; return nil }))
	out.until(t, "1 taken back")
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, show := o.dunlin("rollout show " + r.ID); strings.Contains(show, "runs") || !strings.Contains(show, "stopped") {
		t.Errorf("an aborted rollout is shown as\n%s", show)
	}
}

// watched hands out what is written.
type watched struct{ lines chan string }

func (w *watched) Write(b []byte) (int, error) {
	w.lines <- string(b)
	return len(b), nil
}

func (w *watched) until(t *testing.T, part string) {
	t.Helper()
	for {
		select {
		case line := <-w.lines:
			if strings.Contains(line, part) {
				return
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q is not shown", part)
		}
	}
}
