package update

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// repo is a verified source in a folder: what it holds is a wish and blobs.
type repo struct {
	dir string

	mu      sync.Mutex
	wish    trust.Wish
	fetched int
	fail    error // of the next download
}

func (r *repo) Refresh(context.Context) (trust.Wish, error) { return r.Wish(), nil }

func (r *repo) Wish() trust.Wish {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wish
}

func (r *repo) path(digest string) string {
	return filepath.Join(r.dir, strings.TrimPrefix(digest, "sha256:"))
}

func (r *repo) Download(_ context.Context, digest string, _ int64) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail; err != nil {
		r.fail = nil
		return "", err
	}
	r.fetched++
	return r.path(digest), nil
}

func (r *repo) Have(digest string) (string, bool) {
	_, err := os.Stat(r.path(digest))
	return r.path(digest), err == nil
}

func (r *repo) Forget(string) error { return nil } // the folder is the server's, too

// device is an Engine with the world around it: it proves, serves and judges as
// the test says, and remembers what was asked of it.
type device struct {
	t    *testing.T
	dir  string
	repo *repo
	e    *Engine
	db   *state.DB

	mu      sync.Mutex
	serving string // version
	proven  []string
	events  []Event
	changed chan struct{}
	refuse  map[string]*Refusal // by version: of prove
	judge   map[string]Judgement
	block   chan struct{} // prove waits for it
}

func newDevice(t *testing.T) *device {
	d := &device{t: t, dir: t.TempDir(), repo: &repo{dir: t.TempDir()}, changed: make(chan struct{}, 1), refuse: map[string]*Refusal{}, judge: map[string]Judgement{}}
	d.open()
	t.Cleanup(func() { d.db.Close() })
	return d
}

