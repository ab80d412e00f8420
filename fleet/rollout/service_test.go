package rollout_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// watched calls admitted after each device that was given the release.
type watched struct {
	dying
	admitted func(device string)
}

func (w *watched) Commit(ctx context.Context, c fleet.Commit) error {
	err := w.dying.Commit(ctx, c)
	if err == nil && c.Change != nil && w.admitted != nil {
		w.admitted(c.Device)
	}
	return err
}

func TestCreateRefuses(t *testing.T) {
	r := newRig(t, two())
	r.enrol("pc-0", "pc", "amd64")
	for _, c := range []struct {
		name string
		spec fleet.Spec
		want error
	}{
		{"no name", fleet.Spec{Version: "1.0.0", Channel: "production"}, fleet.ErrRolloutInvalid},
		{"unknown release", fleet.Spec{Model: "digits", Version: "9.0.0", Channel: "production"}, fleet.ErrReleaseUnknown},
		{"another channel", fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "dev"}, fleet.ErrReleaseUnknown},
		{"malformed selector", fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "production", Selector: "a b"}, fleet.ErrSelector},
		{"nobody matches", fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "production", Selector: "class=moon"}, fleet.ErrNoDevices},
		{"a device of other hardware", fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "production"}, fleet.ErrUnfit},
	} {
		if _, err := r.service.Create(t.Context(), c.spec, "me"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if all, _ := r.db.Rollouts(t.Context(), "", "", 9); len(all) != 0 {
		t.Errorf("a refused specification left %d rollouts", len(all))
	}
	only := fleet.Spec{Model: "digits", Version: "1.0.0", Channel: "production", Selector: "class=pi5"}
	ro, err := r.service.Create(t.Context(), only, "me")
	must(t, err)
	only.Version = "1.1.0"
	if _, err := r.service.Create(t.Context(), only, "me"); !errors.Is(err, fleet.ErrRolloutConflict) {
		t.Errorf("overlap: %v", err)
	}
	only.Selector = "class=x86"
	if _, err := r.service.Create(t.Context(), only, "me"); err != nil {
		t.Errorf("other devices: %v", err)
	}
	if rows, _ := r.db.Audit(t.Context(), ro.ID, "", 9); len(rows) != 1 || rows[0].Act != "rollout.create" || rows[0].Actor != "me" {
		t.Errorf("audit: %+v", rows)
	}
}

// TestSteering tries every act in every status.
func TestSteering(t *testing.T) {
	acts := map[string]string{"pause": fleet.RolloutPaused, "resume": fleet.RolloutRunning, "abort": fleet.RolloutAborted}
	allowed := map[string][]string{
		fleet.RolloutRunning: {"pause", "abort"}, fleet.RolloutPaused: {"resume", "abort"}, fleet.RolloutHalted: {"abort"},
		fleet.RolloutAborted: {}, fleet.RolloutCompleted: {},
	}
	for status, may := range allowed {
		for act, becomes := range acts {
			r := newRig(t, map[string]int{"pi5": 1})
			ro := r.create("1.0.0")
			if status != fleet.RolloutRunning {
				must(t, r.db.SetRolloutStatus(t.Context(), ro.ID, []string{fleet.RolloutRunning}, status, "", fleet.Audit{}))
			}
			do := map[string]func(context.Context, string, string, string) (*fleet.Rollout, error){"pause": r.service.Pause, "resume": r.service.Resume, "abort": r.service.Abort}[act]
			want := status
			got, err := do(t.Context(), ro.ID, "because", "me")
			for _, m := range may {
				if m == act {
					want = becomes
				}
			}
			if want == status && !errors.Is(err, fleet.ErrRolloutState) || want != status && (err != nil || got.Status != want || got.Reason != "because") {
				t.Errorf("%s a %s rollout: %+v, %v", act, status, got, err)
			}
			if now, _ := r.db.Rollout(t.Context(), ro.ID); now.Status != want {
				t.Errorf("%s a %s rollout: it is %s", act, status, now.Status)
			}
		}
	}
}

// TestAPauseHoldsWhatIsPlanned: a person pauses between the loop's plan and its
// commit; the commit is refused and nobody is admitted until it is resumed.
func TestAPauseHoldsWhatIsPlanned(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 6})
	w := &watched{dying: dying{Service: r.director}}
	r.restart(w)
	ro := r.create("1.0.0", fleet.StageSpec{Percent: 100})
	_, err := r.loop.Step(t.Context())
	must(t, err)
	for _, s := range r.fleet {
		r.live(s, good)
	}
	w.admitted = func(string) {
		_, err := r.service.Pause(t.Context(), ro.ID, "lunch", "me")
		must(t, err)
		w.admitted = nil
	}
	admitted := func() (n int) {
		for _, m := range r.members(ro.ID) {
			if !m.Assigned.IsZero() {
				n++
			}
		}
		return n
	}
	for range 3 {
		_, err := r.loop.Step(t.Context())
		must(t, err)
		r.now = r.now.Add(time.Minute)
	}
	if n := admitted(); n != 2 {
		t.Errorf("%d devices after the pause, want the first and the one before it", n)
	}
	_, err = r.service.Resume(t.Context(), ro.ID, "", "me")
	must(t, err)
	if got := r.run(ro.ID, good); got.Status != fleet.RolloutCompleted {
		t.Errorf("after resuming: %s", got.Status)
	}
}

func TestAbortGivesFormerWishesBack(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 3})
	ro := r.create("1.0.0")
	_, err := r.loop.Step(t.Context())
	must(t, err)
	_, err = r.service.Abort(t.Context(), ro.ID, "no", "me")
	must(t, err)
	_, err = r.loop.Step(t.Context())
	must(t, err)
	for _, s := range r.fleet {
		if w := r.wish(s.id); len(w.Items) != 0 {
			t.Errorf("%s keeps %+v", s.id, w.Items)
		}
	}
}

