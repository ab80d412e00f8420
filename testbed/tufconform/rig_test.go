package main

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func escaped(role string) string { return url.PathEscape(role) }

// rig is a client and the repository that it reads.
type rig struct {
	*sim
	dir, downloads string
}

// newRig is a client that was given the first root of a repository and has done
// nothing yet.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := bareRig(t)
	must(t, r.init(r.files["root"][0]))
	return r
}

func bareRig(t *testing.T) *rig {
	return &rig{sim: newSim(t), dir: t.TempDir(), downloads: t.TempDir()}
}

func (r *rig) run(args ...string) error {
	all := append([]string{"--metadata-dir", r.dir, "--metadata-url", r.url + "/metadata/"}, args...)
	return run(context.Background(), all, func() (time.Time, error) { return r.now, nil })
}

func (r *rig) init(root []byte) error {
	f := filepath.Join(r.t.TempDir(), "root.json")
	must(r.t, os.WriteFile(f, root, 0o600))
	return r.run("init", f)
}

func (r *rig) refresh() error { return r.run("refresh") }

func (r *rig) download(targets ...string) error {
	args := []string{"--target-base-url", r.url + "/targets/", "--target-dir", r.downloads}
	for _, t := range targets {
		args = append(args, "--target-name", t)
	}
	return r.run(append(args, "download")...)
}

// accepts wants a refresh to succeed, refuses one to fail.
func (r *rig) accepts() { r.t.Helper(); must(r.t, r.refresh()) }

func (r *rig) refuses() {
	r.t.Helper()
	if err := r.refresh(); err == nil {
		r.t.Fatal("it was accepted")
	}
}

// trusts wants exactly these versions to be trusted.
func (r *rig) trusts(want map[string]int) {
	r.t.Helper()
	got := map[string]int{}
	names, err := filepath.Glob(filepath.Join(r.dir, "*.json"))
	must(r.t, err)
	for _, name := range names {
		role, err := url.PathUnescape(strings.TrimSuffix(filepath.Base(name), ".json"))
		must(r.t, err)
		got[role] = r.trusted(role)
	}
	if d := cmp.Diff(want, got); d != "" {
		r.t.Error("trusted:", d)
	}
}

// trusted is the version of a role, 0 for none.
func (r *rig) trusted(role string) int {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, escaped(role)+".json"))
	if os.IsNotExist(err) {
		return 0
	}
	must(r.t, err)
	var f struct {
		Signed struct {
			Version int `json:"version"`
		} `json:"signed"`
	}
	must(r.t, json.Unmarshal(b, &f))
	return f.Signed.Version
}

// asks wants exactly these requests for metadata since the last call.
func (r *rig) asks(want ...string) {
	r.t.Helper()
	if d := cmp.Diff(want, r.asked); d != "" {
		r.t.Error("requests:", d)
	}
	r.asked = nil
}

// has wants exactly these downloads, whatever they are called.
func (r *rig) has(want ...string) {
	r.t.Helper()
	got := []string{}
	entries, err := os.ReadDir(r.downloads)
	must(r.t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(r.downloads, e.Name()))
		must(r.t, err)
		got = append(got, string(b))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("downloads: %q, want %q", got, want)
	}
}

func versions(root, timestamp, snapshot, targets int) map[string]int {
	out := map[string]int{}
	for role, v := range map[string]int{"root": root, "timestamp": timestamp, "snapshot": snapshot, "targets": targets} {
		if v > 0 {
			out[role] = v
		}
	}
	return out
}

// spoil changes a file that the client keeps.
func (r *rig) spoil(name string, damage func([]byte) []byte) {
	r.t.Helper()
	c := client{dir: r.dir}
	p := filepath.Join(c.store(), name+".json")
	b, err := os.ReadFile(p)
	must(r.t, err)
	must(r.t, os.WriteFile(p, damage(b), 0o600))
}
