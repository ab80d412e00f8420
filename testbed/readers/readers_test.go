package readers

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	channel = "production"
	device  = "meter-1"
)

// readers are TUF clients by other hands, as commands; make readers gets them.
func readers(t *testing.T) map[string]func(args ...string) *exec.Cmd {
	t.Helper()
	here, err := os.Getwd()
	must(t, err)
	got := filepath.Join(here, "..", "..", "build", "readers")
	for _, f := range []string{"python/requirements.txt", "node/pins"} {
		if _, err := os.Stat(filepath.Join(got, f)); err != nil {
			t.Fatalf("the readers are not there, make readers gets them: %v", err)
		}
	}
	return map[string]func(args ...string) *exec.Cmd{
		"python-tuf": func(args ...string) *exec.Cmd {
			return exec.Command(filepath.Join(got, "python", "bin", "python"), append([]string{filepath.Join(here, "read.py")}, args...)...)
		},
		"tuf-js": func(args ...string) *exec.Cmd {
			c := exec.Command("node", append([]string{filepath.Join(here, "read.js")}, args...)...)
			c.Dir = filepath.Join(got, "node")
			return c
		},
	}
}

// fleetOf is a server's catalog and director over a real database. The readers ask
// the clock of this machine, so its time is now.
type fleetOf struct {
	t        *testing.T
	db       *sqlite.DB
	blobs    *blob.Dir
	catalog  *catalog.Service
	director *director.Service
	pub      *catalogtest.Publishers
	ceremony *catalog.Ceremony
	targets  map[string][]byte // by path: what is published
	epoch    int64
}

