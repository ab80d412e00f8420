package handoff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

const model = "gate"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is an application beside a Server: its hook writes down what it was told, and
// fails while the file "broken" is there.
type rig struct {
	*Server
	t      *testing.T
	dir    string
	slots  string
	proofs int
	unwell []string
}

func newRig(t *testing.T, change func(f *File)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), slots: t.TempDir()}
	hook := filepath.Join(r.dir, "hook.sh")
	must(t, os.WriteFile(hook, fmt.Appendf(nil, "#!/bin/sh\necho \"$1 $DUNLIN_EVENT $DUNLIN_MODEL $DUNLIN_VERSION $(cat $DUNLIN_FILE 2>/dev/null)\" >> %[1]s/told\nif [ -e %[1]s/broken ]; then echo no such thing >&2; exit 3; fi\n", r.dir), 0o755))
	f := File{Path: filepath.Join(r.dir, "current"), Hook: []string{hook, "reload"}}
	if change != nil {
		change(&f)
	}
	r.open(f)
	return r
}

// open is a start of the agent.
func (r *rig) open(f File) {
	r.Server = New(Config{FS: durable.OS{}, Files: map[string]File{model: f}, Log: slog.New(slog.DiscardHandler),
		Prover: func(context.Context, infer.Slot) (*bundle.Proof, error) {
			r.proofs++
			return &bundle.Proof{Cases: 3, Held: 3}, nil
		},
		Unwell: func(_ infer.Slot, reason string) { r.unwell = append(r.unwell, reason) }})
}

func (r *rig) slot(place, version string) infer.Slot {
	r.t.Helper()
	dir := filepath.Join(r.slots, place)
	must(r.t, os.MkdirAll(dir, 0o755))
	must(r.t, os.WriteFile(filepath.Join(dir, "gate.bin"), []byte("bytes of "+version), 0o600))
	return infer.Slot{Key: observe.Key{Model: model, Path: "production/gate/" + version, Bundle: "sha256:" + version}, Version: version, Dir: dir,
		Contract: &bundle.Contract{Model: model, Version: version, File: "gate.bin", Serve: "file"}}
}

