// Package rolloutview shows rollouts to people: in a line, in a table, on a terminal.
package rolloutview

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

// View is what the API tells of a rollout.
type View struct {
	ID      string     `json:"id"`
	Spec    fleet.Spec `json:"spec"`
	Status  string     `json:"status"`
	Code    string     `json:"code,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Waiting string     `json:"waiting,omitempty"`
	Stage   int        `json:"stage"`
	Devices int        `json:"devices"`
	Counts  struct {
		Waiting  int `json:"waiting"`
		Assigned int `json:"assigned"`
		Working  int `json:"working"`
		Good     int `json:"good"`
		Failed   int `json:"failed"`
		Silent   int `json:"silent"`
		Hit      int `json:"hit"`
		Back     int `json:"back"`
		Gone     int `json:"gone"`
		Leaving  int `json:"leaving"`
	} `json:"counts"`
	Stages  []Stage             `json:"stages"`
	Created time.Time           `json:"created"`
	By      string              `json:"by"`
	Gates   []fleet.GateReading `json:"gates,omitempty"`
}

// Stage is one stage of a rollout.
type Stage struct {
	Index   int        `json:"index"`
	Control bool       `json:"control"`
	Target  int        `json:"target"`
	Good    int        `json:"good"`
	Started *time.Time `json:"started,omitempty"`
	Baking  *time.Time `json:"baking,omitempty"`
	Passed  *time.Time `json:"passed,omitempty"`
	Held    *time.Time `json:"held,omitempty"`
}

// Name of the stage.
func (s *Stage) Name() string {
	if s.Control {
		return "control"
	}
	return fmt.Sprintf("stage %d", s.Index+1)
}

// State is the state of a stage of a rollout that is over, or not.
func (s *Stage) State(over bool) string {
	switch {
	case s.Passed != nil && s.Held != nil:
		return "passed by a person"
	case s.Passed != nil:
		return "passed"
	case s.Started != nil && over:
		return "stopped"
	case s.Held != nil:
		return "held"
	case s.Baking != nil:
		return "bakes"
	case s.Started != nil:
		return "runs"
	}
	return "waiting"
}

// StageName is the name of the stage under way.
func (r *View) StageName() string {
	if r.Stage == len(r.Stages)-1 {
		return "control"
	}
	return fmt.Sprintf("%d of %d", r.Stage+1, len(r.Stages)-1)
}

// Why is what it waits for, or why it stopped.
func (r *View) Why() string {
	if r.Reason != "" {
		return say.Plain(r.Reason)
	}
	return say.Plain(r.Waiting)
}

// Line is the rollout in one line.
func (r *View) Line() string {
	s := fmt.Sprintf("%s, stage %s: %d of %d good", r.Status, r.StageName(), r.Counts.Good, r.Devices)
	for _, x := range []struct {
		n    int
		what string
	}{{r.Counts.Working, "at work"}, {r.Counts.Assigned, "assigned"}, {r.Counts.Failed, "failed"}, {r.Counts.Silent, "silent"}, {r.Counts.Leaving, "on the way back"}, {r.Counts.Back, "taken back"}, {r.Counts.Gone, "gone"}} {
		if x.n > 0 {
			s += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	switch {
	case r.Reason != "":
		s += "; " + say.Plain(r.Reason)
	case strings.HasPrefix(r.Waiting, "bakes"), r.Status == fleet.RolloutReverting:
		s += "; " + say.Plain(r.Waiting)
	}
	return s
}

// Over tells whether the rollout has ended before its time.
func (r *View) Over() bool {
	return r.Status == fleet.RolloutHalted || r.Status == fleet.RolloutAborted || r.Status == fleet.RolloutReverted
}

// Draw writes stages, devices, gates and what comes next.
func (r *View) Draw(out io.Writer, now time.Time) {
	fmt.Fprintf(out, "%s@%s  %s  in %s, %d devices, for %s\n", r.Spec.Model, r.Spec.Version, r.Status, r.Spec.Channel, r.Devices, say.Age(now.Sub(r.Created)))
	if why := r.Why(); why != "" {
		fmt.Fprintf(out, "%s\n", why)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, st := range r.Stages {
		fmt.Fprintf(w, "%s\t%s\t%d of %d good\t%s\n", st.Name(), bar(st.Good, st.Target), st.Good, st.Target, st.State(r.Over()))
	}
	w.Flush()
	fmt.Fprintf(out, "\n%s\n", r.Line())
	g := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	r.PrintGates(g)
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

// PrintGates writes what the gates say, those that are wrong first in their order.
func (r *View) PrintGates(w io.Writer) {
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
