package lab_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/fleetd"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

const reader = "reader"

// runner is a device that does what its wish says, by the rule of the agent: a
// pair that serves and is good is never installed again, and a model that is left
// out is left as it is.
type runner struct {
	*lab.Device
	t *testing.T

	mu       sync.Mutex
	active   *wire.SlotState
	answers  bundle.Assign
	journeys int
	refused  []error
}

func newRunner(t *testing.T, d *lab.Device) *runner {
	r := &runner{Device: d, t: t}
	d.Models = r.models
	return r
}

func (r *runner) models() []wire.ModelState {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active == nil {
		return nil
	}
	return []wire.ModelState{{Model: reader, Active: r.active, Generation: r.answers.Generation, Attempt: r.answers.Attempt, Rollout: r.answers.Rollout}}
}

// refresh takes the newest wish and follows it.
func (r *runner) refresh() {
	r.t.Helper()
	w, err := r.Trust.Refresh(r.t.Context(), link.Source{Link: r.Link})
	var refusal *trust.Refusal
	if errors.As(err, &refusal) {
		r.refused = append(r.refused, err)
	}
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	byPath := map[string]trust.Target{}
	for _, x := range w.Targets {
		byPath[x.Path] = x
	}
	for _, x := range w.Targets {
		var c bundle.Custom
		must(r.t, json.Unmarshal(x.Custom, &c))
		if c.Assign == nil || c.Release.Model != reader {
			continue
		}
		r.answers = *c.Assign
		runtime := byPath[c.Assign.Runtime].Digest
		if r.active == nil || r.active.Bundle != x.Digest || r.active.Runtime != runtime {
			r.journeys++
			r.active = &wire.SlotState{Path: x.Path, Bundle: x.Digest, Runtime: runtime, Verdict: "good", Proven: true}
		}
	}
}

// reach refreshes until the release serves, and tells it.
func (r *runner) reach(s *lab.Server, path string) {
	r.t.Helper()
	lab.Until(r.t, path+" on "+r.ID.Device, func() bool {
		r.refresh()
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.active != nil && r.active.Path == path
	})
	r.told(s, path)
}

// told reports until the server knows that the release is proven.
func (r *runner) told(s *lab.Server, path string) {
	r.t.Helper()
	lab.Until(r.t, "the proof of "+r.ID.Device, func() bool {
		r.report()
		d, err := s.DB.Device(r.t.Context(), r.ID.Device)
		must(r.t, err)
		return d.Proof == fleet.Proven && len(d.Models) == 1 && d.Models[0].Active.Path == path
	})
}

// report tells once, with a new nonce, and waits until that is committed.
func (r *runner) report() {
	r.t.Helper()
	n := r.Welcomes()
	r.Link.Poke()
	lab.Until(r.t, "the welcome of "+r.ID.Device, func() bool { return r.Welcomes() > n })
	r.Report()
	lab.Until(r.t, "the acknowledgements of "+r.ID.Device, func() bool { return r.Waiting() == 0 })
}

// back restarts the device's program towards a server.
func (r *runner) back(s *lab.Server) {
	r.t.Helper()
	r.Start(s.MQTT)
	n := r.Welcomes()
	lab.Until(r.t, "the welcome of "+r.ID.Device, func() bool { return r.Welcomes() > n })
}

// restored backs up s while it serves, has the rest of the time happen, destroys
// the server and brings it back.
func restored(t *testing.T, s *lab.Server, meanwhile func()) *lab.Server {
	t.Helper()
	dir := t.TempDir()
	file, pass := filepath.Join(dir, "fleet.backup"), []byte("a long passphrase")
	_, err := fleetd.Backup(t.Context(), s.Dir, file, pass, time.Now())
	must(t, err)
	meanwhile()
	s.Stop()
	s.DB.Close()
	blobs := filepath.Join(dir, "blobs")
	must(t, os.Rename(filepath.Join(s.Dir, "blobs"), blobs))
	must(t, os.RemoveAll(s.Dir))
	to := filepath.Join(dir, "new", "fleet")
	res, err := fleetd.Restore(t.Context(), fleetd.RestoreConfig{From: file, Dir: to, Blobs: blobs, Passphrase: pass}, time.Now())
	must(t, err)
	if len(res.Missing) != 0 {
		t.Errorf("missing %v", res.Missing)
	}
	return s.Again(to)
}

