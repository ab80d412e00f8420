package update

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// rot changes a byte of a file without its size, as a bad card does; what else has
// the file by a link keeps it.
func (d *device) rot(path string) {
	d.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Remove(path); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) place(name string) string { return filepath.Join(d.dir, "slots", "m", name) }

func (d *device) told(typ string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		if e.Type == typ {
			n++
		}
	}
	return n
}

// TestDamagedActiveSlot has files of the active slot rot while the device is off:
// they are not loaded, the slot before serves, and the wish is fulfilled anew.
func TestDamagedActiveSlot(t *testing.T) {
	for _, file := range []string{"model.tflite", runtimeDir + "/libLiteRt.so"} {
		d := newDevice(t)
		d.run(func() {
			d.wish("1.0.0", 1)
			d.until("1.0.0", good("1.0.0"))
			d.wish("1.1.0", 1)
			d.until("1.1.0", good("1.1.0"))
		})
		d.rot(filepath.Join(d.place("current"), file))
		d.open()
		d.block = make(chan struct{})
		d.run(func() {
			d.until("the new proof", func(s Status) bool { return s.Step == "prove" })
			d.serves("1.0.0")
			close(d.block)
			d.until("1.1.0 again", good("1.1.0"))
			d.serves("1.1.0")
		})
		if n := d.told("serve.damaged"); n != 1 {
			t.Errorf("%s: told %d times", file, n)
		}
	}
}

// TestDamagedOnlySlot has nothing to fall back to.
func TestDamagedOnlySlot(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
	})
	d.rot(filepath.Join(d.place("current"), "model.tflite"))
	d.open()
	d.block = make(chan struct{})
	d.run(func() {
		d.until("the new proof", func(s Status) bool { return s.Step == "prove" && s.Active == nil })
		d.serves("")
		close(d.block)
		d.until("1.0.0 again", good("1.0.0"))
	})
}

// TestDamageOnTheWay has the candidate's files rot before and after it is tried:
// they are fetched again, and the release is not to blame.
func TestDamageOnTheWay(t *testing.T) {
	for _, st := range []string{"prove", "try", "probation", "commit"} {
		t.Run(st, func(t *testing.T) {
			d := newDevice(t)
			d.run(func() {
				d.wish("1.0.0", 1)
				d.until("1.0.0", good("1.0.0"))
			})
			d.wish("1.1.0", 1)
			d.die(t, st)
			d.rot(filepath.Join(d.place("b"), "model.tflite"))
			d.open()
			d.run(func() { d.until("1.1.0", good("1.1.0")) })
			if n := d.told("update.refused") + d.told("update.rolled_back"); n > 0 {
				t.Errorf("%d refusals", n)
			}
		})
	}
}

// TestStorageThatAlwaysRots gives up.
func TestStorageThatAlwaysRots(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
	})
	d.wish("1.1.0", 1)
	d.die(t, "prove")
	d.rot(filepath.Join(d.place("b"), "model.tflite"))
	d.change(func(jr *journal) { jr.Losses = maxLosses })
	d.open()
	d.run(func() {
		s := d.until("giving up", refused("1.1.0"))
		d.serves("1.0.0")
		if s.Candidate.Code != "place.lost" {
			t.Errorf("%+v", s.Candidate)
		}
	})
}

// TestActiveSlotThatDoesNotStart is told, shown and tried again.
func TestActiveSlotThatDoesNotStart(t *testing.T) {
	d := newDevice(t)
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
	})
	d.open()
	d.mu.Lock()
	d.broken = errors.New("no memory")
	d.mu.Unlock()
	d.run(func() {
		s := d.until("trouble", func(s Status) bool { return s.Active != nil && s.Active.Code == "serve.start" })
		if s.Active.Verdict != slots.Good || s.Active.Reason != "no memory" || d.told("serve.failed") != 1 {
			t.Errorf("%+v, told %d times", s.Active, d.told("serve.failed"))
		}
		d.mu.Lock()
		d.broken = nil
		d.mu.Unlock()
		d.until("recovery", func(s Status) bool { return s.Active != nil && s.Active.Code == "" })
		d.serves("1.0.0")
	})
}

// TestNothingIsLeftOfDownloads sweeps all but what a journey still needs.
func TestNothingIsLeftOfDownloads(t *testing.T) {
	d := newDevice(t)
	d.refuse["1.0.0"] = &Refusal{"prove.golden", "wrong"}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("the refusal", refused("1.0.0"))
	})
	d.open()
	d.run(func() { d.until("rest", refused("1.0.0")) })
	if n := len(d.repo.kept); n > 0 {
		t.Errorf("%d blobs are kept after a refusal", n)
	}
	d.wish("1.1.0", 1)
	d.die(t, "check")
	if err := d.e.sweep(); err != nil {
		t.Fatal(err)
	}
	ts := d.repo.Wish().Targets
	for _, x := range ts {
		if !d.repo.kept[x.Digest] {
			t.Errorf("%s is swept while its journey is under way", x.Path)
		}
	}
	if len(d.repo.kept) <= len(ts) {
		t.Errorf("only %d blobs are kept", len(d.repo.kept))
	}
}
