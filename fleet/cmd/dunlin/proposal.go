package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/publish"
)

func (c *cli) modelSignCmd() *cobra.Command {
	var s signing
	var hold bool
	cmd := &cobra.Command{
		Use:   "sign PROPOSAL [--key KEY...]",
		Short: "Add signatures to a proposed release; the last that is needed publishes it",
		Long: "Reads the file that 'dunlin model publish --proposal' or 'promote --proposal' wrote, verifies it up to the\n" +
			"root of the ceremony, says what it changes and signs it. Once the channel's threshold is met it is\n" +
			"published. Without a server, or with --hold, the file is signed and nothing else happens; without a key\n" +
			"it is published if no signature is missing.",
		Example: "  dunlin model sign release.json --key ceremony/keys/bob-release.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			trust, err := c.trust(&s)
			if err != nil {
				return err
			}
			prop, err := publish.ReadProposal(args[0], trust, now)
			if err != nil {
				return err
			}
			if c.output != "json" { // before the passphrase is typed or the token touched
				if err := c.showProposal(args[0], prop, now, ""); err != nil {
					return err
				}
			}
			keys, err := c.open(&s)
			if err != nil {
				return err
			}
			if err := prop.Sign(keys); err != nil {
				return err
			}
			if err := prop.Write(args[0]); err != nil {
				return err
			}
			if len(keys) > 0 && prop.Signing().Missing > 0 || hold || c.server == "" {
				return c.showProposal(args[0], prop, now, "signed")
			}
			client, err := c.publisher()
			if err != nil {
				return err
			}
			if err := client.Complete(cmd.Context(), prop); err != nil {
				return err
			}
			return c.showProposal(args[0], prop, now, "published")
		},
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&hold, "hold", false, "do not publish even if no signature is missing")
	return cmd
}

// proposalView is what -o json prints.
type proposalView struct {
	File    string           `json:"file"`
	Channel string           `json:"channel"`
	Team    string           `json:"team,omitempty"`
	State   string           `json:"state"` // waiting, complete, published
	Changes []publish.Change `json:"changes"`
	Expires time.Time        `json:"expires"`
	*publish.Signing
}

// showProposal says what a proposal changes and who has signed it; done is what was
// just done with it.
func (c *cli) showProposal(file string, p *publish.Proposal, now time.Time, done string) error {
	changes, err := p.Changes(now)
	if err != nil {
		return err
	}
	v := proposalView{File: file, Channel: p.Channel, Team: p.Team, State: "waiting", Changes: changes, Expires: p.Expires(), Signing: p.Signing()}
	if v.Missing == 0 {
		v.State = "complete"
	}
	if done == "published" {
		v.State = done
	}
	return c.print(v, func(w io.Writer) {
		if done == "" || done == "status" {
			for _, x := range changes {
				if x.Path != "" {
					fmt.Fprintf(w, "adds\t%s\tcounter %d\t%s\n", x.Path, x.Counter, x.Digest)
				} else {
					fmt.Fprintf(w, "raises\tthe floor of %s\tto %d\n", x.Model, x.Floor)
				}
			}
			if len(changes) == 0 {
				fmt.Fprintf(w, "renews\t%s\tto %s\n", p.RoleName(), v.Expires.Format(time.DateOnly))
			}
		}
		if done == "" {
			return
		}
		fmt.Fprintf(w, "%s\t%s\nsigned by\t%s\nmissing\t%d of %d\n", v.State, p.RoleName(), orDash(v.By), v.Missing, v.Threshold)
		switch {
		case v.State == "complete":
			fmt.Fprintf(w, "next\trun 'dunlin model sign %s' where the server is reached\n", file)
		case v.Missing > 0:
			fmt.Fprintf(w, "could sign\t%s\nnext\tgive %s to one of them, who runs 'dunlin model sign %s --key KEY'\n", orDash(v.Open), file, file)
		}
	})
}

func (c *cli) modelPromoteCmd() *cobra.Command {
	var s signing
	conf := publish.PromoteConfig{}
	cmd := &cobra.Command{
		Use:   "promote MODEL VERSION --to CHANNEL --key KEY...",
		Short: "Put a release of one channel under the next, the same digest",
		Long: "Signs a release that is published in one channel under another; the bundle is not needed here. The keys\n" +
			"are those of the channel that it goes to.",
		Example: "  dunlin model promote meter-digits 1.1.0 --to staging --key ceremony/keys/alice-release.pem",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf.Model, conf.Version = args[0], args[1]
			client, err := c.publisher()
			if err != nil {
				return err
			}
			if conf.Trust, err = c.trust(&s); err != nil {
				return err
			}
			if conf.Keys, err = c.open(&s); err != nil {
				return err
			}
			p, prop, err := client.Promote(cmd.Context(), conf, time.Now())
			if err != nil {
				return err
			}
			return c.finish(cmd, client, p, prop, s.proposal)
		},
	}
	s.add(cmd)
	s.addProposal(cmd)
	flags := cmd.Flags()
	flags.StringVar(&conf.To, "to", "", "the channel that it goes to")
	flags.StringVar(&conf.From, "from", "", "the channel that it comes from (default the one before)")
	flags.Int64Var(&conf.Floor, "floor", 0, "from now on no release of this model with a lower counter may be activated there")
	cmd.MarkFlagRequired("to")
	cmd.MarkFlagRequired("key")
	return cmd
}

func (c *cli) modelStatusCmd() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use:   "status [PROPOSAL]",
		Short: "Show who has signed each channel, or a proposal, and who has not",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			trust, err := c.trust(&s)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				prop, err := publish.ReadProposal(args[0], trust, now)
				if err != nil {
					return err
				}
				return c.showProposal(args[0], prop, now, "status")
			}
			client, err := c.publisher()
			if err != nil {
				return err
			}
			list, err := client.Standings(cmd.Context(), trust)
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) {
				fmt.Fprintln(w, "ROLE\tVERSION\tRELEASES\tWANTS\tSIGNED BY\tCOULD SIGN\tEXPIRES")
				for _, x := range list {
					fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\tin %d days\n", x.Role(), x.Version, x.Releases, x.Threshold, orDash(x.By), orDash(x.Open), int(x.Expires.Sub(now).Hours()/24))
				}
			})
		},
	}
	s.addRoot(cmd)
	return cmd
}
