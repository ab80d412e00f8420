package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/testbed/clock"
)

// programs of the fleet, built once per test.
var programs = []string{"./fleet/cmd/dunlin", "./fleet/cmd/dunlin-fleet", "./agent/cmd/dunlin-agent", "./agent/cmd/dunlin-infer"}

const (
	repository = "../.."
	reader     = "meter-digits" // the model
	lanes      = 2              // devices, each killed on its own
)

// fleet is a real server with practice keys, which wishes 1.1.0 of every device,
// and devices with a copy of their state from before, when 1.0.0 was good. The
// server lives on while devices are set back and killed.
type fleet struct {
	bin, root string
	env       []string // of dunlin
	server    *exec.Cmd
	// ahead is how far the clocks of the server and of dunlin are from now.
	ahead   time.Duration
	at      struct{ API, MQTT string }
	devices chan *device
}

// device is one device's folder.
type device struct {
	name, dir string
	config    agent.Config
	local     *agent.Local
}

func (d *device) yaml() string { return filepath.Join(d.dir, "agent.yaml") }

// newFleet brings everything to the moment before the update.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	f, all := atRest(t, lanes, "")
	for _, d := range all {
		if out, err := exec.Command("cp", "-a", d.config.State, d.dir+"/before").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	f.rollout(t, all, "1.1.0")
	for _, d := range all {
		f.devices <- d
	}
	return f
}

// atRest makes a fleet whose devices have 1.0.0 for good and are off. Their
// certificates live as long as life says, "" being the usual time.
func atRest(t *testing.T, devices int, life string) (*fleet, []*device) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{bin: filepath.Join(root, "bin"), root: root, devices: make(chan *device, lanes)}
	for _, p := range programs {
		cmd := exec.Command("go", "build", "-o", filepath.Join(f.bin, filepath.Base(p)), p)
		cmd.Dir, cmd.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p, err, out)
		}
	}
	f.serve(t, life)
	f.publish(t)
	all := f.enrol(t, devices)
	f.rollout(t, all, "1.0.0")
	return f, all
}

