package crash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/testbed/crash"
)

// What is killed: every point and many pairs, or with -short a sample.
const (
	samplePoints = 50
	samplePairs  = 20
	allPairs     = 300
)

// releases are the pairs of the two releases as the device knows them.
type releases struct{ one, two slots.Pair }

// restore sets a device back to before the wish.
func (d *device) restore() error {
	if err := os.RemoveAll(d.config.State); err != nil {
		return err
	}
	return exec.Command("cp", "-a", d.dir+"/before", d.config.State).Run()
}

// trace runs the agent under the tracer, until 1.1.0 is good or it is killed.
func (f *fleet) trace(ctx context.Context, d *device, at int) (crash.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	settled := make(chan error, 1)
	go func() {
		settled <- d.until(ctx, "1.1.0")
		cancel()
	}()
	log, err := os.Create(filepath.Join(d.dir, "traced.log"))
	if err != nil {
		return crash.Result{}, err
	}
	defer log.Close()
	r, err := crash.Run(ctx, crash.Command{
		Path: filepath.Join(f.bin, "dunlin-agent"), Args: []string{"run", "--config", d.yaml()}, Under: []string{d.config.State}, Stderr: log,
	}, at)
	cancel()
	waited := <-settled
	switch {
	case err != nil:
		return r, err
	case r.Killed:
		return r, nil
	case waited != nil:
		return r, fmt.Errorf("traced run, exit status %d: %w", r.Exit, waited)
	case r.Exit != 0:
		return r, fmt.Errorf("traced run: exit status %d, signal %v", r.Exit, r.Signal)
	}
	return r, nil
}

// look reads the slots of a device that is off. It looks at a copy, because
// opening repairs.
func (d *device) look() (slots.State, error) {
	copied := d.dir + "/seen"
	defer os.RemoveAll(copied)
	if out, err := exec.Command("cp", "-al", filepath.Join(d.config.State, "slots"), copied).CombinedOutput(); err != nil {
		return slots.State{}, fmt.Errorf("%w: %s", err, out)
	}
	to, err := os.Readlink(filepath.Join(copied, reader, "current"))
	if err != nil {
		return slots.State{}, err
	}
	store, err := slots.Open(durable.OS{}, copied)
	if err != nil {
		return slots.State{}, err
	}
	m, err := store.Model(reader)
	if err != nil {
		return slots.State{}, err
	}
	s, err := m.Look()
	if err != nil {
		return s, err
	}
	if string(s.Active) != filepath.Base(to) {
		return s, fmt.Errorf("current led to %s, after opening to %q", to, s.Active)
	}
	return s, m.Verify(s.Active)
}

// inspect checks what must hold after any kill, and, when over, at the end.
func (d *device) inspect(known releases, over bool) error {
	hidden, err := filepath.Glob(filepath.Join(d.config.State, "slots", "*", ".*"))
	if err != nil {
		return err
	}
	if len(hidden) > 1 || over && len(hidden) > 0 {
		return fmt.Errorf("left over: %v", hidden)
	}
	s, err := d.look()
	if err != nil {
		return err
	}
	active, before := s.Slot(s.Active), s.Slot(s.Previous)
	switch {
	case over && (active.Pair != known.two || active.Verdict != slots.Good):
		return fmt.Errorf("at the end %v is %s", active.Pair, active.Verdict)
	case active.Pair == known.one && active.Verdict != slots.Good:
		return fmt.Errorf("1.0.0 is %s", active.Verdict)
	case active.Pair == known.two && (before.Content != slots.Complete || before.Pair != known.one || before.Verdict != slots.Good):
		return fmt.Errorf("1.1.0 serves without a way back to 1.0.0: %+v", s)
	case active.Pair != known.one && active.Pair != known.two:
		return fmt.Errorf("active is neither release: %v", active.Pair)
	}
	return nil
}

// tally counts points that were killed by where in the state directory they lie.
type tally struct {
	mu    sync.Mutex
	areas map[string]int
}

func (c *tally) add(d *device, p crash.Point) {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(p.Path, d.config.State), "/"), "/")
	if name == "" {
		name = "the directory itself"
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "."), ".tmp-")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.areas[name]++
}

// kill kills the agent in front of each of the points, one start after the other,
// and lets it go on plainly. It tells whether every kill was reached.
func (f *fleet) kill(ctx context.Context, known releases, count *tally, points ...int) (reached bool, err error) {
	d := <-f.devices
	defer func() { f.devices <- d }()
	if err := d.restore(); err != nil {
		return false, err
	}
	for _, at := range points {
		r, err := f.trace(ctx, d, at)
		if err != nil {
			return false, fmt.Errorf("kill at %v: %w", points, err)
		}
		if !r.Killed {
			return false, d.inspect(known, true)
		}
		last := r.Points[len(r.Points)-1]
		if r.Signal != syscall.SIGKILL || last.Number != at {
			return false, fmt.Errorf("kill at %d: signal %v, point %v", at, r.Signal, last)
		}
		count.add(d, last)
		if err := d.inspect(known, false); err != nil {
			return false, fmt.Errorf("after a kill at %v of %v: %w", last, points, err)
		}
	}
	if err := f.goOn(ctx, d); err != nil {
		return false, fmt.Errorf("after kills at %v: %w", points, err)
	}
	if err := d.inspect(known, true); err != nil {
		return false, fmt.Errorf("at the end, after kills at %v: %w", points, err)
	}
	return true, nil
}