func newFleet(t *testing.T) *fleetOf {
	t.Helper()
	dir, now := t.TempDir(), time.Now().UTC().Truncate(time.Second)
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	online := catalogtest.NewOnline()
	f := &fleetOf{t: t, db: db, blobs: blobs, pub: catalogtest.New(t, 2, 3, online, now), targets: map[string][]byte{}}
	f.ceremony = f.pub.Ceremony()
	f.catalog = &catalog.Service{Store: db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	f.director = &director.Service{Store: db, Key: online.Director, Now: time.Now}
	must(t, f.catalog.Install(t.Context(), f.ceremony, "anna"))
	must(t, db.CreateEnrolToken(t.Context(), &fleet.EnrolToken{ID: "tok_1", Channel: channel, Max: 1, Expires: now.Add(time.Hour), Created: now}, fleet.Audit{}))
	_, _, err = db.Enrol(t.Context(), "tok_1", [32]byte{}, &fleet.Device{ID: device, Status: fleet.DeviceActive, Channel: channel, PublicKey: []byte("key"), Serial: "1", Enrolled: now}, []byte("cert"), now)
	must(t, err)
	var ok bool
	f.epoch, ok, err = db.Lease(t.Context(), "rollouts", "readers", time.Hour, now)
	must(t, err)
	if !ok {
		t.Fatal("no lease")
	}
	return f
}

// publish signs releases as the channel's holders do, each under its counter.
func (f *fleetOf) publish(releases map[*catalogtest.Bundle]int64) {
	f.t.Helper()
	for b := range releases {
		b.Put(f.t, f.blobs)
		f.targets[b.Path(channel)] = b.Raw
	}
	md := f.pub.Next(channel, releases)
	_, err := f.catalog.Ingest(f.t.Context(), channel, f.pub.SignRole(md), "anna")
	must(f.t, err)
	f.pub.Published(channel, md)
}

// assign makes the device wish for a model.
func (f *fleetOf) assign(model, version string) {
	f.t.Helper()
	ro, _ := rollout.New(fleet.Spec{Model: model, Version: version, Channel: channel}, []*fleet.Device{{ID: device}}, "anna", time.Now())
	must(f.t, f.db.CreateRollout(f.t.Context(), ro, nil, fleet.Audit{}))
	it := fleet.Item{Model: model, Path: bundle.TargetPath(channel, model, version), Runtime: runtimePath, Attempt: 1, Rollout: ro.ID, Arm: "treated"}
	must(f.t, f.director.Commit(f.t.Context(), fleet.Commit{Epoch: f.epoch, Rollout: *ro, Device: device, Change: func(w *fleet.Wish) error { w.Put(it); return nil }}))
}

const runtimePath = channel + "/runtime-litert-arm64/2.3.0"

// files are all of a repository by the name that TUF gives them.
func (f *fleetOf) files(repo string) map[string][]byte {
	f.t.Helper()
	var rows []fleet.MetaRow
	var err error
	if repo == catalog.Repo {
		for _, ch := range fleet.Channels {
			more, e := f.catalog.Newer(f.t.Context(), ch, catalog.Held{})
			must(f.t, e)
			rows = append(rows, more...)
		}
	} else {
		rows, err = f.director.Newer(f.t.Context(), device, director.Held{})
		must(f.t, err)
	}
	out := map[string][]byte{}
	for _, r := range rows {
		name := fmt.Sprintf("metadata/%d.%s.json", r.Version, r.Role)
		if r.Role == "timestamp" {
			name = "metadata/timestamp.json"
		}
		out[name] = r.Bytes
	}
	for p, b := range f.targets {
		out["targets/"+path.Dir(p)+"/"+hexOf(b)+"."+path.Base(p)] = b
	}
	return out
}

func hexOf(b []byte) string { return strings.TrimPrefix(bundle.DigestOf(b), "sha256:") }

// reading is one reader with its folder and the repository that it reads.
type reading struct {
	command func(args ...string) *exec.Cmd
	folder  string
	url     string

	mu    sync.Mutex // guards files: the reader is another process
	files map[string][]byte
}

// serve changes what the repository has.
func (r *reading) serve(files map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = files
}

func read(t *testing.T, command func(args ...string) *exec.Cmd, root []byte) *reading {
	t.Helper()
	r := &reading{command: command, folder: t.TempDir()}
	must(t, os.WriteFile(filepath.Join(r.folder, "root.json"), root, 0o600))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		b, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
		r.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		w.Write(b)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// targets returns the SHA-256 of each target that the reader fetched.
func (r *reading) targets(ctx context.Context, targets ...string) ([]string, error) {
	c := r.command(append([]string{r.folder, r.url + "/metadata/", r.url + "/targets/"}, targets...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return strings.Fields(string(out)), ctx.Err()
}

// fetches wants a reader to believe the repository and to fetch these targets.
func (r *reading) fetches(t *testing.T, f *fleetOf, targets ...string) {
	t.Helper()
	got, err := r.targets(t.Context(), targets...)
	must(t, err)
	for i, p := range targets {
		if i >= len(got) || got[i] != hexOf(f.targets[p]) {
			t.Errorf("%s: %v, want %s", p, got, hexOf(f.targets[p]))
		}
	}
}

// TestOthersReadOurRepositories lets clients by other hands read what our server
// signs, and what it signs next; and refuse it with one byte changed.
func TestOthersReadOurRepositories(t *testing.T) {
	for name, command := range readers(t) {
		for _, repo := range []string{catalog.Repo, director.Repo} {
			t.Run(name+" "+repo, func(t *testing.T) {
				f := newFleet(t)
				root := f.ceremony.CatalogRoot
				if repo == director.Repo {
					root = f.ceremony.DirectorRoot
				}
				f.publish(map[*catalogtest.Bundle]int64{catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")): 1, catalogtest.Model(t, "digits", "1.0.0", []byte("digits 1")): 1})
				f.assign("digits", "1.0.0")
				r := read(t, command, root)
				r.serve(f.files(repo))
				r.fetches(t, f, runtimePath, channel+"/digits/1.0.0")

				f.publish(map[*catalogtest.Bundle]int64{catalogtest.Model(t, "digits", "1.1.0", []byte("digits 2")): 2})
				f.assign("digits", "1.1.0")
				r.serve(f.files(repo))
				r.fetches(t, f, channel+"/digits/1.1.0")
				if _, err := r.targets(t.Context(), "dev/digits/1.1.0"); err == nil {
					t.Error("it found a target that was never published")
				}

				for _, role := range []string{"timestamp", "snapshot", "targets"} {
					fresh := read(t, command, root)
					files := f.files(repo)
					for file := range files {
						if strings.HasSuffix(file, role+".json") {
							files[file] = bytes.Replace(files[file], []byte(`"version":`), []byte(`"version":1`), 1)
						}
					}
					fresh.serve(files)
					if _, err := fresh.targets(t.Context()); err == nil {
						t.Errorf("it believed an altered %s", role)
					}
				}
			})
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
