package crash_test

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
	"github.com/dunlin-edge/dunlin/testbed/crash"
)

// How many points of a run with a stick are killed, and with -short.
const (
	stickPoints      = 50
	stickPointsShort = 12
)

// sample picks points that lie evenly, and all of those that are special.
func sample(points []crash.Point, special func(crash.Point) bool) (jobs [][]int) {
	n := stickPoints
	if testing.Short() {
		n = stickPointsShort
	}
	for i := range min(n, len(points)) {
		jobs = append(jobs, []int{1 + i*len(points)/min(n, len(points))})
	}
	for _, p := range points {
		if special(p) && !slices.ContainsFunc(jobs, func(j []int) bool { return j[0] == p.Number }) {
			jobs = append(jobs, []int{p.Number})
		}
	}
	return jobs
}

// agentCommand is the agent with one command, on a device's disk and its stick.
func (f *fleet) agentCommand(d *device, under []string, args ...string) crash.Command {
	log, err := os.OpenFile(filepath.Join(d.dir, "stick.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		log = os.Stderr
	}
	return crash.Command{Path: filepath.Join(f.bin, "dunlin-agent"), Args: append(args, "--config", d.yaml()), Under: under, Stderr: log}
}

// finish runs a command plainly.
func finish(c crash.Command) error {
	if out, err := command(c).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(c.Path), c.Args[0], err, out)
	}
	return nil
}

