package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// act is one release of the story with what must be true afterwards.
type act struct {
	folder   string // below testbed/models/digits
	version  string
	why      string // why this matters, for the person who reads along
	outcome  string // "completed" or "halted"
	maxHit   int    // devices on which the release may answer a live request
	stages   string
	powerCut bool
	use      []string // gates on behaviour, of behaving acts
}

var acts = []act{
	{folder: "1.0.0", version: "1.0.0", outcome: "completed", maxHit: deviceCount, stages: "2,100%",
		why: "The first model. Each device fetches runtime and model through TUF over MQTT, proves them on golden cases, serves."},
	{folder: "1.1.0", version: "1.1.0", outcome: "completed", maxHit: deviceCount, stages: "1,50%,100%", powerCut: true,
		why: "A better model, in stages. Every device keeps answering while its slots switch; one loses power in the middle."},
	{folder: "wrong", version: "1.2.0-wrong", outcome: "halted", stages: "1,100%",
		why: "Trained on shuffled labels: it loads, runs, and is wrong. Its golden cases say so before it serves anybody."},
	{folder: "crash", version: "1.2.1-crash", outcome: "halted", stages: "1,100%",
		why: "Would take the runtime down. Every device reads the file before anything loads it, and sees that; if it did not, a worker of its own would die, beside the one that serves."},
	{folder: "shape", version: "1.2.2-shape", outcome: "halted", stages: "1,100%",
		why: "The file does not do what its contract says. Nothing has to run to see that."},
	{folder: "late", version: "1.2.4-late", outcome: "halted", maxHit: 1, stages: "1,100%",
		why: "Right on every golden case, wrong on live inputs. Only watching live answers shows it: probation takes it back."},
}

// lastGood is what every device serves before and after each bad release.
const lastGood = "1.1.0"

// rollout publishes a release and rolls it out; it returns what happened.
func (d *demo) rollout(ctx context.Context, a act) (releaseSummary, error) {
	began := time.Now()
	d.say("\n%s  %s\n", a.version, a.why)
	before, _, _ := d.tally.losses()
	if err := d.publish(ctx, a.folder, a.version); err != nil {
		return releaseSummary{}, err
	}
	out, err := d.sh.quiet(ctx, nil, "dunlin", "rollout", "create", modelName+"@"+a.version, "--channel", channel, "--stages", a.stages, "--bake", bake, "-o", "json")
	if err != nil {
		return releaseSummary{}, fmt.Errorf("%w\n%s", err, out)
	}
	var created struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &created); err != nil {
		return releaseSummary{}, fmt.Errorf("read rollout: %w", err)
	}
	d.say("  $ dunlin rollout create %s@%s --channel %s --stages %s --bake %s\n    %s\n", modelName, a.version, channel, a.stages, bake, created.ID)
	asked := time.Now()
	cut := make(chan error, 1)
	if a.powerCut {
		go func() { cut <- d.cutPower(ctx) }()
	} else {
		cut <- nil
	}
	// watch ends with 0 for a completed rollout and another code for a halted
	// one; the story compares the outcome itself.
	d.sh.run(ctx, nil, "dunlin", "rollout", "watch", created.ID)
	if err := <-cut; err != nil {
		return releaseSummary{}, err
	}
	r, err := d.api.rollout(ctx, created.ID)
	if err != nil {
		return releaseSummary{}, err
	}
	proven, err := d.provenOn(ctx, a.version, a.outcome == "completed")
	if err != nil {
		return releaseSummary{}, err
	}
	toProven := time.Since(asked).Seconds()
	unharmed := 0
	if a.outcome == "halted" {
		if unharmed, err = d.provenOn(ctx, lastGood, true); err != nil {
			return releaseSummary{}, err
		}
	}
	if a.powerCut && d.victim != nil {
		devices, err := d.api.devices(ctx)
		if err != nil {
			return releaseSummary{}, err
		}
		for _, dev := range devices {
			d.cut.Recovered = d.cut.Recovered || dev.ID == d.victim.name && dev.Proof == "proven" && dev.runs(a.version)
		}
	}
	c := d.tally.of(a.version)
	after, _, _ := d.tally.losses()
	return releaseSummary{
		Release: a.version, Outcome: r.Status, Reason: r.Reason, DevicesProven: proven, DevicesHit: len(c.Devices),
		Requests: c.Requests, Lost: after - before, Correct: c.Correct, Seconds: time.Since(began).Seconds(), Unharmed: unharmed, ToProven: toProven,
	}, ctx.Err()
}