// told is what the hook wrote since the last call.
func (r *rig) told() string {
	b, err := os.ReadFile(filepath.Join(r.dir, "told"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	must(r.t, err)
	must(r.t, os.Remove(filepath.Join(r.dir, "told")))
	return string(b)
}

// has is what the application reads.
func (r *rig) has() string {
	b, err := os.ReadFile(filepath.Join(r.dir, "current", "gate.bin"))
	if err != nil {
		return ""
	}
	return string(b)
}

func (r *rig) expect(what, told, has string) {
	r.t.Helper()
	if got := r.told(); got != told || r.has() != has {
		r.t.Errorf("%s: the hook was told %q, the application has %q", what, got, r.has())
	}
}

// TestLife hands over, changes, restarts in between and goes back.
func TestLife(t *testing.T) {
	r := newRig(t, nil)
	first, second := r.slot("a", "1.0.0"), r.slot("b", "1.1.0")
	must(t, r.Activate(t.Context(), first))
	r.expect("first", "reload activate gate 1.0.0 bytes of 1.0.0\n", "bytes of 1.0.0")
	must(t, r.Activate(t.Context(), first))
	r.expect("again", "", "bytes of 1.0.0")
	f := r.c.Files[model]
	r.open(f)
	must(t, r.Activate(t.Context(), first))
	r.expect("after a restart", "", "bytes of 1.0.0")
	must(t, r.Activate(t.Context(), second))
	r.expect("second", "reload activate gate 1.1.0 bytes of 1.1.0\n", "bytes of 1.1.0")
	if s, ok := r.Active(model); !ok || s.Version != "1.1.0" {
		t.Error(s, ok)
	}
	must(t, os.Remove(f.done())) // the power went before the hook was over
	r.open(f)
	must(t, r.Activate(t.Context(), second))
	r.expect("after a power cut", "reload activate gate 1.1.0 bytes of 1.1.0\n", "bytes of 1.1.0")
	must(t, os.WriteFile(filepath.Join(r.dir, "current.b", "gate.bin"), []byte("worms"), 0o644))
	must(t, r.Activate(t.Context(), second))
	r.expect("after somebody wrote into it", "reload activate gate 1.1.0 bytes of 1.1.0\n", "bytes of 1.1.0")
	must(t, r.Activate(t.Context(), first))
	r.expect("back", "reload activate gate 1.0.0 bytes of 1.0.0\n", "bytes of 1.0.0")
	r.Deactivate(model)
	r.expect("stopped", "reload stop gate 1.0.0 \n", "")
	if _, ok := r.Active(model); ok {
		t.Error("it is still there")
	}
}

// TestHookFails leaves the application with what it had, and tells it so.
func TestHookFails(t *testing.T) {
	r := newRig(t, nil)
	broken := filepath.Join(r.dir, "broken")
	must(t, os.WriteFile(broken, nil, 0o644))
	if err := r.Activate(t.Context(), r.slot("a", "1.0.0")); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Error(err)
	}
	r.expect("the first", "reload activate gate 1.0.0 bytes of 1.0.0\n", "")
	must(t, os.Remove(broken))
	must(t, r.Activate(t.Context(), r.slot("a", "1.0.0")))
	r.told()
	must(t, os.WriteFile(broken, nil, 0o644))
	if err := r.Activate(t.Context(), r.slot("b", "1.1.0")); err == nil {
		t.Error("nobody noticed")
	}
	r.expect("the second", "reload activate gate 1.1.0 bytes of 1.1.0\nreload activate gate 1.0.0 bytes of 1.0.0\n", "bytes of 1.0.0")
	if s, _ := r.Active(model); s.Version != "1.0.0" {
		t.Error(s.Version)
	}
}

// TestForeignPath is not touched.
func TestForeignPath(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.WriteFile(filepath.Join(r.dir, "current"), []byte("mine"), 0o644))
	if err := r.Activate(t.Context(), r.slot("a", "1.0.0")); err == nil {
		t.Error("a file that is not the agent's was replaced")
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "current")); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestProve runs a worker where it can, and the application's own program.
func TestProve(t *testing.T) {
	for name, x := range map[string]struct {
		script string
		custom []string
		code   string
		worker int
	}{
		"a worker":               {"", nil, "", 1},
		"operators of its own":   {"", []string{"Mine"}, "", 0},
		"the application agrees": {"grep -q 'bytes of 1.0.0' $DUNLIN_FILE", []string{"Mine"}, "", 0},
		"both":                   {"exit 0", nil, "", 1},
		"it does not agree":      {"echo 3 of 40 plates are wrong; exit 1", nil, "prove.application", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(f *File) {
				if x.script != "" {
					f.Prove = []string{"/bin/sh", "-c", x.script}
				}
			})
			s := r.slot("a", "1.0.0")
			s.Contract.Custom = x.custom
			p, err := r.Prove(t.Context(), s)
			var refused *infer.Refusal
			if errors.As(err, &refused) != (x.code != "") || refused != nil && (refused.Code != x.code || !strings.Contains(refused.Reason, "3 of 40 plates")) || p == nil || r.proofs != x.worker {
				t.Errorf("%+v, %v, %d workers", p, err, r.proofs)
			}
			if r.has() != "" || r.told() != "" {
				t.Error("the application has it already")
			}
		})
	}
	r := newRig(t, nil)
	s := r.slot("a", "1.0.0")
	s.Key.Model = "other"
	var refused *infer.Refusal
	if _, err := r.Prove(t.Context(), s); !errors.As(err, &refused) || refused.Code != "prove.application" {
		t.Error(err)
	}
}

