package update

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

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

// unwish directs the device to nothing.
func (d *device) unwish() {
	d.repo.mu.Lock()
	d.repo.wish = trust.Wish{Generation: d.repo.wish.Generation + 1}
	d.repo.mu.Unlock()
	d.e.Refresh()
}

// rest waits until nothing is under way, with a wish of this generation followed.
func (d *device) rest(generation int64, version string) {
	d.t.Helper()
	d.until("rest", func(s Status) bool {
		active := ""
		if s.Active != nil {
			active = s.Active.Path[strings.LastIndexByte(s.Active.Path, '/')+1:]
		}
		return d.e.Generation() == generation && s.Step == "" && active == version
	})
	d.serves(version)
}

// TestLeftOutOfTheWish takes a wish back at every step, while the agent runs and
// while it is off: what was there before stays, a first release leaves nothing.
func TestLeftOutOfTheWish(t *testing.T) {
	for _, before := range []string{"", "1.0.0"} {
		for _, st := range steps[:stepIndex("commit")+1] {
			t.Run(fmt.Sprintf("%q at %s", before, st.name), func(t *testing.T) {
				d := newDevice(t)
				if before != "" {
					d.run(func() {
						d.wish(before, 1)
						d.until(before, good(before))
					})
				}
				d.wish("1.1.0", 1)
				d.die(t, st.name)
				d.open()
				d.unwish()
				generation := d.repo.Wish().Generation
				d.run(func() { d.rest(generation, before) })
				for _, e := range d.events {
					if e.Code != "" {
						t.Errorf("event %+v: nobody is to blame", e)
					}
				}
			})
		}
	}
	t.Run("while it proves", func(t *testing.T) {
		d := newDevice(t)
		d.block = make(chan struct{}) // for ever
		d.run(func() {
			d.wish("1.0.0", 1)
			d.until("prove", func(s Status) bool { return s.Step == "prove" })
			d.unwish()
			d.rest(2, "")
		})
	})
	t.Run("in probation", func(t *testing.T) {
		d := newDevice(t)
		d.judge["1.0.0"] = Judgement{Verdict: NotYet}
		d.run(func() {
			d.wish("1.0.0", 1)
			d.until("probation", func(s Status) bool { return s.Step == "probation" })
			d.unwish()
			d.rest(2, "")
		})
	})
	t.Run("nothing is known yet", func(t *testing.T) {
		d := newDevice(t)
		d.wish("1.0.0", 1)
		d.die(t, "prove")
		d.repo.wish = trust.Wish{} // the metadata is damaged
		d.open()
		d.run(func() { d.until("1.0.0", good("1.0.0")) })
	})
}

// TestFloorRisesOnTheWay has a floor rise above a release that is on its way.
func TestFloorRisesOnTheWay(t *testing.T) {
	for _, st := range []string{"fetch", "prove", "try", "probation", "commit"} {
		t.Run(st, func(t *testing.T) {
			d := newDevice(t)
			d.run(func() {
				d.wish("1.0.0", 1)
				d.until("1.0.0", good("1.0.0"))
			})
			d.wish("1.1.0", 1)
			d.die(t, st)
			d.repo.wish.Targets[0].BelowFloor = true
			d.open()
			d.run(func() {
				s := d.until("the refusal", refused("1.1.0"))
				d.serves("1.0.0")
				if s.Candidate.Code != "check.below_floor" {
					t.Errorf("%+v", s.Candidate)
				}
			})
		})
	}
}
