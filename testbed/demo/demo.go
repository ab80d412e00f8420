package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// demo is the running fleet.
type demo struct {
	config
	ps      processes
	sh      shell
	api     api
	tally   *tally
	agents  []*agentProc
	digits  *digits
	clients sync.WaitGroup
	stopped context.CancelFunc // of the clients
	cut     powerCut
	victim  *agentProc // whose power was cut
}

// agentProc is one device: a folder, an address, a process that may be killed.
type agentProc struct {
	name   string
	dir    string
	listen string
	labels string
	power  atomic.Int64
	proc   *process
}

func (a *agentProc) config() string { return filepath.Join(a.dir, "agent.yaml") }

// newDemo empties the folder of an earlier demo and reads the test digits.
func newDemo(c config) (*demo, error) {
	for _, name := range []string{"dunlin", "dunlin-agent", "dunlin-infer", "dunlin-fleet"} {
		if _, err := os.Stat(filepath.Join(c.bin, name)); err != nil {
			return nil, fmt.Errorf("%w\n  next: make build", err)
		}
	}
	if err := os.RemoveAll(c.out); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return nil, err
	}
	ds, err := readDigits(filepath.Join(c.models, "test.npz"))
	if err != nil {
		return nil, fmt.Errorf("read test digits: %w", err)
	}
	d := &demo{config: c, tally: newTally(), digits: ds}
	d.sh = shell{out: os.Stdout, bin: c.bin}
	return d, nil
}

func (d *demo) say(format string, args ...any) { fmt.Printf(format, args...) }

// play tells the whole story.
func (d *demo) play(ctx context.Context) (*summary, error) {
	d.say("Dunlin demo: one fleet server, %d devices with workers of their own, all on this machine.\n", deviceCount)
	if err := d.startServer(ctx); err != nil {
		return nil, err
	}
	if err := d.ceremony(ctx); err != nil {
		return nil, err
	}
	if err := d.startDevices(ctx); err != nil {
		return nil, err
	}
	if err := d.publishRuntime(ctx); err != nil {
		return nil, err
	}
	s := &summary{Devices: deviceCount}
	var since time.Time // of the last good release
	for i, a := range acts {
		r, err := d.rollout(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.version, err)
		}
		s.Releases = append(s.Releases, r)
		if i == 0 {
			d.startClients(ctx)
		}
		if d.settle(ctx, &s.Releases[i], a); a.version == lastGood {
			since = time.Now()
		}
	}
	for i, a := range behaving {
		pasts := 2
		if i > 0 {
			since, pasts = time.Now(), 1
		}
		if err := d.past(ctx, since, pasts); err != nil {
			return nil, err
		}
		r, err := d.behave(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.version, err)
		}
		s.Behaviour = append(s.Behaviour, r)
		d.settle(ctx, &r, a)
	}
	d.stopClients()
	var err error
	if s.Stick, err = d.stick(ctx); err != nil {
		return nil, fmt.Errorf("the device without a network: %w", err)
	}
	s.PowerCut = d.cut
	s.Lost, s.DarkRequests, _ = d.tally.losses()
	// Counts go on after a release's own act: the final ones are those that count.
	for i := range s.Releases {
		c := d.tally.of(s.Releases[i].Release)
		s.Releases[i].Requests, s.Releases[i].Correct, s.Releases[i].DevicesHit = c.Requests, c.Correct, len(c.Devices)
	}
	return s, d.running()
}

// settle lets clients see the outcome for a moment before the next act.
func (d *demo) settle(ctx context.Context, r *releaseSummary, a act) {
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	lost, _, first := d.tally.losses()
	line := fmt.Sprintf("  %s: %s after %.0f s", a.version, r.Outcome, r.Seconds)
	if r.Reason != "" {
		line += ": " + r.Reason
	}
	d.say("%s\n  requests lost so far: %d %s\n", line, lost, first)
}

func (d *demo) startServer(ctx context.Context) error {
	dir := filepath.Join(d.out, "fleet")
	d.say("\nThe server: one binary. Its own CA and online keys are made now; the first admin token is printed once.\n")
	out, err := d.sh.run(ctx, nil, "dunlin-fleet", "init", "--name", "localhost", "--dir", dir)
	if err != nil {
		return err
	}
	token := ""
	for _, word := range strings.Fields(out) {
		if strings.HasPrefix(word, "dunlin_") {
			token = word
		}
	}
	if token == "" {
		return errors.New("init printed no admin token")
	}
	if err := shortWindows(filepath.Join(dir, "fleet.yaml")); err != nil {
		return err
	}
	ready := filepath.Join(d.out, "fleet-ready.json")
	if _, err := d.ps.start("dunlin-fleet", filepath.Join(d.out, "fleet.log"), nil, filepath.Join(d.bin, "dunlin-fleet"),
		"serve", "--dir", dir, "--api", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--ready-file", ready); err != nil {
		return err
	}
	var addr struct {
		API  string `json:"api"`
		MQTT string `json:"mqtt"`
	}
	if err := waitFor(ctx, 20*time.Second, "the server", func() error {
		b, err := os.ReadFile(ready)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &addr)
	}); err != nil {
		return err
	}
	ca := filepath.Join(dir, "ca.pem")
	d.sh.env = []string{"DUNLIN_SERVER=https://" + addr.API, "DUNLIN_TOKEN=" + token, "DUNLIN_CA=" + ca}
	d.api, err = newAPI("https://"+addr.API, token, ca)
	return err
}

// waitFor tries until it succeeds or the time is over.
func waitFor(ctx context.Context, limit time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

func (d *demo) startClients(ctx context.Context) {
	d.say("\nFrom now on clients send noisy test digits to every device, all the time, and count.\n")
	cctx, cancel := context.WithCancel(ctx)
	d.stopped = cancel
	for _, a := range d.agents {
		c := &client{device: a.name, url: "http://" + a.listen, http: &http.Client{Timeout: 20 * time.Second}, power: &a.power, tally: d.tally, pause: 25 * time.Millisecond}
		d.clients.Go(func() { c.run(cctx, d.digits) })
	}
}

func (d *demo) stopClients() {
	d.stopped()
	d.clients.Wait()
}