// TestRestore backs a serving server up, rolls out and publishes further,
// destroys it and brings it back. No device refuses anything and none is touched:
//
//	stays   did nothing in the lost time
//	moved   got another release that the backup knows, by a rollout that it has open
//	late    had not seen the backup's wish yet
//	beyond  runs a release that was published in the lost time
func TestRestore(t *testing.T) {
	s := lab.Start(t)
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")))
	one, two, three := catalogtest.Model(t, reader, "1.0.0", []byte("one")), catalogtest.Model(t, reader, "1.1.0", []byte("two")), catalogtest.Model(t, reader, "1.2.0", []byte("three"))
	s.Publish(one)
	s.Publish(two)
	names := []string{"stays", "moved", "late", "beyond"}
	all := map[string]*runner{}
	for _, id := range names {
		all[id] = newRunner(t, s.Enrol(id))
		all[id].Start(s.MQTT)
		first := s.AssignRollout(one, "class=lab-"+id)
		all[id].reach(s, one.Path(lab.Channel))
		lab.Until(t, "the end of the first rollout", func() bool {
			r, err := s.DB.Rollout(t.Context(), first)
			must(t, err)
			return r.Status == fleet.RolloutCompleted
		})
	}
	all["late"].Stop()
	open := s.AssignRollout(two, "class in (lab-late,lab-moved)")
	lab.Until(t, "the wish of late", func() bool { return wishes(t, s, "late") == two.Path(lab.Channel) })

	n := restored(t, s, func() {
		all["moved"].reach(s, two.Path(lab.Channel))
		s.Publish(three)
		s.Assign(three, "class=lab-beyond")
		all["beyond"].reach(s, three.Path(lab.Channel))
		for _, r := range all {
			r.Stop()
		}
	})

	if r, err := n.DB.Rollout(t.Context(), open); err != nil || r.Status != fleet.RolloutPaused || r.Code != fleet.RestoreCode {
		t.Fatalf("the open rollout: %+v, %v", r, err)
	}
	for _, id := range names {
		w, err := n.DB.Wish(t.Context(), id)
		must(t, err)
		if !w.Withheld || w.Generation <= fleet.RestoreJump || w.Version <= fleet.RestoreJump {
			t.Errorf("%s before its first hello: %+v", id, w)
		}
	}
	want := map[string]struct {
		path     string // wished
		journeys int    // in all
	}{
		"stays": {one.Path(lab.Channel), 1}, "moved": {two.Path(lab.Channel), 2}, "late": {two.Path(lab.Channel), 2}, "beyond": {"", 2},
	}
	for _, id := range names {
		r := all[id]
		r.back(n)
		lab.Until(t, "the wish of "+id, func() bool {
			r.refresh()
			w, err := n.DB.Wish(t.Context(), id)
			must(t, err)
			return r.Trust.Wish().Generation == w.Generation && !w.Withheld
		})
		if got := wishes(t, n, id); got != want[id].path {
			t.Errorf("%s: %q is wished, want %q", id, got, want[id].path)
		}
		if r.journeys != want[id].journeys || len(r.refused) > 0 {
			t.Errorf("%s: %d journeys, want %d, refused %v", id, r.journeys, want[id].journeys, r.refused)
		}
	}
	alarmed(t, n, "catalog.ahead", lab.Channel, "publish again")

	// A person resumes what was paused; it ends with what runs already.
	n.Do(http.MethodPost, "/v1/rollouts/"+open+"/resume", map[string]string{"reason": "looked"}, nil)
	lab.Until(t, "the end of the rollout", func() bool {
		for _, id := range []string{"late", "moved"} {
			all[id].refresh()
			all[id].report()
		}
		r, err := n.DB.Rollout(t.Context(), open)
		must(t, err)
		return r.Status == fleet.RolloutCompleted
	})
	// What was lost is published again: the device that runs it is directed again.
	n.Publish(three)
	n.Assign(three, "class=lab-beyond")
	beyond := all["beyond"]
	beyond.told(n, three.Path(lab.Channel))
	lab.Until(t, "the wish of beyond", func() bool {
		beyond.refresh()
		return len(beyond.Trust.Wish().Targets) == 2
	})
	for _, id := range names {
		if r := all[id]; r.journeys != want[id].journeys || len(r.refused) > 0 {
			t.Errorf("%s at the end: %d journeys, want %d, refused %v", id, r.journeys, want[id].journeys, r.refused)
		}
	}
}

