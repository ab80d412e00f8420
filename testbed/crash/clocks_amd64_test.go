package crash_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/testbed/clock"
)

const (
	day    = 24 * time.Hour
	decade = 3652 * day
)

// beginning is how far a clock is off that begins on a first of January.
func beginning(year int) time.Duration {
	return time.Until(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)).Round(time.Second)
}

// awake is a device that runs, by a clock of its own.
type awake struct {
	*device
	f       *fleet
	clock   *clock.Clock
	network bool
	stop    func() error

	cancel      context.CancelFunc
	done        sync.WaitGroup
	asked, lost int
	why         error
}

// wake starts an agent. Without network it runs where there is none at all.
func (f *fleet) wake(t *testing.T, d *device, off time.Duration, synchronised, network bool) *awake {
	t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(f.bin, "dunlin-agent"), "run", "--config", d.yaml())
	cmd.Stderr = log
	if !network {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	a := &awake{device: d, f: f, network: network}
	if a.clock, err = clock.Start(cmd, off, synchronised); err != nil {
		t.Fatal(err)
	}
	a.stop = sync.OnceValue(func() error {
		defer log.Close()
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	})
	t.Cleanup(func() { a.stop() })
	return a
}

// said tells whether the agent has logged this.
func (a *awake) said(what string) error {
	b, err := os.ReadFile(filepath.Join(a.dir, "agent.log"))
	if err == nil && !strings.Contains(string(b), what) {
		err = fmt.Errorf("%s does not say %q", a.name, what)
	}
	return err
}

// answers waits until the device serves, whatever release: in a network the update
// may be there at once.
func (a *awake) answers(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) error {
		_, err := a.local.Infer(ctx, reader, zero)
		return err
	})
}

// serve asks the device all the time from now until rest.
func (a *awake) serve(ctx context.Context) {
	ctx, a.cancel = context.WithCancel(ctx)
	a.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := a.local.Infer(ctx, reader, zero)
			if ctx.Err() != nil {
				return
			}
			a.asked++
			if err != nil {
				a.lost, a.why = a.lost+1, err
			}
		}
	})
}

// rest ends asking and the agent; every question must have been answered.
func (a *awake) rest() error {
	a.cancel()
	a.done.Wait()
	err := a.stop()
	if a.lost > 0 || a.asked < 10 {
		err = errors.Join(err, fmt.Errorf("%d of %d questions were not answered, the last one: %w", a.lost, a.asked, a.why))
	}
	return err
}

// tells compares what the device says about the time with what it is.
func (a *awake) tells(ctx context.Context, source string) error {
	s, err := a.local.Status(ctx)
	if err != nil {
		return err
	}
	if off := s.Now.Sub(time.Now().Add(a.f.ahead)); off.Abs() > 2*time.Minute || s.Clock != source {
		return fmt.Errorf("it is %v off, by %s; by %s wanted", off, s.Clock, source)
	}
	return nil
}

// own is the device's copy of a stick: a real one is in one device at a time.
func (a *awake) own(stick string) string { return filepath.Join(a.dir, filepath.Base(stick)) }

// carry takes a stick to a device.
func (a *awake) carry(ctx context.Context, stick string) error {
	if out, err := exec.Command("cp", "-a", "--no-target-directory", stick, a.own(stick)).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	in, err := a.local.Import(ctx, a.own(stick), settleLimit)
	if err == nil && in.Receipt != "" {
		err = fmt.Errorf("no receipt: %s", in.Receipt)
	}
	return err
}

// updated brings 1.1.0 to the device the way that it has.
func (a *awake) updated(ctx context.Context, stick string) error {
	if !a.network {
		if err := a.carry(ctx, stick); err != nil {
			return err
		}
	}
	return a.until(ctx, "1.1.0")
}

