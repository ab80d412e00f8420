package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"golang.org/x/term"
)

// home follows a reverting rollout to its end.
func (c *cli) home(ctx context.Context, id string) error {
	err := c.watch(ctx, id)
	var code exitError
	if errors.As(err, &code) && code == exitNotCompleted {
		return nil // it ended as reverted, which is what was wanted
	}
	return err
}

// screen draws a rollout on a terminal, in place of what was drawn before; false: the
// output is no terminal.
func (c *cli) screen(r *rolloutView) bool {
	f, ok := c.out.(*os.File)
	if !ok || c.output == "json" || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J") // home, clear
	r.draw(&b, time.Now())
	io.WriteString(c.out, b.String())
	return true
}

// draw writes stages, devices, gates and what comes next.
func (r *rolloutView) draw(out io.Writer, now time.Time) {
	fmt.Fprintf(out, "%s@%s  %s  in %s, %d devices, for %s\n", r.Spec.Model, r.Spec.Version, r.Status, r.Spec.Channel, r.Devices, say.Age(now.Sub(r.Created)))
	if why := r.why(); why != "" {
		fmt.Fprintf(out, "%s\n", why)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, st := range r.Stages {
		fmt.Fprintf(w, "%s\t%s\t%d of %d good\t%s\n", st.name(), bar(st.Good, st.Target), st.Good, st.Target, st.state(r.over()))
	}
	w.Flush()
	fmt.Fprintf(out, "\n%s\n", r.line())
	g := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	r.printGates(g)
	g.Flush()
}

// bar is a share in twenty signs.
func bar(n, of int) string {
	const width = 20
	full := 0
	if of > 0 {
		full = min(width, n*width/of)
	}
	return strings.Repeat("#", full) + strings.Repeat(".", width-full)
}

// printGates writes what the gates say, those that are wrong first in their order.
func (r *rolloutView) printGates(w io.Writer) {
	if len(r.Gates) == 0 {
		return
	}
	fmt.Fprintln(w, "\nGATE\tVERDICT\tE-VALUE\tFAILS AT\tUNITS\tSAW")
	for _, bad := range []bool{true, false} {
		for _, g := range r.Gates {
			if (g.Verdict == fleet.GateFail) == bad {
				fmt.Fprintf(w, "%s\t%s\t%.3g\t%.3g\t%d\t%s\n", g.Gate, verdict(g), g.Harm, g.FailsAt, g.Units, say.Plain(g.Says))
			}
		}
	}
}

func verdict(g fleet.GateReading) string {
	switch {
	case g.Why != "":
		return g.Why
	case g.Verdict == fleet.GateNotYet && !g.Decidable:
		return "not decidable yet"
	}
	return strings.ReplaceAll(g.Verdict, "_", " ")
}
