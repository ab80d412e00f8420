package main

import (
	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/bundles"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/truths"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/watching"
)

func (c *cli) modelCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Pack, judge, publish and list models"}
	alone := &bundles.Commands{Err: c.err, Getenv: c.getenv, Print: c.print, Asker: c.asker,
		Passphrase: func(file, whose string) func(bool) ([]byte, error) { return c.passphrase(file, whose) }}
	cmd.AddCommand(alone.List()...)
	cmd.AddCommand(c.modelPublishCmd(), c.modelSignCmd(), c.modelPromoteCmd(), c.modelStatusCmd(), c.modelListCmd(), c.modelShowCmd(), (&watching.Commands{Print: c.print, API: c.api}).Drift())
	cmd.AddCommand((&truths.Commands{Print: c.print, API: c.api}).Command())
	return cmd
}
