package crash_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/testbed/crash"
)

// build compiles the installer statically, like the agent.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "installer")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/installer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build installer: %v\n%s", err, out)
	}
	return bin
}

// rig is an installer and a device on which release one serves.
type rig struct {
	bin    string
	before string
	root   string
	next   atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{bin: build(t), root: root, before: filepath.Join(root, "before")}
	if err := os.MkdirAll(filepath.Join(r.before, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"one", "two"} {
		for _, name := range []string{"model.tflite", "labels.txt"} {
			content := strings.Repeat(name+" of "+release+"\n", 500)
			if err := os.WriteFile(filepath.Join(r.before, "blobs", release+"."+name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := exec.Command(r.bin, r.before, "one").CombinedOutput(); err != nil {
		t.Fatalf("install one: %v\n%s", err, out)
	}
	return r
}

// device returns a fresh copy of the device, to be removed by the caller.
func (r *rig) device() (string, error) {
	dir := filepath.Join(r.root, fmt.Sprint("device-", r.next.Add(1)))
	// cp keeps links and the two names of one file apart from copies.
	return dir, exec.Command("cp", "-a", r.before, dir).Run()
}

func (r *rig) command(dir string) crash.Command {
	return crash.Command{Path: r.bin, Args: []string{dir, "two"}, Under: []string{dir}, Stderr: os.Stderr}
}

// inspect checks what must hold after any kill, and, when over, after the end.
func inspect(dir string, over bool) error {
	store, err := slots.Open(durable.OS{}, filepath.Join(dir, "slots"))
	if err != nil {
		return err
	}
	m, err := store.Model("meter")
	if err != nil {
		return err
	}
	s, err := m.Look()
	if err != nil {
		return err
	}
	if err := m.Verify(s.Active); err != nil {
		return fmt.Errorf("active slot: %w", err)
	}
	active := s.Slot(s.Active)
	two := active.Bundle == bundleOf("two")
	switch {
	case !two && active.Bundle != bundleOf("one"):
		return fmt.Errorf("active is %s", active.Bundle)
	case two && (s.Previous == slots.None || s.Slot(s.Previous).Bundle != bundleOf("one") || s.Slot(s.Previous).Verdict != slots.Good):
		return fmt.Errorf("two serves without a way back to one: %+v", s)
	case over && (!two || active.Verdict != slots.Good):
		return fmt.Errorf("at the end %s is %s", active.Bundle, active.Verdict)
	}
	if err := inspectQueue(dir, over); err != nil {
		return err
	}
	return inspectState(dir, over)
}

func inspectQueue(dir string, over bool) error {
	q, err := queue.OpenSet(durable.OS{}, filepath.Join(dir, "queue"), 64<<10)
	if err != nil {
		return err
	}
	defer q.Close()
	records, err := q.Event.Next(100, 1<<20)
	if err != nil {
		return err
	}
	events := map[string]int{}
	for _, r := range records {
		events[string(r.Payload)]++
	}
	if events["installed one"] != 1 || over && events["installed two"] == 0 || q.Event.State().Dropped != 0 {
		return fmt.Errorf("events %v, %d dropped", events, q.Event.State().Dropped)
	}
	return nil
}

func inspectState(dir string, over bool) error {
	db, health, err := state.Open(dir, state.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	if !health.Whole() || health.Origin != state.Kept {
		return fmt.Errorf("state: %+v", health)
	}
	journals, err := state.NewBucket[map[string]string](db, "journal")
	if err != nil {
		return err
	}
	if j, under, err := journals.Get("meter"); err != nil || over && under {
		return fmt.Errorf("journal at the end: %v, %v", j, err)
	}
	return nil
}

func bundleOf(release string) string {
	sum := sha256.Sum256([]byte(release))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// killAt kills the installer in front of each of the points, one run after the
// other, and then lets it finish. It tells whether every kill was reached.
func (r *rig) killAt(ctx context.Context, points ...int) (reached bool, err error) {
	dir, err := r.device()
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	for _, at := range points {
		result, err := crash.Run(ctx, r.command(dir), at)
		if err != nil {
			return false, err
		}
		if !result.Killed {
			return false, nil
		}
		last := result.Points[len(result.Points)-1]
		if result.Signal != syscall.SIGKILL || last.Number != at {
			return false, fmt.Errorf("kill at %d: %+v", at, result)
		}
		// On a copy: looking opens, and opening repairs.
		copied := dir + ".seen"
		if err := exec.Command("cp", "-a", dir, copied).Run(); err != nil {
			return false, err
		}
		err = inspect(copied, false)
		os.RemoveAll(copied)
		if err != nil {
			return false, fmt.Errorf("after a kill at %v: %w", last, err)
		}
	}
	if out, err := exec.CommandContext(ctx, r.bin, dir, "two").CombinedOutput(); err != nil {
		return false, fmt.Errorf("after kills at %v: %w: %s", points, err, out)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "slots", "*", ".*")); err != nil || len(left) > 0 {
		return false, fmt.Errorf("after kills at %v: left over %v, %v", points, left, err)
	}
	return true, inspect(dir, true)
}

// count returns the points of a clean run.
func (r *rig) count(t *testing.T) []crash.Point {
	t.Helper()
	dir, err := r.device()
	if err != nil {
		t.Fatal(err)
	}
	points, err := crash.Count(t.Context(), r.command(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := inspect(dir, true); err != nil {
		t.Fatal(err)
	}
	return points
}

// each runs f for every job, two at a time, and reports every error.
func each(t *testing.T, jobs [][]int, f func(job []int) error) {
	t.Helper()
	var wg sync.WaitGroup
	work := make(chan []int)
	for range 2 {
		wg.Go(func() {
			for job := range work {
				if err := f(job); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, job := range jobs {
		work <- job
	}
	close(work)
	wg.Wait()
}

func TestKilledAtEveryPoint(t *testing.T) {
	r := newRig(t)
	points := r.count(t)
	if again := r.count(t); len(again) != len(points) {
		t.Fatalf("one clean run has %d points, another %d", len(points), len(again))
	}
	var jobs [][]int
	for _, p := range points {
		jobs = append(jobs, []int{p.Number})
	}
	began := time.Now()
	each(t, jobs, func(job []int) error {
		reached, err := r.killAt(t.Context(), job...)
		if err == nil && !reached {
			err = fmt.Errorf("point %d was not reached", job[0])
		}
		return err
	})
	kinds := map[string]int{}
	for _, p := range points {
		kinds[p.Syscall]++
	}
	t.Logf("%d points %v, each killed and recovered in %v", len(points), kinds, time.Since(began).Round(time.Millisecond))
}

func TestKilledAgainInRecovery(t *testing.T) {
	pairs := 300
	if testing.Short() {
		pairs = 20
	}
	r := newRig(t)
	n := len(r.count(t))
	// Every first point in turn, with another second point each round.
	var jobs [][]int
	for i := range 2 * pairs {
		jobs = append(jobs, []int{1 + i%n, 1 + (i/n*17+i%n*7)%n})
	}
	var killed atomic.Int64
	each(t, jobs, func(job []int) error {
		if killed.Load() >= int64(pairs) {
			return nil
		}
		reached, err := r.killAt(t.Context(), job...)
		if reached {
			killed.Add(1)
		}
		return err
	})
	if killed.Load() < int64(pairs) {
		t.Errorf("only %d pairs of %d were reached", killed.Load(), pairs)
	}
	t.Logf("%d pairs of kills among %d points", killed.Load(), n)
}

func TestRunStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r, err := crash.Run(ctx, crash.Command{Path: "/bin/sleep", Args: []string{"60"}}, 0)
	if err != nil || r.Killed || r.Signal != syscall.SIGTERM {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := crash.Run(t.Context(), crash.Command{Path: "/none"}, 0); err == nil {
		t.Error("a program that does not exist was run")
	}
}
