package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"github.com/dunlin-edge/dunlin/fleet/web"
)

func (c *cli) alarmsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "alarms", Short: "List what is wrong with the server and the fleet, the urgent first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			xs, err := all[web.AlarmView](cmd.Context(), c, "/v1/alarms", url.Values{})
			if err != nil {
				return err
			}
			return c.print(xs, func(w io.Writer) {
				if len(xs) == 0 {
					fmt.Fprintln(w, "nothing is wrong")
					return
				}
				fmt.Fprintln(w, "\tKIND\tSUBJECT\tAGE\tTEXT")
				for _, x := range xs {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", mark(x.Urgent), x.Kind, say.Plain(x.Subject), say.Age(time.Since(x.Since)), say.Plain(x.Text))
					fmt.Fprintf(w, "\t\t\t\tnext: %s\n", say.Plain(x.Next))
				}
			})
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "dismiss KIND SUBJECT", Short: "End an alarm; it comes back if its cause is still there", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			return api.Call(cmd.Context(), http.MethodDelete, "/v1/alarms/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1]), nil, nil)
		},
	})
	return cmd
}

// mark is what an alarm begins with.
func mark(urgent bool) string {
	if urgent {
		return "!"
	}
	return "-"
}