// TestRunLooksAgain runs the loop in simulated time: it acts at once, on Wake, and
// when a bake is over, and ends with its context.
func TestRunLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[string]int{"pi5": 1})
		defer r.db.Close()
		began := time.Now()
		ro := r.create("1.0.0", fleet.StageSpec{Count: 1, Bake: fleet.Duration(3 * time.Second)})
		r.now = r.now.Add(time.Minute)
		offset := r.now.Sub(began)
		r.loop.Now = func() time.Time { return time.Now().Add(offset) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.loop.Run(ctx) }()
		synctest.Wait()
		if w := r.wish("pi5-0"); w.Generation != 1 {
			t.Fatal("nothing was done at once")
		}
		r.now = time.Now().Add(offset)
		r.live(r.fleet[0], good)
		r.loop.Wake()
		synctest.Wait()
		if got, _ := r.db.Rollout(t.Context(), ro.ID); got.Stages[0].Baking.IsZero() {
			t.Fatal("a wake was not heard")
		}
		time.Sleep(3*time.Second + time.Millisecond)
		synctest.Wait()
		if got, _ := r.db.Rollout(t.Context(), ro.ID); got.Status != fleet.RolloutCompleted {
			t.Fatalf("%s after the bake", got.Status)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestUndoLeavesAnotherRolloutsWishAlone: by the time a halted rollout takes its
// release back, somebody else may have given the device another.
func TestUndoLeavesAnotherRolloutsWishAlone(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 1})
	first := r.create("1.0.0")
	_, err := r.loop.Step(t.Context())
	must(t, err)
	must(t, r.db.SetRolloutStatus(t.Context(), first.ID, []string{fleet.RolloutRunning}, fleet.RolloutHalted, "", fleet.Audit{}))
	second := r.create("1.1.0")
	must(t, r.db.SetRolloutStatus(t.Context(), second.ID, []string{fleet.RolloutRunning}, fleet.RolloutPaused, "", fleet.Audit{}))
	second.Status = fleet.RolloutPaused
	epoch, _, err := r.db.Lease(t.Context(), "rollouts", r.loop.Holder, time.Minute, r.now)
	must(t, err)
	theirs := fleet.Item{Model: "digits", Path: "production/digits/1.1.0", Runtime: "production/runtime-litert-arm64/2.3.0", Attempt: 1, Rollout: second.ID}
	must(t, r.director.Commit(t.Context(), fleet.Commit{Epoch: epoch, Rollout: *second, Device: "pi5-0", Change: func(w *fleet.Wish) error { w.Put(theirs); return nil }}))
	_, err = r.loop.Step(t.Context())
	must(t, err)
	if it, _ := r.wish("pi5-0").Item("digits"); it != theirs {
		t.Errorf("the device shall run %+v", it)
	}
	if open, _ := r.db.OpenRollouts(t.Context()); len(open) != 0 {
		t.Errorf("still open: %v", ids(open))
	}
}

func ids(rs []fleet.Rollout) (out []string) {
	for _, r := range rs {
		out = append(out, r.ID)
	}
	return out
}

// TestQuarantine: a release on which a gate failed is kept from the hardware class
// that refused it until a person lets it go, with a reason.
func TestQuarantine(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 3, "pi4": 3})
	ro := r.run(r.create("1.1.0", fleet.StageSpec{Percent: 100}).ID, func(device, path string) string {
		if strings.HasPrefix(device, "pi5") && strings.HasSuffix(path, "1.1.0") {
			return "prove.golden"
		}
		return ""
	})
	if ro.Status != fleet.RolloutHalted {
		t.Fatal(ro.Status)
	}
	again := func(selector string) error {
		_, err := r.service.Create(t.Context(), fleet.Spec{Model: "digits", Version: "1.1.0", Channel: "production", Selector: selector}, "me")
		return err
	}
	if err := again(""); !errors.Is(err, fleet.ErrQuarantined) || !strings.Contains(err.Error(), "pi5") || !strings.Contains(err.Error(), "gate.prove") {
		t.Fatalf("to all: %v", err)
	}
	qs, err := r.db.Quarantines(t.Context(), "", false)
	must(t, err)
	if len(qs) != 1 || qs[0].Class != "pi5" || qs[0].Rollout != ro.ID {
		t.Fatalf("%+v", qs)
	}
	if err := r.service.Release(t.Context(), qs[0].ID, "  ", "me"); !errors.Is(err, fleet.ErrBadRequest) {
		t.Errorf("without a reason: %v", err)
	}
	must(t, again("class=pi4"))
	must(t, r.service.Release(t.Context(), qs[0].ID, "the bench was dark", "me"))
	must(t, again("class=pi5"))
	audit, err := r.db.Audit(t.Context(), qs[0].ID, "", 9)
	must(t, err)
	if len(audit) != 1 || audit[0].Detail != "the bench was dark" {
		t.Errorf("%+v", audit)
	}
}

// TestWhatIsNoQuarantine: what may be the fault of devices keeps nothing away.
func TestWhatIsNoQuarantine(t *testing.T) {
	r := newRig(t, map[string]int{"pi5": 6})
	ro := r.run(r.create("1.1.0", fleet.StageSpec{Percent: 100}).ID, func(string, string) string { return "install.disk" })
	if ro.Code != "gate.install" {
		t.Fatal(ro.Code)
	}
	if qs, err := r.db.Quarantines(t.Context(), "", true); err != nil || len(qs) != 0 {
		t.Errorf("%+v, %v", qs, err)
	}
}
