package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/rolloutview"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/simulate"
)

func (c *cli) rolloutCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Change many devices in stages, and stop by itself"}
	cmd.AddCommand(c.rolloutCreateCmd(), c.rolloutListCmd(), c.rolloutShowCmd(), c.rolloutWatchCmd(), c.quarantinesCmd(), c.releaseCmd(), (&simulate.Commands{Print: c.print, Read: readSpec}).Command(),
		c.rolloutSteerCmd("pause", "Pause a running rollout"), c.rolloutSteerCmd("resume", "Let a paused rollout go on"),
		c.rolloutSteerCmd("abort", "End a rollout; devices that are not good yet get their former wish back"),
		c.rolloutSteerCmd("revert", "Give every device that a rollout has changed back what it had before"))
	return cmd
}

func (c *cli) rolloutCreateCmd() *cobra.Command {
	var spec fleet.Spec
	var stages, file, key string
	var bake time.Duration
	var control int
	var wait bool
	cmd := &cobra.Command{
		Use: "create MODEL@VERSION", Short: "Start a rollout", Args: cobra.MaximumNArgs(1),
		Example: "  dunlin rollout create meter-digits@1.1.0 --to site=harbour --stages 1,50%,100% --bake 10m --wait\n  dunlin rollout create -f rollout.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Bake = fleet.Duration(bake)
			if cmd.Flags().Changed("control") {
				spec.Control = &control
			}
			if err := fillSpec(&spec, args, stages, file); err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			var r rolloutview.View
			if err := api.Create(cmd.Context(), "/v1/rollouts", key, spec, &r); err != nil {
				return err
			}
			if wait {
				return c.watch(cmd.Context(), r.ID)
			}
			return c.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s\t%s@%s to %d devices\n  next: dunlin rollout watch %s\n", r.ID, r.Spec.Model, r.Spec.Version, r.Devices, r.ID)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Selector, "to", "", "selector over labels and facts; empty: every device of the channel")
	f.StringVar(&spec.Channel, "channel", "production", "channel of the release and of the devices")
	f.StringVar(&stages, "stages", "", "cumulative, like 1,10%,50%,100%; default 1, max(3, 1%), 10%, 50%, the rest of each class")
	f.DurationVar(&bake, "bake", 0, "watched wait at the end of each stage (default 40m)")
	f.IntVar(&control, "control", 10, "percent of each class that is held back until the last gate")
	f.Int64Var(&spec.Attempt, "attempt", 0, "raise it to have devices try again what they refused")
	f.StringVarP(&file, "file", "f", "", "YAML file with the specification")
	f.StringVar(&key, "idempotency-key", "", "the same key within a day makes the rollout once, for jobs that are repeated (default a fresh one)")
	f.BoolVar(&wait, "wait", false, "show progress and exit 0 only when the rollout completed")
	return cmd
}

// fillSpec reads the specification from its file, or from the words.
func fillSpec(spec *fleet.Spec, args []string, stages, file string) error {
	if file != "" {
		if len(args) > 0 {
			return usage("give MODEL@VERSION or -f FILE, not both")
		}
		return readSpec(spec, file)
	}
	if len(args) == 0 {
		return usage("MODEL@VERSION is missing")
	}
	var ok bool
	if spec.Model, spec.Version, ok = strings.Cut(args[0], "@"); !ok {
		return usage("%q is not MODEL@VERSION", args[0])
	}
	var err error
	spec.Stages, err = parseStages(stages)
	return err
}

func usage(format string, args ...any) error {
	return &fleet.Error{Code: "usage.arguments", Message: fmt.Sprintf(format, args...), Next: "run 'dunlin rollout create --help'"}
}

// maxSpec bounds the file of a specification.
const maxSpec = 1 << 20

// readSpec reads YAML with the API's own keys; unknown ones are refused.
func readSpec(spec *fleet.Spec, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return usage("%v", err)
	}
	if len(b) > maxSpec {
		return usage("%s: longer than %d bytes", file, maxSpec)
	}
	var any map[string]any
	if err := yaml.Unmarshal(b, &any); err != nil {
		return usage("%s: %v", file, err)
	}
	text, err := json.Marshal(any)
	if err != nil {
		return usage("%s: %v", file, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(spec); err != nil {
		return usage("%s: %v", file, err)
	}
	return nil
}

// parseStages reads stages like "1,50%,100%".
func parseStages(s string) ([]fleet.StageSpec, error) {
	if s == "" {
		return nil, nil
	}
	var out []fleet.StageSpec
	for _, part := range strings.Split(s, ",") {
		number, percent := strings.CutSuffix(strings.TrimSpace(part), "%")
		n, err := strconv.Atoi(number)
		if err != nil || n <= 0 {
			return nil, usage("stage %q: a number of devices or a percentage wanted", part)
		}
		if percent {
			out = append(out, fleet.StageSpec{Percent: n})
			continue
		}
		out = append(out, fleet.StageSpec{Count: n})
	}
	return out, nil
}

func (c *cli) rolloutListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List rollouts, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rs, err := all[rolloutview.View](cmd.Context(), c, "/v1/rollouts", url.Values{})
			if err != nil {
				return err
			}
			return c.print(rs, func(w io.Writer) {
				fmt.Fprintln(w, "ROLLOUT\tRELEASE\tSTATUS\tSTAGE\tGOOD\tFAILED\tAGE\tWHY")
				for _, r := range rs {
					fmt.Fprintf(w, "%s\t%s@%s\t%s\t%s\t%d of %d\t%d\t%s\t%s\n", r.ID, r.Spec.Model, r.Spec.Version, r.Status, r.StageName(), r.Counts.Good, r.Devices, r.Counts.Failed, say.Age(time.Since(r.Created)), say.Dash(r.Why()))
				}
			})
		},
	}
}

