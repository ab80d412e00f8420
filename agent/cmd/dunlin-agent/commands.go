package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
	health "github.com/dunlin-edge/dunlin/agent/doctor"
)

func run(ctx context.Context, e *env, args []string) error {
	_, c, err := parse(e, "run", args, nil, 0, 0)
	if err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log)); err != nil {
		return fmt.Errorf("configuration: log: %w", err)
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	return agent.Run(ctx, c, log)
}

func status(ctx context.Context, e *env, args []string) error {
	var showConfig bool
	// --config without a value would be ambiguous with --config FILE: the word
	// alone, last, asks for the configuration in effect.
	if n := len(args); n > 0 && (args[n-1] == "--config" || args[n-1] == "-config") {
		showConfig, args = true, args[:n-1]
	}
	_, c, err := parse(e, "status", args, nil, 0, 0)
	if err != nil {
		return err
	}
	l := agent.NewLocal(c)
	if showConfig {
		text, err := l.Config(ctx)
		if err != nil {
			return err
		}
		fmt.Fprint(e.stdout, text)
		return nil
	}
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	return printStatus(e, s)
}

func rollback(ctx context.Context, e *env, args []string) error {
	words, c, err := parse(e, "rollback", args, nil, 1, 1)
	if err != nil {
		return err
	}
	s, err := agent.NewLocal(c).Rollback(ctx, words[0])
	if err != nil {
		return err
	}
	return printStatus(e, s)
}

func doctor(_ context.Context, e *env, args []string) error {
	_, c, err := parse(e, "doctor", args, nil, 0, 0)
	if err != nil {
		return err
	}
	findings := health.Look(c)
	if e.json {
		if err := printJSON(e.stdout, findings); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
		for _, f := range findings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Grade, f.Check, f.Found)
			if f.Next != "" {
				fmt.Fprintf(w, "\t\tnext: %s\n", f.Next)
			}
		}
		w.Flush()
	}
	for _, f := range findings {
		if f.Grade == health.Fail {
			return &agent.LocalError{Code: "doctor.failed", Detail: "this device will not run models as it is", Next: f.Next}
		}
	}
	return nil
}

func version(_ context.Context, e *env, _ []string) error {
	fmt.Fprintln(e.stdout, agent.Version)
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printStatus(e *env, s *agent.Status) error {
	if e.json {
		return printJSON(e.stdout, s)
	}
	link := "not connected"
	if s.Connected {
		link = "connected"
	}
	fmt.Fprintf(e.stdout, "%s  channel %s  %s to %s  generation %d  clock %s\n", s.Device, s.Channel, link, s.Server, s.Generation, s.Clock)
	fmt.Fprintf(e.stdout, "certificate until %s, %d days left\n", s.Certificate.Expires.UTC().Format(time.RFC3339), s.Certificate.Days)
	if c := s.Certificate; c.Renewal != "" {
		fmt.Fprintf(e.stdout, "  renewal: %s\n", c.Renewal)
		if c.Next != "" {
			fmt.Fprintf(e.stdout, "  next: %s\n", c.Next)
		}
	}
	if s.Trouble != "" {
		fmt.Fprintf(e.stdout, "server: %s\n  next: none needed: it is looked again; tell the server's operator\n", s.Trouble)
	}
	for _, d := range s.Damage {
		fmt.Fprintf(e.stdout, "mended at start: %s\n", d)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tSLOT\tPLACE\tVERSION\tVERDICT\tANSWERED\tWHY")
	for _, m := range s.Models {
		row := func(use string, sl *agent.SlotStatus, answered string) {
			if sl != nil {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Model, use, dash(sl.Place), sl.Version, sl.Verdict, answered, why(m.Step, use, sl))
			}
		}
		row("active", m.Active, fmt.Sprint(m.Answered))
		row("candidate", m.Candidate, "–")
		row("previous", m.Previous, "–")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range s.Models {
		printShowed(e.stdout, m.Model, m.Active)
		printShowed(e.stdout, m.Model, m.Candidate)
	}
	if err := printCapture(e.stdout, s); err != nil {
		return err
	}
	return printPosture(e.stdout, s.Posture)
}

// printCapture says whether inputs may leave the device, and which do.
func printCapture(w io.Writer, s *agent.Status) error {
	if !s.Capture.Allowed {
		_, err := fmt.Fprintln(w, "inputs leave this device: never (capture: off in agent.yaml)")
		return err
	}
	redacted := ""
	if s.Capture.Redact != "" {
		redacted = ", after " + s.Capture.Redact
	}
	_, err := fmt.Fprintf(w, "inputs leave this device: where a capture asks for them%s; %d captures, %d bytes wait\n", redacted, len(s.Capture.Orders), s.Capture.Waiting)
	for _, o := range s.Capture.Orders {
		state := "until " + o.Expires.Format(time.RFC3339)
		if o.Stopped {
			state = "stopped"
		}
		_, err = fmt.Fprintf(w, "  %s of %s where %s: %d of %d samples, %d of %d bytes, %s\n", o.ID, o.Model, o.Where, o.Kept, o.Max, o.Bytes, o.Limit, state)
		for _, reason := range slices.Sorted(maps.Keys(o.Dropped)) {
			_, err = fmt.Fprintf(w, "    dropped for %s: %d\n", reason, o.Dropped[reason])
		}
	}
	return err
}

// printPosture names the layers around the workers, and those that are missing by
// reason.
func printPosture(w io.Writer, layers []agent.LayerStatus) error {
	var have, reasons []string
	missing := map[string][]string{}
	for _, l := range layers {
		switch {
		case l.Have:
			have = append(have, l.Layer)
		case missing[l.Detail] == nil:
			reasons = append(reasons, l.Detail)
			fallthrough
		default:
			missing[l.Detail] = append(missing[l.Detail], l.Layer)
		}
	}
	_, err := fmt.Fprintf(w, "workers are held by: %s\n", strings.Join(have, ", "))
	for _, r := range reasons {
		_, err = fmt.Fprintf(w, "not by: %s (%s)\n", strings.Join(missing[r], ", "), r)
	}
	return err
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func why(step, use string, s *agent.SlotStatus) string {
	switch {
	case s.Code != "":
		return s.Code + ": " + s.Reason
	case use == "candidate" && step != "":
		return "step " + step
	}
	return "–"
}

// printShowed tells what a slot showed before it served.
func printShowed(w io.Writer, model string, s *agent.SlotStatus) {
	if s == nil {
		return
	}
	for _, line := range s.Proof.Lines() {
		fmt.Fprintf(w, "%s %s showed: %s\n", model, s.Version, line)
	}
}
