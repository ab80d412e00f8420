package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// sites give the devices labels to select by.
var sites = []string{"harbour", "harbour", "station", "station", "depot", "depot"}

// startDevices enrols the devices with one batch token and starts their agents.
func (d *demo) startDevices(ctx context.Context) error {
	d.say("\nSix devices enrol with one batch token. It carries the fingerprints of the server's CA and of both roots, so nothing is trusted on first use.\n")
	out, err := d.sh.quiet(ctx, nil, "dunlin", "device", "token", "--max", fmt.Sprint(deviceCount), "--expires", "1h", "--channel", channel, "-o", "json")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	d.say("  $ dunlin device token --max %d --expires 1h --channel %s\n", deviceCount, channel)
	for i := range deviceCount {
		a, err := d.newDevice(i)
		if err != nil {
			return err
		}
		if _, err := d.sh.run(ctx, nil, "dunlin-agent", "enroll", "--config", a.config(), "--token", token.Token, "--name", a.name); err != nil {
			return err
		}
		if err := d.startAgent(a); err != nil {
			return err
		}
		d.agents = append(d.agents, a)
	}
	for _, a := range d.agents {
		if err := d.waitConnected(ctx, a); err != nil {
			return err
		}
		if _, err := d.sh.quiet(ctx, nil, "dunlin", "device", "label", a.name, "site="+a.labels); err != nil {
			return err
		}
	}
	_, err = d.sh.run(ctx, nil, "dunlin", "device", "list")
	return err
}

// newDevice makes a device's folder and configuration with a free port.
func (d *demo) newDevice(i int) (*agentProc, error) {
	a := &agentProc{name: fmt.Sprintf("meter-%d", i+1), labels: sites[i]}
	a.dir = filepath.Join(d.out, a.name)
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.listen = l.Addr().String()
	l.Close()
	yaml := fmt.Sprintf("state: %s/state\nrun: %s/run\nworker: %s/dunlin-infer\nlisten: %s\nreconnect_min: 200ms\nreconnect_max: 2s\n", a.dir, a.dir, d.bin, a.listen)
	return a, os.WriteFile(a.config(), []byte(yaml), 0o644)
}

func (d *demo) startAgent(a *agentProc) error {
	p, err := d.ps.start(a.name, filepath.Join(a.dir, "agent.log"), nil, filepath.Join(d.bin, "dunlin-agent"), "run", "--config", a.config())
	a.proc = p
	return err
}

// agentStatus is the part of a device's own status that the demo looks at.
type agentStatus struct {
	Connected bool `json:"connected"`
	Models    []struct {
		Model  string `json:"model"`
		Step   string `json:"step"`
		PID    int    `json:"pid"`
		Active *struct {
			Version string `json:"version"`
			Verdict string `json:"verdict"`
		} `json:"active"`
	} `json:"models"`
}

func (d *demo) status(ctx context.Context, a *agentProc) (agentStatus, error) {
	var s agentStatus
	out, err := d.sh.quiet(ctx, nil, "dunlin-agent", "status", "--config", a.config(), "-o", "json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func (d *demo) waitConnected(ctx context.Context, a *agentProc) error {
	return waitFor(ctx, 20*time.Second, a.name, func() error {
		s, err := d.status(ctx, a)
		if err == nil && !s.Connected {
			return fmt.Errorf("%s is not connected", a.name)
		}
		return err
	})
}

// cutPower waits until some device is in the middle of its update, kills it with
// all that it runs, and starts it again a second later.
func (d *demo) cutPower(ctx context.Context) error {
	victim, step, err := d.midUpdate(ctx)
	if err != nil {
		return err
	}
	d.say("  !! power cut: %s is killed (SIGKILL) in step %q\n", victim.name, step)
	victim.power.Add(1)
	victim.proc.kill()
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	}
	if err := d.startAgent(victim); err != nil {
		return err
	}
	err = waitFor(ctx, 30*time.Second, victim.name+" to serve again", func() error {
		s, err := d.status(ctx, victim)
		if err != nil {
			return err
		}
		for _, m := range s.Models {
			if m.Model == modelName && m.Active != nil && m.PID != 0 {
				d.say("  !! %s is back and serves %s, %s; it goes on by itself\n", victim.name, m.Active.Version, m.Active.Verdict)
				return nil
			}
		}
		return fmt.Errorf("%s does not serve", victim.name)
	})
	if err != nil {
		return err
	}
	victim.power.Add(1)
	d.cut = powerCut{Device: victim.name, Step: step}
	d.victim = victim
	return nil
}

// midUpdate polls the devices until one is fetching, placing or proving.
func (d *demo) midUpdate(ctx context.Context) (*agentProc, string, error) {
	var victim *agentProc
	var step string
	err := waitFor(ctx, 60*time.Second, "a device in the middle of its update", func() error {
		for _, a := range d.agents {
			s, err := d.status(ctx, a)
			if err != nil {
				return err
			}
			for _, m := range s.Models {
				if m.Model == modelName && m.Step != "" && m.Step != "report" && m.Step != "commit" {
					victim, step = a, m.Step
					return nil
				}
			}
		}
		return fmt.Errorf("no device is updating")
	})
	return victim, step, err
}
