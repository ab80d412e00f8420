package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stickSummary is what came of the device that no network reaches.
type stickSummary struct {
	Device   string  `json:"device"`
	Release  string  `json:"release"`
	Outcome  string  `json:"outcome"` // of its rollout
	Proven   bool    `json:"proven"`
	Network  bool    `json:"saw_the_server"` // it must not
	Requests uint64  `json:"requests"`
	Correct  uint64  `json:"correct"`
	Lost     uint64  `json:"lost"`
	Seconds  float64 `json:"seconds"`
}

// stickSite is the label of the device without a network.
const stickSite = "cellar"

// stick tells how a device without any network gets the good release from a folder
// that plays the stick, and how its receipt brings the proof home.
func (d *demo) stick(ctx context.Context) (s stickSummary, err error) {
	began := time.Now()
	d.say("\nA seventh device has no network at all: its agent runs in a network namespace of its own, with nothing in it.\nIt was enrolled in the workshop; release %s reaches it on a stick, played by a folder, and its signed receipt comes back on it.\n", lastGood)
	a, err := d.cellarDevice(ctx)
	if err != nil {
		return s, err
	}
	s = stickSummary{Device: a.name, Release: lastGood}
	out, err := d.sh.quiet(ctx, nil, "dunlin", "rollout", "create", modelName+"@"+lastGood, "--channel", channel, "--to", "site="+stickSite, "--stages", "100%", "--bake", "1s", "-o", "json")
	if err != nil {
		return s, fmt.Errorf("%w\n%s", err, out)
	}
	var created struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &created); err != nil {
		return s, fmt.Errorf("read rollout: %w", err)
	}
	d.say("  $ dunlin rollout create %s@%s --to site=%s\n", modelName, lastGood, stickSite)
	if err := waitFor(ctx, 20*time.Second, "the wish of "+a.name, func() error {
		if dev, err := d.api.device(ctx, a.name); err != nil || dev.Wish.Generation < 1 {
			return fmt.Errorf("none yet: %w", err)
		}
		return nil
	}); err != nil {
		return s, err
	}
	tally, stop := d.askCellar(ctx, a)
	defer stop()
	if err := d.carry(ctx, a); err != nil {
		return s, err
	}
	if _, err := d.sh.run(ctx, nil, "dunlin", "rollout", "watch", created.ID); err != nil {
		return s, err
	}
	stop()
	r, err := d.api.rollout(ctx, created.ID)
	if err != nil {
		return s, err
	}
	dev, err := d.api.device(ctx, a.name)
	if err != nil {
		return s, err
	}
	st, err := d.status(ctx, a)
	if err != nil {
		return s, err
	}
	c := tally.of(lastGood)
	s.Outcome, s.Proven, s.Network = r.Status, dev.Proof == "proven" && dev.runs(lastGood), dev.Online || st.Connected
	s.Requests, s.Correct, s.Seconds = c.Requests, c.Correct, time.Since(began).Seconds()
	s.Lost, _, _ = tally.losses()
	return s, nil
}

// cellarDevice enrols a device and starts its agent where no network is.
func (d *demo) cellarDevice(ctx context.Context) (*agentProc, error) {
	out, err := d.sh.quiet(ctx, nil, "dunlin", "device", "token", "--expires", "1h", "--channel", channel, "--label", "site="+stickSite, "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	a := &agentProc{name: fmt.Sprintf("meter-%d", deviceCount+1), labels: stickSite}
	a.dir = filepath.Join(d.out, a.name)
	if err := os.MkdirAll(filepath.Join(a.dir, "media"), 0o755); err != nil {
		return nil, err
	}
	yaml := fmt.Sprintf("state: %s/state\nrun: %s/run\nworker: %s/dunlin-infer\nlisten: ''\nusb: %s/media\n", a.dir, a.dir, d.bin, a.dir)
	if err := os.WriteFile(a.config(), []byte(yaml), 0o644); err != nil {
		return nil, err
	}
	if _, err := d.sh.run(ctx, nil, "dunlin-agent", "enroll", "--config", a.config(), "--token", token.Token, "--name", a.name); err != nil {
		return nil, err
	}
	log, bin := filepath.Join(a.dir, "agent.log"), filepath.Join(d.bin, "dunlin-agent")
	a.proc, err = d.ps.startIn(noNetwork(), a.name, log, nil, bin, "run", "--config", a.config())
	if err != nil {
		return nil, fmt.Errorf("no network namespace can be made here: %w", err)
	}
	return a, waitFor(ctx, 20*time.Second, a.name, func() error { _, err := d.status(ctx, a); return err })
}

// noNetwork is a process without any network, not even loopback. Who is not root
// needs a user namespace for that, in which the ids stay what they are.
func noNetwork() syscall.SysProcAttr {
	attr := syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// askCellar sends digits to the device over its unix socket, which needs no network,
// once it serves; stop ends that and may be called twice.
func (d *demo) askCellar(ctx context.Context, a *agentProc) (*tally, func()) {
	ctx, cancel := context.WithCancel(ctx)
	t := newTally()
	socket := filepath.Join(a.dir, "run", "infer.sock")
	c := &client{device: a.name, url: "http://device", power: &a.power, tally: t, pause: 25 * time.Millisecond, http: &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dial net.Dialer
			return dial.DialContext(ctx, "unix", socket)
		}},
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !d.serves(ctx, c) {
		}
		c.run(ctx, d.digits)
	}()
	return t, func() { cancel(); <-done }
}

// serves tells, after a moment, whether the device has a model that is ready.
func (d *demo) serves(ctx context.Context, c *client) bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/v2/models/"+modelName+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// carry exports the stick, plugs it into the device, waits until the device says on
// it that the release is good, and brings it home.
func (d *demo) carry(ctx context.Context, a *agentProc) error {
	stick := filepath.Join(d.out, "stick")
	if _, err := d.sh.run(ctx, nil, "dunlin", "usb", "export", "--selector", "site="+stickSite, "--out", stick); err != nil {
		return err
	}
	in := filepath.Join(a.dir, "media", "stick")
	if err := os.Rename(stick, in); err != nil {
		return err
	}
	d.say("  the stick is in; the agent finds it by itself\n")
	if err := waitFor(ctx, 60*time.Second, a.name+" to prove the release", func() error {
		s, err := d.status(ctx, a)
		if err != nil {
			return err
		}
		for _, m := range s.Models {
			if m.Model == modelName && m.Step == "" && m.Active != nil && m.Active.Version == lastGood && m.Active.Verdict == "good" {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.Models)
	}); err != nil {
		return err
	}
	// The receipt is written a moment later; one that was read too early says less.
	return waitFor(ctx, 30*time.Second, "the receipt of "+a.name, func() error {
		out, err := d.sh.quiet(ctx, nil, "dunlin", "usb", "import", in)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		dev, err := d.api.device(ctx, a.name)
		if err != nil {
			return err
		}
		if dev.Proof != "proven" || !dev.runs(lastGood) {
			return fmt.Errorf("%s is %s", a.name, dev.Proof)
		}
		d.say("  $ dunlin usb import %s\n    %s", filepath.Base(in), out)
		return nil
	})
}
