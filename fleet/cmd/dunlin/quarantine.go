package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

func (c *cli) quarantinesCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "quarantines", Short: "List releases that are kept from devices since a gate failed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			var page struct {
				Items []fleet.Quarantine `json:"items"`
			}
			if err := api.Call(cmd.Context(), http.MethodGet, fmt.Sprintf("/v1/quarantines?released=%v", all), nil, &page); err != nil {
				return err
			}
			return c.print(page.Items, func(w io.Writer) {
				fmt.Fprintln(w, "QUARANTINE\tRELEASE\tCLASS\tAGE\tWHY\tLET GO")
				for _, q := range page.Items {
					gone := ""
					if !q.Released.IsZero() {
						gone = q.By + ": " + q.Why
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", q.ID, q.Path, say.Plain(cmp.Or(q.Class, "every one")), say.Age(time.Since(q.Since)), say.Plain(q.Reason), say.Dash(say.Plain(gone)))
				}
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that were let go")
	return cmd
}

func (c *cli) releaseCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "release QUARANTINE", Short: "Let a release out of quarantine, with a reason", Args: cobra.ExactArgs(1),
		Example: "  dunlin rollout release qua_01KA… --reason 'the kiosk was covered by a poster'",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			if err := api.Call(cmd.Context(), http.MethodPost, "/v1/quarantines/"+url.PathEscape(args[0])+"/release", map[string]string{"reason": reason}, nil); err != nil {
				return err
			}
			return c.print(map[string]string{"released": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s\tlet go; devices that refused the release try it again under a higher --attempt\n", args[0])
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why it may go out again, for the audit")
	return cmd
}