// zero asks about an empty image.
var zero = []byte(`{"inputs": [{"name": "image", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [` + strings.Repeat("0,", 63) + `0]}]}`)

// goOn starts the agent as an operator would, waits until 1.1.0 is good and
// answers, and stops it.
func (f *fleet) goOn(ctx context.Context, d *device) error {
	stop, err := f.start(d)
	if err != nil {
		return err
	}
	err = d.until(ctx, "1.1.0")
	if err == nil {
		var answer []byte
		if answer, err = d.local.Infer(ctx, reader, zero); err == nil && !strings.Contains(string(answer), `"1.1.0"`) {
			err = fmt.Errorf("answered by another release: %s", answer)
		}
	}
	if stopped := stop(); stopped != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopped))
	}
	if err != nil {
		said, unread := os.ReadFile(filepath.Join(d.dir, "agent.log"))
		err = fmt.Errorf("%w\n%s", errors.Join(err, unread), said)
	}
	return err
}

// clean makes an undisturbed run on every device; it returns the longest list of
// points and what both releases are called.
func (f *fleet) clean(t *testing.T) (points []crash.Point, known releases) {
	t.Helper()
	for range lanes {
		d := <-f.devices
		if err := d.restore(); err != nil {
			t.Fatal(err)
		}
		s, err := d.look()
		if err != nil {
			t.Fatal(err)
		}
		known.one = s.Slot(s.Active).Pair
		began := time.Now()
		r, err := f.trace(t.Context(), d, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d points in a clean run of %v", d.name, len(r.Points), time.Since(began).Round(time.Millisecond))
		if s, err = d.look(); err != nil {
			t.Fatal(err)
		}
		known.two = s.Slot(s.Active).Pair
		if known.two == known.one {
			t.Fatal("1.1.0 is not another pair than 1.0.0")
		}
		if err := d.inspect(known, true); err != nil {
			t.Fatal(err)
		}
		if len(r.Points) > len(points) {
			points = r.Points
		}
		f.devices <- d
	}
	return points, known
}

// TestAgentKilled updates a device from 1.0.0 to 1.1.0 with the real agent, real
// workers and a real server, kills it in front of its file changes, and lets it
// recover. Runs differ by some points, as network and clock have it: a number
// late in one run may not be reached in another.
func TestAgentKilled(t *testing.T) {
	f := newFleet(t)
	points, known := f.clean(t)
	stride, pairs := 1, allPairs
	if testing.Short() {
		stride, pairs = max(1, len(points)/samplePoints), samplePairs
	}
	t.Run("once", func(t *testing.T) {
		var jobs [][]int
		for n := 1; n <= len(points); n += stride {
			jobs = append(jobs, []int{n})
		}
		f.killAll(t, known, jobs, len(jobs))
	})
	t.Run("again in recovery", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		var jobs [][]int
		for i := range 2 * pairs {
			// What is left to do after the first kill, and what opening costs.
			first := 1 + i*len(points)/(2*pairs)
			jobs = append(jobs, []int{first, 1 + random.IntN(len(points)-first+20)})
		}
		random.Shuffle(len(jobs), func(a, b int) { jobs[a], jobs[b] = jobs[b], jobs[a] })
		if killed := f.killAll(t, known, jobs, pairs); killed < pairs {
			t.Errorf("only %d pairs of %d were reached", killed, pairs)
		}
	})
}

// killAll works through the jobs until enough have reached their kills, and tells
// how many did.
func (f *fleet) killAll(t *testing.T, known releases, jobs [][]int, enough int) int {
	t.Helper()
	var killed, missed, bad atomic.Int64
	count := &tally{areas: map[string]int{}}
	began := time.Now()
	each(t, jobs, func(job []int) error {
		if killed.Load() >= int64(enough) {
			return nil
		}
		reached, err := f.kill(t.Context(), known, count, job...)
		switch {
		case err != nil:
			bad.Add(1)
		case reached:
			killed.Add(1)
		default:
			missed.Add(1)
		}
		return err
	})
	t.Logf("%d killed and recovered, %d not reached, %d bad, in %v; kills by place: %v", killed.Load(), missed.Load(), bad.Load(), time.Since(began).Round(time.Second), count.areas)
	return int(killed.Load())
}
