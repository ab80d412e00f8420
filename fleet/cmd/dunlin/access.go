package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

type accessView struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Token   string     `json:"token,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

func (c *cli) accessCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "Make, list and end API tokens"}
	cmd.AddCommand(c.accessCreateCmd(), c.accessListCmd(), c.accessDeleteCmd())
	return cmd
}

func (c *cli) accessCreateCmd() *cobra.Command {
	var role string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an API token; it is shown once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			in := map[string]any{"name": args[0], "role": role}
			if expires > 0 {
				in["expires"] = fleet.Duration(expires)
			}
			var x accessView
			if err := api.Create(cmd.Context(), "/v1/access", "", in, &x); err != nil {
				return err
			}
			return c.print(x, func(w io.Writer) { fmt.Fprintf(w, "%s\n  %s, role %s; shown once\n", x.Token, x.ID, x.Role) })
		},
	}
	cmd.Flags().StringVar(&role, "role", fleet.RoleViewer, "viewer, operator, publisher or admin")
	cmd.Flags().DurationVar(&expires, "expires", 0, "for how long (default for ever)")
	return cmd
}

func (c *cli) accessListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List API tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			xs, err := all[accessView](cmd.Context(), c, "/v1/access", url.Values{})
			if err != nil {
				return err
			}
			return c.print(xs, func(w io.Writer) {
				fmt.Fprintln(w, "ACCESS\tNAME\tROLE\tAGE")
				for _, x := range xs {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.ID, x.Name, x.Role, say.Age(time.Since(x.Created)))
				}
			})
		},
	}
}

func (c *cli) accessDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "delete ACCESS", Short: "End an API token", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			return api.Call(cmd.Context(), http.MethodDelete, "/v1/access/"+url.PathEscape(args[0]), nil, nil)
		},
	}
}
