// Package truths holds the command of dunlin that shows what applications said of a
// model's answers.
package truths

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

// Commands is what the command takes from the program.
type Commands struct {
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// API reaches the server.
	API func() (remote.API, error)
}

// Command returns 'dunlin model truth'.
func (c *Commands) Command() *cobra.Command {
	var by string
	var hours int
	cmd := &cobra.Command{
		Use: "truth MODEL", Short: "Show how often a model's answers were right, as applications told later", Args: cobra.ExactArgs(1),
		Long: `Show how often a model's answers were right, as applications told later.

Applications on devices send POST /v1/feedback with an answer's id, and measures of
their own with POST /v1/metrics; see docs/truth.md. The least accurate come first.`,
		Example: "  dunlin model truth meter-digits --by site --hours 24",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			var t fleet.Truth
			q := url.Values{"by": {by}, "hours": {strconv.Itoa(hours)}}
			if err := api.Call(cmd.Context(), http.MethodGet, "/v1/models/"+url.PathEscape(args[0])+"/truth?"+q.Encode(), nil, &t); err != nil {
				return err
			}
			return c.Print(&t, func(w io.Writer) { table(w, &t) })
		},
	}
	cmd.Flags().StringVar(&by, "by", "version", "version, device, class, or the key of a label or fact")
	cmd.Flags().IntVar(&hours, "hours", 168, "how far back, 1 to 744")
	return cmd
}

func table(w io.Writer, t *fleet.Truth) {
	if len(t.Groups) == 0 {
		fmt.Fprintf(w, "nothing was said of %s's answers since %s\n", t.Model, t.Since.Format("2006-01-02 15:04"))
		return
	}
	fmt.Fprintf(w, "%s\tVERSION\tDEVICES\tREQUESTS\tRIGHT\tWRONG\tACCURACY\t95 %%\tLATE\tCONFUSED (right as answered)\n", strings.ToUpper(say.Plain(t.By)))
	for _, g := range t.Groups {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%d\t%s\n", say.Dash(say.Plain(g.Group)), say.Plain(g.Version), g.Devices, g.Requests, g.Right, g.Wrong, accuracy(&g), g.Late, confused(&g))
	}
	for _, g := range t.Groups {
		for _, m := range g.Metrics {
			fmt.Fprintf(w, "%s\t%s\tmetric %s\t%d values\tmean %.4g\tsd %.4g\tmin %.4g\tmax %.4g\t\t\n", say.Dash(say.Plain(g.Group)), say.Plain(g.Version), say.Plain(m.Name), m.Count, m.Mean, m.SD, m.Min, m.Max)
		}
	}
}

func accuracy(g *fleet.TruthGroup) string {
	if g.Right+g.Wrong == 0 {
		return "-\t-"
	}
	return fmt.Sprintf("%.1f %%\t%.1f-%.1f", 100*g.Accuracy, 100*g.Low, 100*g.High)
}

func confused(g *fleet.TruthGroup) string {
	const most = 3
	var out []string
	for _, c := range g.Confused[:min(len(g.Confused), most)] {
		out = append(out, fmt.Sprintf("%d as %d: %d", c.Right, c.Answered, c.Count))
	}
	return say.Dash(strings.Join(out, ", "))
}