// open starts the device's software on its disk, as after a power cut.
func (d *device) open() {
	d.t.Helper()
	if d.db != nil {
		d.db.Close()
	}
	store, err := slots.Open(durable.OS{}, filepath.Join(d.dir, "slots"))
	if err != nil {
		d.t.Fatal(err)
	}
	if d.db, _, err = state.Open(d.dir, state.Options{}); err != nil {
		d.t.Fatal(err)
	}
	d.e, err = New(Config{Repository: d.repo, Slots: store, DB: d.db, Prover: d, Reporter: d, Facts: map[string]string{"arch": "amd64"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		d.t.Fatal(err)
	}
	d.serving = ""
}

func (d *device) Prove(ctx context.Context, c *Candidate) error {
	d.mu.Lock()
	d.proven = append(d.proven, c.Version)
	r, block := d.refuse[c.Version], d.block
	d.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r != nil {
		return r
	}
	return nil
}

func (d *device) Serve(_ context.Context, _ string, c *Candidate) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.serving = ""; c != nil {
		d.serving = c.Version
	}
	return nil
}

func (d *device) Judge(c *Candidate, _ time.Duration) Judgement {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j, ok := d.judge[c.Version]; ok {
		return j
	}
	return Judgement{Verdict: Pass, Answered: 7}
}

func (d *device) Changed(string) {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *device) Happened(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// publish puts a release into the folder and returns its target.
func (d *device) publish(version string, attempt int64) trust.Target {
	d.t.Helper()
	m := tflitetest.Classifier(10)
	file := tflitetest.Marshal(m)
	in, out, err := bundle.Describe(m)
	if err != nil {
		d.t.Fatal(err)
	}
	c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: "m", Version: version, File: "model.tflite", Inputs: in, Outputs: out,
		Runtime: &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"}}
	extra := []byte("release " + version)
	return d.target(c, attempt, map[string][]byte{"model.tflite": file, "README.md": extra})
}

func (d *device) runtime() trust.Target {
	c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindRuntime, Model: "runtime-litert-amd64", Version: "2.3.0", File: "libLiteRt.so", Hardware: "arch=amd64",
		ABI: &bundle.RuntimeABI{Name: "litert", Version: "2.3.0", Arch: "amd64", GLibC: "2.27"}}
	return d.target(c, 0, map[string][]byte{"libLiteRt.so": []byte("a library")})
}

func (d *device) target(c *bundle.Contract, attempt int64, files map[string][]byte) trust.Target {
	d.t.Helper()
	var sources []bundle.Source
	for name, b := range files {
		sources = append(sources, bundle.Source{Path: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
		d.put(b)
	}
	p, err := bundle.Pack(c, sources)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, b := range [][]byte{p.Raw, p.RawConfig, p.RawContract} {
		d.put(b)
	}
	custom := bundle.Custom{Release: bundle.Release{Kind: c.Kind, Model: c.Model, Version: c.Version, Counter: 1}}
	if attempt > 0 {
		custom.Assign = &bundle.Assign{Attempt: attempt, Runtime: "dev/runtime-litert-amd64/2.3.0", Rollout: "rol_" + c.Version}
	}
	b, err := json.Marshal(custom)
	if err != nil {
		d.t.Fatal(err)
	}
	return trust.Target{Path: "dev/" + c.Model + "/" + c.Version, Digest: p.Digest, Length: int64(len(p.Raw)), Custom: b}
}

// put never writes into a file that is there: a place may have it, too, by a link.
func (d *device) put(b []byte) {
	if err := durable.WriteFile(durable.OS{}, "test.blob", d.repo.path(bundle.DigestOf(b)), b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// wish directs the device to a release.
func (d *device) wish(version string, attempt int64) {
	d.repo.mu.Lock()
	g := d.repo.wish.Generation + 1
	d.repo.mu.Unlock()
	ts := []trust.Target{d.publish(version, attempt), d.runtime()}
	d.repo.mu.Lock()
	d.repo.wish = trust.Wish{Generation: g, Targets: ts}
	d.repo.mu.Unlock()
	d.e.Refresh()
}

// run runs the device until the test's function returns.
func (d *device) run(f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.e.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		d.t.Error(err)
	}
}

// until waits until the model's status is as wanted.
func (d *device) until(what string, want func(Status) bool) Status {
	d.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		all, err := d.e.Status()
		if err != nil {
			d.t.Fatal(err)
		}
		for _, s := range all {
			if s.Model == "m" && want(s) {
				return s
			}
		}
		select {
		case <-d.changed:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			d.t.Fatalf("waited for %s; status is %+v", what, describe(all))
		}
	}
}

func describe(all []Status) string {
	b, _ := json.Marshal(all)
	return string(b)
}

func good(version string) func(Status) bool {
	return func(s Status) bool {
		return s.Active != nil && strings.HasSuffix(s.Active.Path, "/"+version) && s.Active.Verdict == slots.Good && s.Step == ""
	}
}

func refused(version string) func(Status) bool {
	return func(s Status) bool {
		return s.Candidate != nil && strings.HasSuffix(s.Candidate.Path, "/"+version) && s.Candidate.Verdict == slots.Bad && s.Step == ""
	}
}

func (d *device) serves(version string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.serving != version {
		d.t.Fatalf("serves %q, not %q", d.serving, version)
	}
}

func TestInstallThenReplace(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		s := d.until("1.0.0", good("1.0.0"))
		if !s.Active.Proven || s.Generation != 0 || s.Rollout != "rol_1.0.0" {
			t.Errorf("status %+v", s)
		}
		d.wish("1.1.0", 1)
		s = d.until("1.1.0", good("1.1.0"))
		d.serves("1.1.0")
		if s.Previous == nil || !strings.HasSuffix(s.Previous.Path, "/1.0.0") {
			t.Errorf("way back %+v", s.Previous)
		}
	})
	got, err := os.ReadFile(filepath.Join(d.dir, "slots", "m", "current", "README.md"))
	if err != nil || string(got) != "release 1.1.0" {
		t.Fatalf("behind the pointer: %q, %v", got, err)
	}
}

func TestRefusedBeforeItServes(t *testing.T) {
	d := newDevice(t)
	d.refuse["1.1.0"] = &Refusal{"prove.golden", "wrong answers"}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.wish("1.1.0", 1)
		s := d.until("the refusal", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "prove.golden" || s.Answered != 0 {
			t.Errorf("candidate %+v, answered %d", s.Candidate, s.Answered)
		}
		proofs := len(d.proven)
		d.wish("1.1.0", 1) // the same attempt: not tried again
		d.until("the answer to the second wish", func(s Status) bool { return refused("1.1.0")(s) && s.Rollout == "rol_1.1.0" })
		if len(d.proven) != proofs {
			t.Error("a bad pair was tried again although attempt did not rise")
		}
		d.mu.Lock()
		delete(d.refuse, "1.1.0")
		d.mu.Unlock()
		d.wish("1.1.0", 2)
		d.until("the second attempt", good("1.1.0"))
	})
}

func TestProbationTakesItBack(t *testing.T) {
	d := newDevice(t)
	d.judge["1.1.0"] = Judgement{Verdict: Fail, Code: "probation.score", Reason: "scores collapsed", Answered: 31}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.wish("1.1.0", 1)
		s := d.until("the rollback", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "probation.score" || s.Answered != 31 || !strings.HasSuffix(s.Active.Path, "/1.0.0") {
			t.Errorf("status %s", describe([]Status{s}))
		}
	})
}

func TestFirstModelThatFailsServesNothing(t *testing.T) {
	d := newDevice(t)
	d.judge["1.0.0"] = Judgement{Verdict: Fail, Code: "probation.crash", Reason: "died"}
	d.run(func() {
		d.wish("1.0.0", 1)
		s := d.until("the rollback", refused("1.0.0"))
		d.serves("")
		if s.Active != nil {
			t.Errorf("active %+v", s.Active)
		}
	})
}

