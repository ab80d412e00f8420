// Package watching holds the commands of dunlin about what devices see.
package watching

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

// Commands is what these commands take from the program.
type Commands struct {
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// API reaches the server.
	API func() (remote.API, error)
}

// Drift returns 'dunlin model drift'.
func (c *Commands) Drift() *cobra.Command {
	var by string
	var since time.Duration
	cmd := &cobra.Command{
		Use: "drift MODEL", Short: "Compare what devices see with what a model was made for", Args: cobra.ExactArgs(1),
		Long: `Compare what devices see with what a model was made for.

Adds up the measurements of all devices and compares their scores, classes,
entropy and inputs with the reference in each release's contract. A group 'drifts'
when a difference both matters (PSI of 0.2 or more) and is more than chance; with
'too few' values such a difference could not be told from chance. Devices that
differ far more from the others than is usual among them are named.`,
		Example: "  dunlin model drift meter-digits --by site\n  dunlin model drift meter-digits --by device --since 1h -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if since < time.Minute {
				return &fleet.Error{Code: "usage.since", Message: fmt.Sprintf("--since %v is too short", since), Next: "pass at least 1m; windows are 60 s long during a rollout, an hour otherwise"}
			}
			api, err := c.API()
			if err != nil {
				return err
			}
			q := url.Values{"by": {by}, "since": {strconv.FormatInt(int64(since/time.Second), 10)}}
			var d fleet.Drift
			if err := api.Call(cmd.Context(), http.MethodGet, "/v1/models/"+url.PathEscape(args[0])+"/drift?"+q.Encode(), nil, &d); err != nil {
				return err
			}
			return c.Print(&d, func(w io.Writer) { table(w, &d) })
		},
	}
	cmd.Flags().StringVar(&by, "by", "version", "what groups have in common: version, device, class, or a label like site")
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back, like 1h")
	return cmd
}

func table(w io.Writer, d *fleet.Drift) {
	if len(d.Groups) == 0 {
		fmt.Fprintf(w, "no measurements of %s since %s\n", d.Model, d.Since.Format(time.RFC3339))
	} else {
		fmt.Fprintln(w, "GROUP\tVERSION\tDEVICES\tREQUESTS\tMEASURE\tN\tPSI\tCHANCE\tJS\tP\tVERDICT\t")
	}
	for _, g := range d.Groups {
		head := fmt.Sprintf("%s\t%s\t%d\t%d", say.Dash(say.Plain(g.Group)), say.Plain(g.Version), g.Devices, g.Requests)
		if len(g.Measures) == 0 {
			fmt.Fprintf(w, "%s\t–\t\t\t\t\t\t%s\tnothing is watched\n", head, g.Verdict)
		}
		for _, m := range g.Measures {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", head, m.Measure, m.Live, figure(m.PSI, m), figure(m.Threshold, m), figure(m.JS, m), chance(m), m.Verdict, say.Plain(m.Says))
			head = "\t\t\t"
		}
	}
	for _, o := range d.Outliers {
		fmt.Fprintf(w, "odd one out: %s (%s), %s is %.2f from the others, usual is %.2f\n", o.Device, say.Plain(o.Path), o.Measure, o.Distance, o.Usual)
	}
	if d.LeftOut > 0 {
		fmt.Fprintf(w, "left out: %d windows that do not fit a published release\n", d.LeftOut)
	}
}

// figure is a measure of distance, a dash where there is none.
func figure(v float64, m fleet.DriftMeasure) string {
	if m.Verdict == fleet.DriftUnknown || m.Measure == "errors" {
		return "–"
	}
	return fmt.Sprintf("%.3f", v)
}

func chance(m fleet.DriftMeasure) string {
	switch {
	case m.Verdict == fleet.DriftUnknown:
		return "–"
	case m.P < 1e-6:
		return "<1e-6"
	}
	return fmt.Sprintf("%.2g", m.P)
}
