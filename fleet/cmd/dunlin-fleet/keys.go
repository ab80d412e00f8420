package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/fleetd"
)

func keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Make the server's next online keys", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	p := &place{}
	cmd.AddCommand(p.flags(&cobra.Command{
		Use: "rotate [" + strings.Join(fleetd.OnlineRoles, "|") + "]…", Short: "Make the next key of some of the roles that the server signs, of all when none is named",
		Long: "The keys in use go on signing until the holders of the root keys have named the next ones:\n" +
			"'dunlin keys rotate online', signed and installed like any amendment. The server changes over in that moment.",
		Args: cobra.OnlyValidArgs, ValidArgs: fleetd.OnlineRoles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fleetd.RotateOnline(cmd.Context(), p.dir, args, time.Now()); err != nil {
				return err
			}
			return p.show(cmd.OutOrStdout(), map[string]any{"ready": true}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "the next keys are ready\nnext: the holders run 'dunlin keys rotate online --dir CEREMONY', sign and install")
				return err
			})
		},
	}))
	return cmd
}