func TestRollbackByHand(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		if err := d.e.Rollback(context.Background(), "m"); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("without a model: %v", err)
		}
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		if err := d.e.Rollback(context.Background(), "m"); !errors.Is(err, ErrNoWayBack) {
			t.Errorf("without a way back: %v", err)
		}
		d.wish("1.1.0", 1)
		d.until("1.1.0", good("1.1.0"))
		if err := d.e.Rollback(context.Background(), "m"); err != nil {
			t.Fatal(err)
		}
		s := d.until("the rollback", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "rollback.by_hand" {
			t.Errorf("candidate %+v", s.Candidate)
		}
		d.e.Refresh()
		d.until("rest", refused("1.1.0"))
		d.serves("1.0.0")
	})
}

func TestNewerWishReplacesAJourney(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.mu.Lock()
		d.block = make(chan struct{})
		d.mu.Unlock()
		d.wish("1.1.0", 1)
		d.until("prove", func(s Status) bool { return s.Step == "prove" })
		d.mu.Lock()
		close(d.block)
		d.block = nil
		d.judge["1.1.0"] = Judgement{Verdict: NotYet}
		d.mu.Unlock()
		d.until("probation", func(s Status) bool { return s.Step == "probation" })
		d.serves("1.1.0")
		d.wish("1.2.0", 1)
		s := d.until("1.2.0", good("1.2.0"))
		if s.Previous == nil || !strings.HasSuffix(s.Previous.Path, "/1.0.0") {
			t.Errorf("the way back is %+v: a superseded candidate must not become it", s.Previous)
		}
	})
}

// TestRestartAtEveryStep stops the device at each step and starts it again.
func TestRestartAtEveryStep(t *testing.T) {
	for _, st := range append(steps, step{name: stepRollback}) {
		t.Run(st.name, func(t *testing.T) {
			d := newDevice(t)
			fails := st.name == stepRollback
			if fails {
				d.judge["1.1.0"] = Judgement{Verdict: Fail, Code: "probation.score", Reason: "bad"}
			}
			d.run(func() {
				d.wish("1.0.0", 1)
				d.until("1.0.0", good("1.0.0"))
			})
			d.wish("1.1.0", 1)
			d.die(t, st.name)
			d.open()
			d.run(func() {
				d.until("something serves", func(s Status) bool { return s.Active != nil })
				if fails {
					d.until("the rollback", refused("1.1.0"))
					d.serves("1.0.0")
					return
				}
				d.until("1.1.0", good("1.1.0"))
				d.serves("1.1.0")
			})
		})
	}
}

// die walks the journey by hand up to the step, writes the step down as the
// engine does, and stops there.
func (d *device) die(t *testing.T, name string) {
	t.Helper()
	ts, err := targets(d.repo.Wish())
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(d.e, "m")
	j := m.journey(journal{Target: ts[0], Step: steps[0].name, Began: time.Now()})
	for _, s := range steps {
		if err := j.enter(s.name); err != nil {
			t.Fatal(err)
		}
		if s.name == name {
			return
		}
		if name == stepRollback && s.name == "probation" {
			j.Code, j.Reason, j.Blame = "probation.score", "bad", true
			if err := j.enter(stepRollback); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := s.do(j, context.Background()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
}

func TestTooManyRestartsGiveUp(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
	})
	d.wish("1.1.0", 1)
	d.die(t, "try")
	jr, _, err := d.e.journals.Get("m")
	if err != nil {
		t.Fatal(err)
	}
	jr.Starts = maxStarts
	if err := d.e.journals.Put("m", jr); err != nil {
		t.Fatal(err)
	}
	d.open()
	d.run(func() {
		s := d.until("giving up", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "update.restarts" {
			t.Errorf("candidate %+v", s.Candidate)
		}
	})
}

func TestNetworkLossIsNoFault(t *testing.T) {
	d := newDevice(t)
	d.repo.fail = fmt.Errorf("no network")
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0 after a failed download", good("1.0.0"))
	})
	for _, e := range d.events {
		if e.Type == "update.refused" {
			t.Errorf("event %+v", e)
		}
	}
}

func TestWishThatIsMadeWrong(t *testing.T) {
	custom := func(c bundle.Custom) json.RawMessage { b, _ := json.Marshal(c); return b }
	model := bundle.Release{Kind: bundle.KindModel, Model: "m"}
	for name, w := range map[string]trust.Wish{
		"no assignment":      {Targets: []trust.Target{{Path: "dev/m/1", Custom: custom(bundle.Custom{Release: model})}}},
		"runtime not wished": {Targets: []trust.Target{{Path: "dev/m/1", Custom: custom(bundle.Custom{Release: model, Assign: &bundle.Assign{Runtime: "dev/r/1"}})}}},
		"no JSON":            {Targets: []trust.Target{{Path: "dev/m/1", Custom: json.RawMessage("[]")}}},
	} {
		if _, err := targets(w); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