// rollout brings a release to all devices and stops them.
func (f *fleet) rollout(t *testing.T, all []*device, version string) {
	t.Helper()
	var stops []func() error
	for _, d := range all {
		stop, err := f.start(d)
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	f.dunlin(t, "rollout", "create", reader+"@"+version, "--channel", "dev", "--stages", "100%", "--control", "0", "--bake", "1s", "--wait")
	for i, d := range all {
		if err := errors.Join(d.until(t.Context(), version), stops[i]()); err != nil {
			t.Fatal(err)
		}
	}
}

// serve makes a server and starts it; it ends with the test.
func (f *fleet) serve(t *testing.T, life string) {
	t.Helper()
	dir := filepath.Join(f.root, "fleet")
	out := f.dunlinFleet(t, "init", "--name", "localhost", "--dir", dir)
	token := regexp.MustCompile(`dunlin_[^\s",]+`).FindString(out)
	if life != "" {
		if out, err := exec.Command("sed", "-i", "s/^device_life: .*/device_life: "+life+"/", filepath.Join(dir, "fleet.yaml")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	f.at.API, f.at.MQTT = "127.0.0.1:0", "127.0.0.1:0"
	f.launch(t, dir)
	t.Cleanup(func() {
		f.halt(t)
		if said, err := os.ReadFile(filepath.Join(f.root, "fleet.log")); t.Failed() {
			t.Logf("the server's last words (%v): %s", err, said[max(0, len(said)-2000):])
		}
	})
	f.env = append(os.Environ(), "DUNLIN_SERVER=https://"+f.at.API, "DUNLIN_TOKEN="+token, "DUNLIN_CA="+filepath.Join(dir, "ca.pem"), "DUNLIN_PASSPHRASE=a passphrase of the test")
}

// halt ends the server.
func (f *fleet) halt(t *testing.T) {
	t.Helper()
	f.server.Process.Signal(syscall.SIGTERM)
	if err := f.server.Wait(); err != nil {
		t.Errorf("server: %v", err)
	}
}

// begin starts a program of the fleet's side by its clock.
func (f *fleet) begin(cmd *exec.Cmd) error {
	if f.ahead == 0 {
		return cmd.Start()
	}
	_, err := clock.Start(cmd, f.ahead, true)
	return err
}

// launch starts a server at the addresses of f.at and waits until it serves.
func (f *fleet) launch(t *testing.T, dir string) {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	f.server = exec.Command(filepath.Join(f.bin, "dunlin-fleet"), "serve", "--dir", dir, "--api", f.at.API, "--mqtt", f.at.MQTT, "--ready-file", ready)
	log, err := os.OpenFile(filepath.Join(f.root, "fleet.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f.server.Stdout, f.server.Stderr = log, log
	if err := f.begin(f.server); err != nil {
		t.Fatal(err)
	}
	err = poll(t.Context(), func(context.Context) error {
		b, err := os.ReadFile(ready)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &f.at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publish makes practice keys and signs the runtime and both releases, whose
// probation is over at once: nobody asks these devices. Budgets are wide, because
// several devices share this machine and one of them is traced.
func (f *fleet) publish(t *testing.T) {
	t.Helper()
	keys := filepath.Join(f.root, "ceremony")
	f.dunlin(t, "keys", "init", "--dir", keys, "--holder", "eve", "--practice")
	f.dunlin(t, "keys", "sign", "--dir", keys, "--holder", "eve")
	f.dunlin(t, "keys", "install", "--dir", keys)
	sign := func(folder string) {
		f.dunlin(t, "model", "publish", folder, "--channel", "dev", "--key", filepath.Join(keys, "keys", "eve-release.pem"))
	}
	out := filepath.Join(f.root, "runtime")
	f.dunlin(t, "model", "pack", "--runtime", filepath.Join(repository, "build/runtime/litert-2.3.0", runtime.GOARCH, "libLiteRt.so"), "--version", "2.3.0", "--unsigned", "--out", out)
	sign(out)
	demands := regexp.MustCompile(`(?m)^(probation|budgets):.*\n`)
	for _, version := range []string{"1.0.0", "1.1.0"} {
		from := filepath.Join(f.root, "models", version)
		if err := os.CopyFS(from, os.DirFS(filepath.Join(repository, "testbed/models/digits", version))); err != nil {
			t.Fatal(err)
		}
		contract := filepath.Join(from, "model.yaml")
		b, err := os.ReadFile(contract)
		if err != nil {
			t.Fatal(err)
		}
		b = append(demands.ReplaceAll(b, nil), "probation: {requests: 0, minutes: 0}\nbudgets: {any: {latency_p95_us: 1000000, peak_memory_kb: 65536, start_ms: 30000}}\n"...)
		if err := os.WriteFile(contract, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(f.root, "bundles", version)
		f.dunlin(t, "model", "pack", from, "--unsigned", "--out", out)
		sign(out)
	}
}

// enrol gives so many devices their identities.
func (f *fleet) enrol(t *testing.T, devices int) []*device {
	t.Helper()
	token := regexp.MustCompile(`dunlin1\.[^\s",]+`).FindString(f.dunlin(t, "device", "token", "--max", fmt.Sprint(devices), "--channel", "dev", "-o", "json"))
	var all []*device
	for i := range devices {
		d := &device{name: fmt.Sprintf("meter-%d", i+1)}
		d.dir = filepath.Join(f.root, d.name)
		d.config = agent.Defaults()
		d.config.State, d.config.Run, d.config.Listen = d.dir+"/state", d.dir+"/run", ""
		d.config.Class = d.name // one does not wait for the first success of another
		d.config.Worker = filepath.Join(f.bin, "dunlin-infer")
		d.config.ReconnectMin, d.config.ReconnectMax = 50*time.Millisecond, time.Second
		d.local = agent.NewLocal(d.config)
		if err := os.MkdirAll(d.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.yaml(), []byte(d.config.YAML()), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Enroll(t.Context(), d.config, token, d.name); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func (f *fleet) dunlin(t *testing.T, args ...string) string {
	t.Helper()
	return f.command(t, "dunlin", args)
}

func (f *fleet) dunlinFleet(t *testing.T, args ...string) string {
	t.Helper()
	return f.command(t, "dunlin-fleet", args)
}

func (f *fleet) command(t *testing.T, name string, args []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(f.bin, name), args...)
	cmd.Env = f.env
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err := f.begin(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out.String()
}

// start runs the agent until stop, which tells how it ended.
func (f *fleet) start(d *device) (stop func() error, err error) {
	log, err := os.Create(filepath.Join(d.dir, "agent.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(f.bin, "dunlin-agent"), "run", "--config", d.yaml())
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, err
	}
	return func() error {
		defer log.Close()
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}, nil
}

// settleLimit is how long a device may take to come to rest.
const settleLimit = 60 * time.Second

// until waits until a release is active, good, answers, and nothing is under way.
func (d *device) until(ctx context.Context, version string) error {
	return poll(ctx, func(ctx context.Context) error {
		s, err := d.local.Status(ctx)
		if err != nil {
			return err
		}
		if len(s.Damage) > 0 {
			return fmt.Errorf("%s: damage %v", d.name, s.Damage)
		}
		for _, m := range s.Models {
			if m.Model == reader && m.Active != nil && m.Active.Version == version && m.Active.Verdict == "good" && m.Step == "" && m.PID != 0 {
				return nil
			}
		}
		b, err := json.Marshal(s.Models)
		return errors.Join(fmt.Errorf("%s: connected %v, models %s", d.name, s.Connected, b), err)
	})
}

// poll tries until it succeeds; in time it returns the last error but that of the
// time being over.
func poll(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", settleLimit, last)
		case <-tick.C:
		}
	}
}
