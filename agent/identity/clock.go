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
// signed evidence only and survives restarts.
type Clock struct {
	fsys durable.FS
	path string
	sys  func() (now time.Time, synchronised bool)
	boot func() time.Duration // since boot, sleep included

	mu    sync.Mutex
	floor time.Time
	since time.Duration // boot time at which the floor held
	saved time.Time
}

const fileFloor = "time-floor"

// saveStep is how far the floor rises before it is written again: flash wears.
const saveStep = 10 * time.Minute

// OpenClock reads the floor in dir, which nobody else may write to meanwhile;
// built is the least it can be.
func OpenClock(fsys durable.FS, dir string, built time.Time) *Clock {
	c := &Clock{fsys: fsys, path: filepath.Join(dir, fileFloor), sys: systemClock, boot: bootClock, floor: built}
	durable.Sweep(fsys, "identity.sweep", dir) // best effort: a full disk must not stop the clock
	if b, err := durable.ReadFile(fsys, c.path, 64); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && time.Unix(n, 0).After(c.floor) {
			c.floor = time.Unix(n, 0).UTC()
		}
	}
	c.saved, c.since = c.floor, c.boot()
	return c
}

// Now is the trusted time and where it comes from.
func (c *Clock) Now() (time.Time, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	elapsed := c.floor.Add(c.boot() - c.since)
	now, ok := c.sys()
	if !ok {
		return elapsed, Floor
	}
	if now.Before(elapsed) {
		return elapsed, Synchronised
	}
	return now.UTC(), Synchronised
}

// Trusted tells whether dates may be judged by Now.
func (c *Clock) Trusted() bool { _, source := c.Now(); return source == Synchronised }

// Raise takes in a signed time; an earlier one than is known changes nothing.
func (c *Clock) Raise(signed time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !signed.After(c.floor.Add(c.boot() - c.since)) {
		return nil
	}
	c.floor, c.since = signed.UTC(), c.boot()
	if c.floor.Sub(c.saved) < saveStep {
		return nil
	}
	if err := durable.WriteFile(c.fsys, "identity.floor", c.path, []byte(strconv.FormatInt(c.floor.Unix(), 10)+"\n"), 0o600); err != nil {
		return fmt.Errorf("store the time floor: %w", err) // tried again with the next evidence
	}
	c.saved = c.floor
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