// proven waits until the server has the proof of every device.
func (f *fleet) proven(t *testing.T, stick string, all []*awake) {
	t.Helper()
	for _, a := range all {
		if !a.network {
			f.dunlin(t, "usb", "import", a.own(stick))
		}
		err := poll(t.Context(), func(context.Context) error {
			if shown := f.dunlin(t, "device", "show", a.name, "-o", "json"); !strings.Contains(shown, `"proof": "proven"`) {
				return errors.New(shown)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s is not proven: %v", a.name, err)
		}
	}
}

// wish has every device wish 1.1.0 and writes a stick.
func (f *fleet) wish(t *testing.T, all ...*device) (stick string) {
	t.Helper()
	f.dunlin(t, "rollout", "create", reader+"@1.1.0", "--channel", "dev", "--stages", "100%", "--control", "0", "--bake", "1s")
	for _, d := range all {
		err := poll(t.Context(), func(context.Context) error {
			if shown := f.dunlin(t, "device", "show", d.name, "-o", "json"); !strings.Contains(shown, `"generation": 2`) {
				return errors.New(shown)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f.stick(t)
}

func (f *fleet) stick(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stick")
	f.dunlin(t, "usb", "export", "--full", "--out", dir)
	return dir
}

// clocks are what the wall clocks of devices do.
var clocks = []struct {
	name         string
	synchronised bool
	starts       time.Duration
	turns        []time.Duration // before the update comes
	refuses      bool            // the update, until the clock is right again
	source       string
}{
	{name: "1970", starts: beginning(1970), source: identity.Floor},
	{name: "2090", starts: beginning(2090), source: identity.Floor},
	{name: "jumps ahead", turns: []time.Duration{decade}, source: identity.Floor},
	{name: "jumps back", turns: []time.Duration{-decade}, source: identity.Floor},
	{name: "jumps there and back", turns: []time.Duration{decade, -decade, 0}, source: identity.Floor},
	{name: "is not synchronised", source: identity.Floor},
	{name: "is right", synchronised: true, source: identity.Synchronised},
	{name: "drifts", synchronised: true, starts: -7 * time.Minute, turns: []time.Duration{-3 * time.Minute, time.Minute, -time.Minute}, source: identity.Synchronised},
	{name: "jumps back and is called synchronised", synchronised: true, turns: []time.Duration{-decade}, source: identity.Synchronised},
	{name: "jumps ahead and is called synchronised", synchronised: true, turns: []time.Duration{decade}, refuses: true, source: identity.Synchronised},
}

// TestClocksOfDevices updates real agents whose clocks are wrong in every way, by
// network and by stick: each answers all the time, and runs 1.1.0 in the end
// without anybody touching it.
func TestClocksOfDevices(t *testing.T) {
	f, devices := atRest(t, 2*len(clocks), "")
	var all []*awake
	for i, d := range devices {
		c := clocks[i/2]
		a := f.wake(t, d, c.starts, c.synchronised, i%2 == 0)
		all = append(all, a)
	}
	for _, a := range all {
		if err := a.until(t.Context(), "1.0.0"); err != nil {
			t.Fatal(err)
		}
		a.serve(t.Context())
	}
	for i, a := range all {
		for _, off := range clocks[i/2].turns {
			if err := a.clock.Turn(off); err != nil {
				t.Fatal(err)
			}
		}
	}
	stick := f.wish(t, devices...)
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() {
			c := clocks[i/2]
			if err := a.through(t.Context(), c.refuses, stick, c.source); err != nil {
				t.Errorf("a clock that %s, network %v: %v", c.name, a.network, err)
			}
		})
	}
	wg.Wait()
	f.proven(t, stick, all)
	asked := 0
	for i, a := range all {
		if err := a.rest(); err != nil {
			t.Errorf("a clock that %s, network %v: %v", clocks[i/2].name, a.network, err)
		}
		asked += a.asked
	}
	t.Logf("%d clocks, each by network and by stick: %d questions, all answered", len(clocks), asked)
}

// through brings a device to 1.1.0. Where its clock says that everything has
// expired and the kernel vouches for it, it refuses until the clock is right.
func (a *awake) through(ctx context.Context, refuses bool, stick, source string) error {
	if refuses {
		var err error
		if a.network {
			err = poll(ctx, func(context.Context) error { return a.said("expired") })
		} else if said := a.carry(ctx, stick); said == nil || !strings.Contains(said.Error(), "usb.expired") {
			err = fmt.Errorf("the stick is taken in: %w", said)
		}
		if err != nil {
			return fmt.Errorf("while the clock is wrong: %w", err)
		}
		if err := a.until(ctx, "1.0.0"); err != nil {
			return err
		}
		if err := a.clock.Turn(0); err != nil {
			return err
		}
	}
	return errors.Join(a.updated(ctx, stick), a.tells(ctx, source))
}

// travel has the fleet's side go on at so many days from now.
func (f *fleet) travel(t *testing.T, days int) {
	t.Helper()
	f.halt(t)
	f.ahead = time.Duration(days) * day
	f.launch(t, filepath.Join(f.root, "fleet"))
}

// sleepers are devices in a drawer; even ones wake in a network.
var sleepers = []struct {
	name         string
	off          func(ahead time.Duration) time.Duration
	synchronised bool
	source       string
}{
	{"begins in 1970", func(time.Duration) time.Duration { return beginning(1970) }, false, identity.Floor},
	{"begins in 2090", func(time.Duration) time.Duration { return beginning(2090) }, false, identity.Floor},
	{"stood still", func(time.Duration) time.Duration { return 0 }, false, identity.Floor},
	{"is right", func(ahead time.Duration) time.Duration { return ahead }, true, identity.Synchronised},
}

// TestDrawer leaves devices in a drawer: for 20 days, after which the catalog's
// timestamp, the director's metadata and their certificates have expired; and for
// 400 days, after which channels and targets were signed anew twice, the roots have
// expired and have successors, and certificates are so old that an operator has to
// accept them. All come back by network and by stick.
func TestDrawer(t *testing.T) {
	n := 2 * len(sleepers)
	f, devices := atRest(t, 2*n, "10m")
	keys := filepath.Join(f.root, "ceremony")
	f.travel(t, 20)
	stick := f.wish(t, devices...)
	t.Run("20 days", func(t *testing.T) { f.wakeAll(t, devices[:n], stick) })
	for _, days := range []int{130, 307} {
		f.travel(t, days)
		f.dunlin(t, "keys", "renew", "--due", "--dir", keys)
		f.dunlin(t, "keys", "sign", "--dir", keys, "--holder", "eve")
		f.dunlin(t, "keys", "install", "--dir", keys)
	}
	f.travel(t, 400)
	t.Run("400 days", func(t *testing.T) { f.wakeAll(t, devices[n:], f.stick(t)) })
}

// wakeAll takes devices out of the drawer.
func (f *fleet) wakeAll(t *testing.T, devices []*device, stick string) {
	var all []*awake
	for i, d := range devices {
		s := sleepers[i/2]
		all = append(all, f.wake(t, d, s.off(f.ahead), s.synchronised, i%2 == 0))
	}
	var wg sync.WaitGroup
	for i, a := range all {
		if err := a.answers(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.serve(t.Context())
		wg.Go(func() {
			s := sleepers[i/2]
			err := errors.Join(a.updated(t.Context(), stick), a.tells(t.Context(), s.source))
			if err != nil {
				t.Errorf("a clock that %s, network %v: %v", s.name, a.network, err)
			}
		})
	}
	if f.ahead > 30*day {
		f.accept(t, all)
	}
	wg.Wait()
	f.proven(t, stick, all)
	asked := 0
	for i, a := range all {
		for _, repo := range []string{"catalog", "director"} {
			roots, err := filepath.Glob(filepath.Join(a.config.State, "trust", repo, "*root.json"))
			if err != nil || (len(roots) > 1) != (f.ahead > 365*day) {
				t.Errorf("%s has the %s's roots %v, %v", a.name, repo, roots, err)
			}
		}
		if a.network {
			s, err := a.local.Status(t.Context())
			if err != nil || s.Certificate.Expires.Before(time.Now().Add(f.ahead)) {
				t.Errorf("the certificate of %s: %+v, %v", a.name, s, err)
			}
		}
		if err := a.rest(); err != nil {
			t.Errorf("a clock that %s, network %v: %v", sleepers[i/2].name, a.network, err)
		}
		asked += a.asked
	}
	t.Logf("%d devices: %d questions, all answered", len(all), asked)
}

// accept lets in again whose certificate expired long ago: the one act that is
// wanted, and nobody touches the device.
func (f *fleet) accept(t *testing.T, all []*awake) {
	t.Helper()
	for _, a := range all {
		if !a.network {
			continue
		}
		err := poll(t.Context(), func(context.Context) error { return a.said("renew.pending") })
		if err != nil {
			t.Fatal(err)
		}
		f.dunlin(t, "device", "accept", a.name)
	}
}