// receipts wants each receipt on a stick to be one that the device has signed, and
// over, there to be one with a proof.
func (d *device) receipts(stick string, over bool) error {
	id, err := identity.Load(durable.OS{}, filepath.Join(d.config.State, "identity"))
	if err != nil {
		return err
	}
	key := id.Signer().Public().(*ecdsa.PublicKey)
	files, err := filepath.Glob(filepath.Join(stick, wire.LockboxDir, wire.LockboxReceipts, "[^.]*")) // what is hidden is being written
	if err != nil || over && len(files) != 1 {
		return fmt.Errorf("receipts %v: %w", files, err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, err := wire.OpenReceipt(b, key)
		if err != nil {
			return fmt.Errorf("a receipt of %d bytes: %w", len(b), err)
		}
		if over && (r.Lockbox == "" || r.Report == nil) {
			return fmt.Errorf("receipt for %q, report %v", r.Lockbox, r.Report)
		}
	}
	hidden, err := filepath.Glob(filepath.Join(stick, wire.LockboxDir, wire.LockboxReceipts, ".*"))
	if over && len(hidden) > 0 {
		return fmt.Errorf("left over: %v", hidden)
	}
	return err
}

// again copies a folder over whatever is at to.
func again(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return exec.Command("cp", "-a", from, to).Run()
}

// TestImportKilled takes 1.1.0 from a stick with the real agent and kills it in
// front of changes of the device's files and of the stick's: before each change of
// the receipt, and at places that lie evenly over all others. The device serves one
// release or the other, no receipt is half a one, and the same import once more
// ends as if nothing had been.
func TestImportKilled(t *testing.T) {
	f := newFleet(t)
	master := filepath.Join(f.root, "stick")
	f.dunlin(t, "usb", "export", "--full", "--out", master)
	stick := func(d *device) string { return filepath.Join(d.dir, "stick") }
	fresh := func(d *device) error { return errors.Join(d.restore(), again(master, stick(d))) }
	imports := func(d *device) crash.Command {
		return f.agentCommand(d, []string{d.config.State, stick(d)}, "import", stick(d))
	}
	d := <-f.devices
	if err := fresh(d); err != nil {
		t.Fatal(err)
	}
	before, err := d.look()
	if err != nil {
		t.Fatal(err)
	}
	points, err := crash.Count(t.Context(), imports(d))
	if err != nil {
		said, _ := os.ReadFile(filepath.Join(d.dir, "stick.log"))
		t.Fatalf("%v: %s", err, said)
	}
	after, err := d.look()
	if err != nil {
		t.Fatal(err)
	}
	known := releases{before.Slot(before.Active).Pair, after.Slot(after.Active).Pair}
	if home := f.dunlin(t, "usb", "import", stick(d)); known.one == known.two || !regexp.MustCompile(d.name+` +proven`).MatchString(home) {
		t.Fatalf("%v, then %v: %s", known.one, known.two, home)
	}
	f.devices <- d
	onStick := func(p crash.Point) bool { return strings.Contains(p.Path, "/stick/") }
	f.kills(t, "USB import and receipt writing", points, sample(points, onStick), func(d *device, at int) (string, error) {
		if err := fresh(d); err != nil {
			return "", err
		}
		return f.killed(t.Context(), imports(d), at, func(over bool) error {
			return errors.Join(d.inspect(known, over), d.receipts(stick(d), over))
		})
	})
}

// killed kills a command in front of a point, inspects, lets it go on and inspects
// again. It returns what was to be changed at the point, "" when that was not
// reached.
func (f *fleet) killed(ctx context.Context, c crash.Command, at int, inspect func(over bool) error) (where string, err error) {
	r, err := crash.Run(ctx, c, at)
	if err != nil {
		return "", err
	}
	if r.Killed {
		last := r.Points[len(r.Points)-1]
		where = last.Path
		if err := inspect(false); err != nil {
			return where, fmt.Errorf("after a kill at %v: %w", last, err)
		}
	}
	if err := errors.Join(finish(c), inspect(true)); err != nil {
		return where, fmt.Errorf("again after a kill at %d, %s: %w", at, where, err)
	}
	return where, nil
}

// kills works through the jobs, one device each, and says how it went.
func (f *fleet) kills(t *testing.T, what string, points []crash.Point, jobs [][]int, kill func(d *device, at int) (string, error)) {
	t.Helper()
	began := time.Now()
	results := make(chan string, len(jobs))
	each(t, jobs, func(job []int) error {
		d := <-f.devices
		defer func() { f.devices <- d }()
		where, err := kill(d, job[0])
		switch {
		case err != nil:
			results <- "bad"
		case where == "":
			results <- "not reached"
		case strings.HasPrefix(where, d.config.State):
			results <- "killed at the device's files"
		default:
			results <- "killed at the stick's"
		}
		return err
	})
	close(results)
	count := map[string]int{"bad": 0}
	for r := range results {
		count[r]++
	}
	t.Logf("%s: %d points in a clean run, %d tried: %v, in %v", what, len(points), len(jobs), count, time.Since(began).Round(time.Second))
	if count["not reached"] > len(jobs)/4 {
		t.Errorf("%s: too few points are reached", what)
	}
}

// TestEnrolmentByStickKilled kills the agent while it writes its request to enrol
// onto a stick, and while it takes the answer in: it goes on with the same key, the
// request is whole or not there, and in the end it is enrolled.
func TestEnrolmentByStickKilled(t *testing.T) {
	f := newFleet(t)
	token := regexp.MustCompile(`dunlin1\.[^\s",]+`).FindString(f.dunlin(t, "device", "token", "--max", "1000", "--channel", "dev", "-o", "json"))
	stick := func(d *device) string { return filepath.Join(d.dir, "stick") }
	empty := func(d *device) error {
		return errors.Join(os.RemoveAll(d.config.State), os.RemoveAll(stick(d)), os.Mkdir(stick(d), 0o755))
	}
	ask := func(d *device) crash.Command {
		return f.agentCommand(d, []string{d.config.State, stick(d)}, "enroll", "--token", token, "--stick", stick(d))
	}
	d := <-f.devices
	if err := empty(d); err != nil {
		t.Fatal(err)
	}
	points, err := crash.Count(t.Context(), ask(d))
	if err != nil {
		t.Fatal(err)
	}
	f.dunlin(t, "usb", "import", stick(d))
	f.dunlin(t, "usb", "export", "--out", stick(d))
	asked, answered := d.dir+"/asked", d.dir+"/answered"
	if err := errors.Join(again(d.config.State, asked), again(stick(d), answered)); err != nil {
		t.Fatal(err)
	}
	take := func(d *device) crash.Command {
		return f.agentCommand(d, []string{d.config.State, stick(d)}, "import", stick(d))
	}
	taking, err := crash.Count(t.Context(), take(d))
	if err != nil {
		said, _ := os.ReadFile(filepath.Join(d.dir, "stick.log"))
		t.Fatalf("%v: %s", err, said)
	}
	f.devices <- d
	onStick := func(p crash.Point) bool { return strings.Contains(p.Path, "/stick/") }
	f.kills(t, "request to enrol", points, sample(points, onStick), func(d *device, at int) (string, error) {
		if err := empty(d); err != nil {
			return "", err
		}
		var key []byte
		return f.killed(t.Context(), ask(d), at, func(over bool) error { return d.request(stick(d), over, &key) })
	})
	f.kills(t, "answer to it", taking, sample(taking, onStick), func(d *device, at int) (string, error) {
		if err := errors.Join(again(asked, d.config.State), again(answered, stick(d))); err != nil {
			return "", err
		}
		return f.killed(t.Context(), take(d), at, func(over bool) error {
			if !over {
				return nil
			}
			return d.receipts(stick(d), true)
		})
	})
}

// request wants the request on a stick to be whole, and of the device's one key,
// which is kept in key from one look to the next.
func (d *device) request(stick string, over bool, key *[]byte) error {
	files, err := filepath.Glob(filepath.Join(stick, wire.LockboxDir, wire.LockboxRequests, "[^.]*"))
	if err != nil || over && len(files) != 1 {
		return fmt.Errorf("requests %v: %w", files, err)
	}
	if text, err := os.ReadFile(filepath.Join(d.config.State, "identity", "key.pem")); err == nil {
		if *key != nil && string(*key) != string(text) {
			return errors.New("it has another key now")
		}
		*key = text
	}
	for _, path := range files {
		var r wire.EnrolRequest
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && len(*key) == 0 {
			err = errors.New("its key is nowhere")
		}
		if err != nil {
			return fmt.Errorf("a request of %d bytes: %w", len(b), err)
		}
	}
	return nil
}
