package devices

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

func (c *Commands) whyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "why DEVICE [MODEL]", Short: "Say what keeps a device from running something else, and who can change that", Args: cobra.RangeArgs(1, 2),
		Example: "  dunlin device why meter-7 meter-digits",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			path := "/v1/devices/" + url.PathEscape(args[0]) + "/why"
			if len(args) == 2 {
				path += "?model=" + url.QueryEscape(args[1])
			}
			var page struct {
				Items []fleet.Why `json:"items"`
			}
			if err := api.Call(cmd.Context(), http.MethodGet, path, nil, &page); err != nil {
				return err
			}
			return c.Print(page.Items, func(w io.Writer) { explain(w, page.Items) })
		},
	}
}

func explain(w io.Writer, ws []fleet.Why) {
	if len(ws) == 0 {
		fmt.Fprintln(w, "it serves no model and is to serve none")
	}
	for i, x := range ws {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "model\t%s\nruns\t%s\nwished\t%s\nrollout\t%s\n", x.Model, say.Dash(say.Plain(x.Runs)), say.Dash(x.Wished), say.Dash(x.Rollout))
		for _, r := range x.Rules {
			sign := "ok"
			if !r.Holds {
				sign = "BLOCKS"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Rule, sign, say.Plain(r.Says))
		}
		if x.Blocker == nil {
			fmt.Fprintln(w, "nothing stands in the way")
			continue
		}
		fmt.Fprintf(w, "who can change that\t%s\n", x.Blocker.Who)
	}
}
