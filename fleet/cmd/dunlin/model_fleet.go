package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

type releaseView struct {
	Path      string    `json:"path"`
	Channel   string    `json:"channel"`
	Model     string    `json:"model"`
	Version   string    `json:"version"`
	Kind      string    `json:"kind"`
	Counter   int64     `json:"counter"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Published time.Time `json:"published"`
}

func (c *cli) modelListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List models with their newest release in each channel", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.releases(cmd, "/v1/models", url.Values{})
		},
	}
}

func (c *cli) modelShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL", Short: "List the releases of a model", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.releases(cmd, "/v1/models/"+url.PathEscape(args[0]), url.Values{})
		},
	}
}

func (c *cli) releases(cmd *cobra.Command, path string, q url.Values) error {
	rs, err := all[releaseView](cmd.Context(), c, path, q)
	if err != nil {
		return err
	}
	return c.print(rs, func(w io.Writer) {
		fmt.Fprintln(w, "MODEL\tVERSION\tCHANNEL\tCOUNTER\tKIND\tBYTES\tDIGEST\tPUBLISHED")
		for _, r := range rs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s ago\n", r.Model, r.Version, r.Channel, r.Counter, r.Kind, r.Size, shortDigest(r.Digest), say.Age(time.Since(r.Published)))
		}
	})
}

// shortDigest keeps the ends of a digest.
func shortDigest(d string) string {
	const prefix = len("sha256:")
	if len(d) < prefix+12 {
		return d
	}
	return d[prefix:prefix+8] + "…" + d[len(d)-4:]
}
