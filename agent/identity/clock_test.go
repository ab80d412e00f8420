package identity

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

var quiet = log.New(io.Discard, "", 0)

// hand is a clock that a test turns.
type hand struct {
	sys    time.Time
	synced bool
	boot   time.Duration
}

func openClock(t *testing.T, dir string, h *hand) *Clock {
	t.Helper()
	c := OpenClock(durable.OS{}, dir, built)
	c.sys = func() (time.Time, bool) { return h.sys, h.synced }
	c.boot = func() time.Duration { return h.boot }
	c.since, c.opened = h.boot, h.boot
	return c
}

// signedAt is evidence of a key that nobody has replaced.
func signedAt(t time.Time) Evidence {
	return Evidence{Issued: t, Horizon: built.AddDate(50, 0, 0), Key: "one"}
}

var built = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func TestClock(t *testing.T) {
	dir, h := t.TempDir(), &hand{sys: built.Add(-10 * 365 * 24 * time.Hour), boot: time.Hour}
	c := openClock(t, dir, h)
	now := func(want time.Time, source string) {
		t.Helper()
		if got, s := c.Now(); !got.Equal(want) || s != source || c.Trusted() != (source == Synchronised) {
			t.Fatalf("%v from %s, want %v from %s", got, s, want, source)
		}
	}
	now(built, Floor) // a wild clock is not looked at
	h.boot += 5 * time.Minute
	now(built.Add(5*time.Minute), Floor)
	h.sys = built.Add(100 * 365 * 24 * time.Hour)
	now(built.Add(5*time.Minute), Floor)

	signed := built.Add(24 * time.Hour)
	raise := func(at time.Time) {
		t.Helper()
		if err := c.Raise(signedAt(at)); err != nil {
			t.Fatal(err)
		}
	}
	raise(signed)
	now(signed, Floor)
	raise(built) // older evidence changes nothing
	h.boot += time.Minute
	now(signed.Add(time.Minute), Floor)

	h.synced, h.sys = true, signed.Add(time.Hour)
	now(signed.Add(time.Hour), Synchronised)
	h.sys = built // synchronised to something that lies
	now(signed.Add(time.Minute), Synchronised)

	// The floor survives a restart, and a restart alone does not make it later.
	h.boot, h.synced = 0, false
	c = openClock(t, dir, h)
	now(signed, Floor)
	raise(signed.Add(saveStep - time.Second)) // too little to wear the flash for
	now(signed.Add(saveStep-time.Second), Floor)
	c = openClock(t, dir, h)
	now(signed, Floor)
	raise(signed.Add(saveStep))
	c = openClock(t, dir, h)
	now(signed.Add(saveStep), Floor)
}

// TestStolenTimeKey lets a stolen key push the floor far ahead: not beyond the
// horizon, and only until a root replaces the key.
func TestStolenTimeKey(t *testing.T) {
	dir, h := t.TempDir(), &hand{}
	c := openClock(t, dir, h)
	now := func(want time.Time) {
		t.Helper()
		if got, _ := c.Now(); !got.Equal(want) {
			t.Fatalf("now is %v, want %v", got, want)
		}
	}
	horizon := built.AddDate(1, 0, 0)
	if err := c.Raise(Evidence{Issued: built.AddDate(80, 0, 0), Horizon: horizon, Key: "stolen"}); err != nil {
		t.Fatal(err)
	}
	now(horizon)
	h.boot += time.Hour
	if got := c.Under("stolen"); !got.Equal(horizon.Add(time.Hour)) {
		t.Errorf("under the same key: %v", got)
	}
	if got := c.Under("two"); !got.Equal(built.Add(time.Hour)) {
		t.Errorf("under another key: %v", got)
	}
	now(horizon.Add(time.Hour)) // asking changes nothing
	c = openClock(t, dir, h)    // after a restart it is still the stolen key's
	now(horizon)
	if got := c.Under("two"); !got.Equal(built) {
		t.Errorf("under another key after a restart: %v", got)
	}
	signed := built.AddDate(0, 2, 0)
	if err := c.Raise(Evidence{Issued: signed, Horizon: horizon.AddDate(1, 0, 0), Key: "two"}); err != nil {
		t.Fatal(err)
	}
	now(signed)
	c = openClock(t, dir, h)
	now(signed)
	h.sys, h.synced = signed.AddDate(0, 0, 9), true
	if got := c.Under("two"); !got.Equal(h.sys) {
		t.Errorf("a synchronised clock: %v", got)
	}
}

// A damaged floor is as good as none; it never keeps the device from starting.
func TestDamagedFloor(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "letters": "soon", "negative": "-5", "too long": "99999999999999999999999", "early": "1", "early, with a key": "1 one", "a key alone": " one",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileFloor), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := openClock(t, dir, &hand{})
		if got, _ := c.Now(); !got.Equal(built) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The kernel is asked for real: whatever it says, time goes on.
func TestSystemClocks(t *testing.T) {
	before := bootClock()
	if now, _ := systemClock(); time.Since(now).Abs() > time.Minute {
		t.Error(now)
	}
	if after := bootClock(); before <= 0 || after < before {
		t.Errorf("%v, then %v", before, after)
	}
}