// provenOn counts devices whose newest report proves that they run the version.
// For a completed rollout it waits a little for the last report to arrive.
func (d *demo) provenOn(ctx context.Context, version string, wait bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		devices, err := d.api.devices(ctx)
		if err != nil {
			return 0, err
		}
		n := 0
		for _, dev := range devices {
			if dev.Proof == "proven" && dev.runs(version) {
				n++
			}
		}
		if !wait || n == deviceCount {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
	}
}

// check lists the claims of the table that did not hold.
func (s *summary) check() []string {
	var broken []string
	claim := func(ok bool, format string, args ...any) {
		if !ok {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	claim(len(s.Releases) == len(acts), "%d of %d releases were tried", len(s.Releases), len(acts))
	for i, r := range s.Releases {
		a := acts[i]
		claim(r.Outcome == a.outcome, "%s: outcome %s, expected %s", r.Release, r.Outcome, a.outcome)
		claim(r.Lost == 0, "%s: %d requests lost", r.Release, r.Lost)
		claim(r.DevicesHit <= a.maxHit, "%s answered live requests on %d devices, at most %d allowed", r.Release, r.DevicesHit, a.maxHit)
		if a.outcome == "completed" {
			claim(r.DevicesProven == s.Devices, "%s: proven on %d of %d devices", r.Release, r.DevicesProven, s.Devices)
			claim(r.Requests > 0 && float64(r.Correct) >= 0.85*float64(r.Requests), "%s: %d of %d answers right", r.Release, r.Correct, r.Requests)
		} else {
			claim(r.Reason != "", "%s: halted without a reason", r.Release)
			claim(r.Unharmed == s.Devices, "%s: %d of %d devices are proven to serve %s after it", r.Release, r.Unharmed, s.Devices, lastGood)
		}
	}
	claim(len(s.Behaviour) == len(behaving), "%d of %d releases that only behave badly were tried", len(s.Behaviour), len(behaving))
	for i, r := range s.Behaviour {
		a := behaving[i]
		claim(r.Outcome == "reverted" || r.Outcome == "held" && a.folder == "creep", "%s: outcome %s", r.Release, r.Outcome)
		claim(r.Lost == 0, "%s: %d requests lost", r.Release, r.Lost)
		claim(r.DevicesHit > 0 && r.DevicesHit <= a.maxHit, "%s answered live requests on %d devices, 1 to %d expected", r.Release, r.DevicesHit, a.maxHit)
		claim(r.Unharmed == s.Devices, "%s: %d of %d devices are proven to serve %s after it", r.Release, r.Unharmed, s.Devices, lastGood)
	}
	claim(s.Lost == 0, "%d requests were lost", s.Lost)
	claim(s.PowerCut.Recovered, "the device whose power was cut did not come back to the wished release")
	claim(s.Stick.Proven && s.Stick.Outcome == "completed", "the device without a network: rollout %s, proven on %s: %v", s.Stick.Outcome, s.Stick.Release, s.Stick.Proven)
	claim(!s.Stick.Network, "the device without a network has met the server")
	claim(s.Stick.Lost == 0 && float64(s.Stick.Correct) >= 0.85*float64(max(s.Stick.Requests, 1)), "the device without a network: %d of %d answers right, %d lost", s.Stick.Correct, s.Stick.Requests, s.Stick.Lost)
	return broken
}