func (c *cli) rolloutShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ROLLOUT", Short: "Show stages, counts and what the devices said", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			var r rolloutview.View
			path := "/v1/rollouts/" + url.PathEscape(args[0])
			if err := api.Call(cmd.Context(), http.MethodGet, path, nil, &r); err != nil {
				return err
			}
			type member struct {
				Device  string `json:"device"`
				Class   string `json:"class"`
				Stage   int    `json:"stage"`
				Control bool   `json:"control"`
				Outcome string `json:"outcome,omitempty"`
				Code    string `json:"code,omitempty"`
				Reason  string `json:"reason,omitempty"`
				Undone  string `json:"undone,omitempty"`
				Back    bool   `json:"back,omitempty"`
			}
			ms, err := all[member](cmd.Context(), c, path+"/members", url.Values{})
			if err != nil {
				return err
			}
			return c.print(map[string]any{"rollout": r, "members": ms}, func(w io.Writer) {
				fmt.Fprintf(w, "rollout\t%s\nrelease\t%s@%s in %s\nto\t%s\nstatus\t%s\nwhy\t%s\n", r.ID, r.Spec.Model, r.Spec.Version, r.Spec.Channel, say.Dash(r.Spec.Selector), r.Status, say.Dash(r.Why()))
				for _, st := range r.Stages {
					fmt.Fprintf(w, "%s\t%d of %d good\t%s\n", st.Name(), st.Good, st.Target, st.State(r.Over()))
				}
				r.PrintGates(w)
				fmt.Fprintln(w, "\nDEVICE\tCLASS\tSTAGE\tOUTCOME\tWHY")
				for _, m := range ms {
					outcome := say.Dash(m.Outcome)
					switch {
					case m.Back:
						outcome += ", back"
					case m.Undone != "":
						outcome += ", on the way back"
					}
					fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", m.Device, say.Plain(m.Class), m.Stage+1, outcome, say.Dash(say.Plain(strings.TrimSpace(m.Code+" "+m.Reason))))
				}
			})
		},
	}
}

func (c *cli) rolloutWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use: "watch ROLLOUT", Short: "Follow a rollout until it ends; exit 0 only when it completed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.watch(cmd.Context(), args[0]) },
	}
}

// Exit codes of watch.
const (
	exitNotCompleted = 3
	exitInterrupted  = 130
)

// watchRetries is how often in a row a broken stream is taken up again.
const watchRetries = 30

// watch prints a line for each change until the rollout has ended.
func (c *cli) watch(ctx context.Context, id string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	var last rolloutview.View
	printed := ""
	for tries := 0; ; tries++ {
		err := api.Events(ctx, "/v1/rollouts/"+url.PathEscape(id)+"/watch", func(data []byte) error {
			tries = 0
			last = rolloutview.View{}
			if err := json.Unmarshal(data, &last); err != nil {
				return fmt.Errorf("read the server's event: %w", err)
			}
			if c.screen(&last) {
				return nil
			}
			if line := last.Line(); line != printed {
				printed = line
				c.printProgress(&last, line)
			}
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return exitError(exitInterrupted)
		case last.Status == fleet.RolloutCompleted:
			return nil
		case last.Over():
			return exitError(exitNotCompleted)
		}
		var refused *fleet.Error
		if errors.As(err, &refused) && refused.Status != 0 || tries >= watchRetries {
			return err
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (c *cli) printProgress(r *rolloutview.View, line string) {
	if c.output == "json" {
		json.NewEncoder(c.out).Encode(r)
		return
	}
	fmt.Fprintf(c.out, "%s  %s\n", time.Now().Format(time.TimeOnly), line)
}

// settle follows an aborted rollout until every device that was at work has
// acknowledged its former wish.
func (c *cli) settle(ctx context.Context, api remote.API, id string) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for printed := ""; ; {
		var r rolloutview.View
		if err := api.Call(ctx, http.MethodGet, "/v1/rollouts/"+url.PathEscape(id), nil, &r); err != nil {
			return err
		}
		if line := r.Line(); line != printed {
			printed = line
			c.printProgress(&r, line)
		}
		if r.Counts.Assigned+r.Counts.Working+r.Counts.Leaving == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return exitError(exitInterrupted)
		case <-tick.C:
		}
	}
}

func (c *cli) rolloutSteerCmd(verb, short string) *cobra.Command {
	var reason string
	var wait bool
	cmd := &cobra.Command{
		Use: verb + " ROLLOUT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			var r rolloutview.View
			if err := api.Call(cmd.Context(), http.MethodPost, "/v1/rollouts/"+url.PathEscape(args[0])+"/"+verb, map[string]string{"reason": reason}, &r); err != nil {
				return err
			}
			switch {
			case wait && verb == "abort":
				return c.settle(cmd.Context(), api, args[0])
			case wait && verb == "revert":
				return c.home(cmd.Context(), args[0])
			case wait:
				return c.watch(cmd.Context(), args[0])
			}
			return c.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\n", r.ID, r.Line()) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	switch verb {
	case "abort":
		cmd.Flags().BoolVar(&wait, "wait", false, "show progress until every device that was at work is back at its former wish")
	case "revert":
		cmd.Flags().BoolVar(&wait, "wait", false, "show progress until every device has said that it is back")
	case "resume":
		cmd.Flags().BoolVar(&wait, "wait", false, "show progress and exit 0 only when the rollout completed")
	}
	return cmd
}
