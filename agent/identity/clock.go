package identity

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Sources of trusted time.
const (
	Synchronised = "synchronised" // the kernel's clock, which says that it is
	Floor        = "floor"        // signed time plus what has elapsed since
)

// Clock tells the time that the device may believe: the kernel's clock when the
// kernel says that it is synchronised, but never before the floor; else the floor
// plus the time since it was raised, whatever the clock says. The floor rises with
// signed evidence only and survives restarts; evidence of a key that was replaced
// counts no more.
type Clock struct {
	fsys durable.FS
	path string
	sys  func() (now time.Time, synchronised bool)
	boot func() time.Duration // since boot, sleep included

	built  time.Time     // the least that time can be
	opened time.Duration // boot time at which it was that at least

	mu       sync.Mutex
	floor    time.Time
	key      string        // that has signed the floor; empty: not known
	since    time.Duration // boot time at which the floor held
	saved    time.Time
	savedKey string
}

// Evidence is a signed statement about the time.
type Evidence struct {
	Issued  time.Time // when it was signed
	Horizon time.Time // it cannot be later than this, whoever says so
	Key     string    // that signed it
}

const (
	fileFloor = "time-floor" // seconds, and the key that signed them
	maxFloor  = 4 << 10
)

// saveStep is how far the floor rises before it is written again: flash wears.
const saveStep = 10 * time.Minute

// OpenClock reads the floor in dir, which nobody else may write to meanwhile;
// built is the least it can be.
func OpenClock(fsys durable.FS, dir string, built time.Time) *Clock {
	c := &Clock{fsys: fsys, path: filepath.Join(dir, fileFloor), sys: systemClock, boot: bootClock, floor: built}
	durable.Sweep(fsys, "identity.sweep", dir) // best effort: a full disk must not stop the clock
	c.built, c.opened = built, c.boot()
	if b, err := durable.ReadFile(fsys, c.path, maxFloor); err == nil {
		seconds, key, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		if n, err := strconv.ParseInt(seconds, 10, 64); err == nil && time.Unix(n, 0).After(c.floor) {
			c.floor, c.key = time.Unix(n, 0).UTC(), key
		}
	}
	c.saved, c.savedKey, c.since = c.floor, c.key, c.opened
	return c
}

// Now is the trusted time and where it comes from.
func (c *Clock) Now() (time.Time, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.atLeast(c.floor.Add(c.boot() - c.since))
}

// Under is the trusted time when key is the one that signs it: a floor that
// another key has signed is left out.
func (c *Clock) Under(key string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	floor, since := c.under(key)
	now, _ := c.atLeast(floor.Add(c.boot() - since))
	return now
}

// under is the floor that counts when key signs the time.
func (c *Clock) under(key string) (floor time.Time, since time.Duration) {
	if c.key != "" && key != c.key {
		return c.built, c.opened
	}
	return c.floor, c.since
}

func (c *Clock) atLeast(elapsed time.Time) (time.Time, string) {
	now, ok := c.sys()
	switch {
	case !ok:
		return elapsed, Floor
	case now.Before(elapsed):
		return elapsed, Synchronised
	}
	return now.UTC(), Synchronised
}

// Trusted tells whether dates may be judged by Now.
func (c *Clock) Trusted() bool { _, source := c.Now(); return source == Synchronised }

// Raise takes in a signed time; an earlier one than the same key has signed
// changes nothing.
func (c *Clock) Raise(e Evidence) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	signed := e.Issued.UTC()
	if e.Horizon.Before(signed) {
		signed = e.Horizon.UTC()
	}
	c.floor, c.since = c.under(e.Key)
	c.key = e.Key
	if signed.After(c.floor.Add(c.boot() - c.since)) {
		c.floor, c.since = signed, c.boot()
	}
	if c.key == c.savedKey && c.floor.Sub(c.saved) < saveStep {
		return nil
	}
	text := strconv.FormatInt(c.floor.Unix(), 10) + " " + c.key + "\n"
	if err := durable.WriteFile(c.fsys, "identity.floor", c.path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("store the time floor: %w", err) // tried again with the next evidence
	}
	c.saved, c.savedKey = c.floor, c.key
	return nil
}

func systemClock() (time.Time, bool) {
	var t unix.Timex
	st, err := unix.Adjtimex(&t)
	return time.Now(), err == nil && st != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
