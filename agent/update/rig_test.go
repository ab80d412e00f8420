package update

import (
	"bytes"
	"context"
	"encoding/json"
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
	deny    error // of refreshes
	kept    map[string]bool
}

func (r *repo) Refresh(context.Context) (trust.Wish, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wish, r.deny
}

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

func (r *repo) Sweep(keep map[string]bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = keep
	return nil
}

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
	broken  error         // of Serve
	served  *bundle.Proof // of what serves
	shadows map[string]*bundle.Shade
	shaded  []string // versions, in order
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
	d.e, err = New(Config{Repository: d.repo, Slots: store, DB: d.db, Prover: d, Shadower: d, Reporter: d, Facts: map[string]string{"arch": "amd64"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		d.t.Fatal(err)
	}
	d.serving = ""
}

func (d *device) Prove(ctx context.Context, c *Candidate) (*bundle.Proof, error) {
	d.mu.Lock()
	d.proven = append(d.proven, c.Version)
	r, block := d.refuse[c.Version], d.block
	d.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r != nil {
		return &bundle.Proof{Cases: 8, Held: 3}, r
	}
	return &bundle.Proof{Cases: 8, Held: 8, Kernels: "builtin", Threads: 2}, nil
}

func (d *device) Serve(_ context.Context, _ string, c *Candidate) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	if d.serving, d.served = "", nil; c != nil {
		d.serving, d.served = c.Version, c.Proof
	}
	return nil
}

// Shadow disagrees where not every request did agree.
func (d *device) Shadow(_ context.Context, c *Candidate) (*bundle.Shade, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shaded = append(d.shaded, c.Version)
	s := d.shadows[c.Version]
	if s.Agreed < s.Requests {
		return s, &Refusal{"prove.shadow", "it answers otherwise"}
	}
	return s, nil
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
	if d.shadows[version] != nil {
		c.Watch = &bundle.Watch{Output: "scores"}
		c.Shadow = &bundle.Shadow{Share: 0.1, Minutes: 5, Requests: 200, Duty: 0.2, Agree: 0.9}
	}
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