// wishes is the release of the reader that a device is to run.
func wishes(t *testing.T, s *lab.Server, device string) string {
	t.Helper()
	w, err := s.DB.Wish(t.Context(), device)
	must(t, err)
	it, _ := w.Item(reader)
	return it.Path
}

func alarmed(t *testing.T, s *lab.Server, act, object, detail string) {
	t.Helper()
	as, err := s.DB.Audit(t.Context(), object, "", 100)
	must(t, err)
	if !slices.ContainsFunc(as, func(a fleet.Audit) bool { return a.Act == act && strings.Contains(a.Detail, detail) }) {
		t.Errorf("no alarm %s in %+v", act, as)
	}
}

// TestRestoreRecords loses what was acknowledged after a backup and gets it back
// from the devices, each record once; what a device cannot send again is named.
func TestRestoreRecords(t *testing.T) {
	s := lab.Start(t)
	keeps, forgets := s.Enrol("keeps"), s.Enrol("forgets")
	const before, after = 20, 300
	say := func(d *lab.Device, from, n int64) {
		for i := range n {
			d.Sample(from + i)
		}
		lab.Until(t, "the acknowledgements of "+d.ID.Device, func() bool { return d.Waiting() == 0 })
	}
	for _, d := range []*lab.Device{keeps, forgets} {
		d.QueueBytes = 64 << 10 // segments of 4 KiB
		d.Start(s.MQTT)
		say(d, 0, before)
	}
	n := restored(t, s, func() {
		for _, d := range []*lab.Device{keeps, forgets} {
			say(d, before, after)
			d.Stop()
		}
	})
	forgets.Lose("sample")
	for _, d := range []*lab.Device{keeps, forgets} {
		d.Start(n.MQTT)
		lab.Until(t, "the welcome", func() bool { return d.Welcomes() > 0 && d.Link.Connected() })
		say(d, 1000, 1)
		d.Event("back")
	}
	samples := func(device string) int {
		out, err := n.DB.Samples(t.Context(), device, 0, 10_000)
		must(t, err)
		return len(out)
	}
	lab.Until(t, "every record", func() bool { return samples("keeps") == before+after+1 })
	var left []fleet.Restored
	lab.Until(t, "the count", func() bool {
		var err error
		left, err = fleetd.RestoreStatus(t.Context(), n.Dir)
		must(t, err)
		for _, r := range left {
			for _, x := range r.Records {
				if x.Open() > 0 {
					return false
				}
			}
		}
		return true
	})
	for _, r := range left {
		if r.Reconciled.IsZero() {
			t.Errorf("%s is not reconciled", r.Device)
		}
		x := fleet.RestoredRecords{}
		for _, y := range r.Records {
			if y.Kind == wire.KindSample {
				x = y
			}
		}
		t.Logf("%s: %+v", r.Device, x)
		switch r.Device {
		case "keeps":
			if x.Known != before || x.Last < before+after || x.Received != x.Last-x.Known || x.Lost != 0 || x.Missing != "" {
				t.Errorf("keeps: %+v", x)
			}
		case "forgets":
			if x.Known != before || x.Lost == 0 || x.Received+x.Lost != x.Last-x.Known || !strings.HasPrefix(x.Missing, "21-") {
				t.Errorf("forgets: %+v", x)
			}
		}
	}
}
