package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// window is the length of the devices' windows of measurement in the demo, where an
// hour and a minute are usual: a day of past and a rollout of hours fit into minutes.
const window = time.Second

// behaving acts are releases that pass every proof and probation: only the comparison
// with devices that did not change shows what is wrong. Three of six devices change,
// three are compared with.
var behaving = []act{
	{folder: "shifted", version: "1.2.5-shifted", maxHit: 3,
		why: "Takes four digits for others, with confidence. Golden cases, proof and probation see nothing; the answers of changed devices move against those of the others.",
		use: []string{"classes", "score"}},
	{folder: "creep", version: "1.2.6-creep", maxHit: 3,
		why: "A third slower, inside its budget. Only the comparison shows it.",
		use: []string{"latency_p50"}},
}

// gateSpec is the rollout of such a release. Looks are at 4, 8, 16… seconds after the
// change, against the last 24 s, where 20 minutes and 24 hours are usual.
func (a act) gateSpec() map[string]any {
	return map[string]any{
		"model": modelName, "version": a.version, "channel": channel, "on_fail": "revert", "bake": "6s", "longest_wait": "20s",
		"stages": []any{map[string]any{"count": 3}, map[string]any{"percent": 100}},
		"gates":  map[string]any{"look": "4s", "past": "24s", "use": a.use},
	}
}

// past waits until there is enough to look back at: twice the past since the last good
// release serves everywhere, or once where half of the devices served it throughout.
func (d *demo) past(ctx context.Context, since time.Time, pasts int) error {
	needed := time.Duration(pasts)*24*time.Second + 4*time.Second
	wait := max(needed-time.Since(since), 0).Round(time.Second)
	d.say("\nThe next release passes every proof. What it does is compared: changed devices against their own past and against devices that did not change.\n"+
		"In this demo a window of measurement is %s and a day is 24 s. Waiting %s for a past to look back at.\n", window, wait)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// behave rolls out a release whose behaviour is wrong, and follows it to the end: a
// failed gate takes it back by itself, a held one is taken back by a person.
func (d *demo) behave(ctx context.Context, a act) (releaseSummary, error) {
	began := time.Now()
	d.say("\n%s  %s\n", a.version, a.why)
	before, _, _ := d.tally.losses()
	if err := d.publish(ctx, a.folder, a.version); err != nil {
		return releaseSummary{}, err
	}
	file := filepath.Join(d.out, a.folder+"-rollout.yaml")
	b, err := json.MarshalIndent(a.gateSpec(), "", "  ") // JSON is YAML
	if err != nil {
		return releaseSummary{}, err
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return releaseSummary{}, err
	}
	out, err := d.sh.quiet(ctx, nil, "dunlin", "rollout", "create", "-f", file, "-o", "json")
	if err != nil {
		return releaseSummary{}, fmt.Errorf("%w\n%s", err, out)
	}
	var r rolloutView
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return releaseSummary{}, fmt.Errorf("read rollout: %w", err)
	}
	id := r.ID
	d.say("  $ dunlin rollout create -f %s-rollout.yaml\n    %s\n", a.folder, id)
	outcome := ""
	if r, outcome, err = d.follow(ctx, id); err != nil {
		return releaseSummary{}, err
	}
	if outcome == "held" {
		if _, err := d.sh.run(ctx, nil, "dunlin", "rollout", "revert", id, "--reason", "the gates suspect it", "--wait"); err != nil {
			return releaseSummary{}, err
		}
	}
	unharmed, err := d.provenOn(ctx, lastGood, true)
	if err != nil {
		return releaseSummary{}, err
	}
	if _, err := d.sh.run(ctx, nil, "dunlin", "rollout", "show", id); err != nil {
		return releaseSummary{}, err
	}
	c := d.tally.of(a.version)
	after, _, _ := d.tally.losses()
	s := releaseSummary{Release: a.version, Outcome: outcome, Reason: r.Reason, Gate: r.Code, Window: window.String(), DevicesHit: len(c.Devices),
		Requests: c.Requests, Lost: after - before, Correct: c.Correct, Seconds: time.Since(began).Seconds(), Unharmed: unharmed}
	for dev := range c.Devices {
		s.Changed = append(s.Changed, dev)
	}
	slices.Sort(s.Changed)
	for _, g := range r.Gates {
		if slices.Contains(a.use, g.Gate) {
			s.Gates = append(s.Gates, fmt.Sprintf("%s: %s; %s, e-value %.3g of %.3g, %d units", g.Gate, g.Verdict, g.Says, g.Harm, g.FailsAt, g.Units))
		}
	}
	return s, ctx.Err()
}

// follow prints a rollout's progress until it has ended or waits for a person.
func (d *demo) follow(ctx context.Context, id string) (r rolloutView, outcome string, err error) {
	wctx, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		d.sh.run(wctx, nil, "dunlin", "rollout", "watch", id)
	}()
	defer func() { stop(); <-watched }()
	err = waitFor(ctx, 3*time.Minute, "rollout "+id, func() error {
		var err error
		if r, err = d.api.rollout(ctx, id); err != nil {
			return err
		}
		switch {
		case r.Status == "paused" && r.Code == "gate.held":
			outcome = "held"
		case r.Status == "reverted", r.Status == "completed", r.Status == "halted":
			outcome = r.Status
		default:
			return fmt.Errorf("it is %s: %s", r.Status, r.Waiting)
		}
		return nil
	})
	return r, outcome, err
}

// shortWindows sets the windows in the server's configuration.
func shortWindows(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := regexp.MustCompile(`(?m)^(\s+)(idle|rollout): \S+$`).ReplaceAllString(string(b), "${1}${2}: "+window.String())
	if text == string(b) {
		return fmt.Errorf("%s sets no windows", file)
	}
	return os.WriteFile(file, []byte(text), 0o600)
}
