package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/amend"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

func (c *cli) keysTeamCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "team", Short: "Give models to a team of holders, who alone sign their releases",
		Long: "A team is some of the holders, a number of whom must sign, for some models of one channel. Devices take\n" +
			"these models from nobody else, the channel's other holders included. What was published of them stays.",
	}
	cmd.AddCommand(c.keysTeamAddCmd(), c.keysTeamRemoveCmd())
	return cmd
}

func (c *cli) keysTeamAddCmd() *cobra.Command {
	var k keyFlags
	var t publish.Team
	cmd := &cobra.Command{
		Use: "add NAME --channel CHANNEL --models A,B --holders X,Y --threshold N --dir DIR", Short: "Add a team, before the first signature of a ceremony or by an amendment",
		Example: "  dunlin keys team add vision --channel production --models gate,counter --holders ada,ben --threshold 2 --dir ceremony",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.Name = args[0]
			begun, err := publish.Begun(k.dir)
			if err != nil {
				return err
			}
			if begun {
				return c.teamAct(cmd, &k, t)
			}
			if err := publish.AddTeam(k.dir, t); err != nil {
				return err
			}
			return c.print(t, func(w io.Writer) {
				fmt.Fprintf(w, "team %s signs for its models in %s\nnext: the holders run 'dunlin keys sign --dir %s --holder NAME'\n", t.Name, t.Channel, k.dir)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&t.Channel, "channel", "", "channel of the releases")
	flags.StringSliceVar(&t.Models, "models", nil, "models that the team signs")
	flags.StringSliceVar(&t.Members, "holders", nil, "holders who are in the team")
	flags.IntVar(&t.Threshold, "threshold", 2, "how many of them must sign")
	for _, name := range []string{"channel", "models", "holders"} {
		cmd.MarkFlagRequired(name)
	}
	k.add(cmd, false)
	return cmd
}

func (c *cli) keysTeamRemoveCmd() *cobra.Command {
	var k keyFlags
	var t publish.Team
	cmd := &cobra.Command{
		Use: "remove NAME --channel CHANNEL --dir DIR", Short: "End a team: the channel's holders sign its models again",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.Name = args[0]
			return c.teamAct(cmd, &k, t)
		},
	}
	cmd.Flags().StringVar(&t.Channel, "channel", "", "channel of the team")
	cmd.MarkFlagRequired("channel")
	k.add(cmd, false)
	return cmd
}

// teamAct begins the amendment by which a team begins or, without models, ends.
func (c *cli) teamAct(cmd *cobra.Command, k *keyFlags, t publish.Team) error {
	b, err := c.begin(cmd, k)
	if err != nil {
		return err
	}
	var a *amend.Amendment
	if a, err = b.Team(t); err != nil {
		return err
	}
	return c.begun(k, a, b.Passphrase)
}