// TestJudge goes by what the application says, and by its silence.
func TestJudge(t *testing.T) {
	ok, bad := true, false
	for name, x := range map[string]struct {
		health string
		said   *Health
		after  time.Duration
		want   Verdict
	}{
		"nothing yet":       {"", nil, time.Minute, Verdict{}},
		"silent for long":   {"", nil, 6 * time.Minute, Verdict{Failed: true, Code: "probation.silent"}},
		"well, early":       {"", &Health{OK: &ok, Requests: 100}, time.Minute, Verdict{Requests: 100}},
		"well, too few":     {"", &Health{OK: &ok, Requests: 99}, time.Hour, Verdict{Requests: 99}},
		"well":              {"", &Health{OK: &ok, Requests: 100}, 5 * time.Minute, Verdict{Passed: true, Requests: 100}},
		"not well":          {"", &Health{OK: &bad, Reason: "all plates are 8"}, time.Second, Verdict{Failed: true, Code: "probation.unhealthy"}},
		"says nothing":      {HealthNone, nil, 4 * time.Minute, Verdict{}},
		"never says a word": {HealthNone, nil, 5 * time.Minute, Verdict{Passed: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(f *File) { f.Health = x.health })
			must(t, r.Activate(t.Context(), r.slot("a", "1.0.0")))
			if x.said != nil {
				x.said.Model, x.said.Version = model, "1.0.0"
				must(t, r.Say(*x.said))
			}
			v := r.Judge(model, "1.0.0", 5, 100, x.after)
			v.Reason = ""
			if v != x.want {
				t.Errorf("%+v, want %+v", v, x.want)
			}
		})
	}
}

// TestSay takes in words about what was handed over and no others.
func TestSay(t *testing.T) {
	r := newRig(t, nil)
	must(t, r.Activate(t.Context(), r.slot("a", "1.0.0")))
	say := func(body string) (int, string) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("POST", "/v1/health", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	for body, want := range map[string]string{
		`{"model":"gate","version":"1.0.0","ok":true,"requests":5}`: "200", `{"model":"gate","version":"1.0.0"}`: "health.malformed", `{"model":"gate"`: "health.malformed",
		`{"model":"gate","version":"1.1.0","ok":true}`: "health.version", `{"model":"door","version":"1.0.0","ok":true}`: "health.model",
		`{"model":"gate","version":"1.0.0","ok":true,"x":1}`: "health.malformed", `{"reason":"` + strings.Repeat("x", maxHealth) + `"}`: "health.malformed", ``: "health.malformed",
	} {
		if code, text := say(body); fmt.Sprint(code) != want && !strings.Contains(text, `"`+want+`"`) {
			t.Errorf("%.60s: %d %s, want %s", body, code, text, want)
		}
	}
	for range 2 { // it is told once
		say(`{"model":"gate","version":"1.0.0","ok":false,"reason":"all plates are 8"}`)
	}
	if len(r.unwell) != 1 || r.unwell[0] != "all plates are 8" {
		t.Errorf("%q", r.unwell)
	}
	must(t, r.Activate(t.Context(), r.slot("b", "1.1.0")))
	if v := r.Judge(model, "1.1.0", 0, 0, time.Second); v.Passed || v.Failed {
		t.Errorf("what was said of the release before counts: %+v", v)
	}
}

// TestRun bounds programs: their time, with all that they started, and their words.
func TestRun(t *testing.T) {
	began := time.Now()
	said, err := run(t.Context(), []string{"/bin/sh", "-c", "printf '\\033[2Jhanging\\n'; sleep 600 & sleep 600"}, 200*time.Millisecond, nil)
	if err == nil || !strings.Contains(err.Error(), "not done within") || said != " ([2Jhanging)" || time.Since(began) > 30*time.Second {
		t.Errorf("%q, %v after %v", said, err, time.Since(began))
	}
	if said, err := run(t.Context(), []string{"/bin/sh", "-c", "yes | head -c 1000000"}, time.Minute, []string{"PATH=" + searched}); err != nil || len(said) > kept+4 {
		t.Errorf("%d bytes, %v", len(said), err)
	}
	if _, err := run(t.Context(), []string{"/does/not/exist"}, time.Minute, nil); err == nil {
		t.Error("it ran")
	}
}
