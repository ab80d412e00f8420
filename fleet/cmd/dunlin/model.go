package main

import "github.com/spf13/cobra"

func (c *cli) modelCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Pack, judge, publish and list models"}
	cmd.AddCommand(c.modelPackCmd(), c.modelInspectCmd(), c.modelVerifyCmd(), c.modelUnpackCmd(), c.modelPublishCmd(), c.modelListCmd(), c.modelShowCmd())
	return cmd
}
