package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/bundles"
	"github.com/dunlin-edge/dunlin/fleet/kms"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// signing is what every command takes that signs for a channel.
type signing struct {
	keys                           []string
	root, passphraseFile, proposal string
}

func (s *signing) add(cmd *cobra.Command) {
	s.addRoot(cmd)
	cmd.Flags().StringArrayVar(&s.keys, "key", nil, "release key: a holder's file, or NAME://KEY of the plug-in "+kms.Prefix+"NAME; once for every signature")
	cmd.Flags().StringVar(&s.passphraseFile, "passphrase-file", "", "file with the keys' passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
}

func (s *signing) addRoot(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.root, "root", "", "the ceremony's catalog-root.json (DUNLIN_ROOT; default beside the folder of the first key)")
}

func (s *signing) addProposal(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.proposal, "proposal", "", "file to write if signatures are missing, for other holders to sign")
}

// trust is where the publisher's own trust begins.
func (c *cli) trust(s *signing) (*publish.Trust, error) {
	root := cmp.Or(s.root, c.getenv("DUNLIN_ROOT"))
	for _, k := range s.keys {
		if root == "" && !kms.IsReference(k) {
			root = filepath.Join(filepath.Dir(k), "..", "catalog-root.json")
		}
	}
	if root == "" {
		return nil, &fleet.Error{Code: "publish.root", Message: "it is not said which root is trusted", Next: "pass --root with the catalog-root.json of the ceremony, or set DUNLIN_ROOT"}
	}
	return publish.ReadTrust(root, filepath.Dir(root))
}

// open opens all keys; the same passphrase may be asked for once for each.
func (c *cli) open(s *signing) ([]*offline.Key, error) {
	var keys []*offline.Key
	for _, where := range s.keys {
		k, err := offline.LoadKey(where, c.passphrase(s.passphraseFile, where))
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (c *cli) modelPublishCmd() *cobra.Command {
	var s signing
	var require bundles.RequireFlag
	conf := publish.ReleaseConfig{}
	cmd := &cobra.Command{
		Use:   "publish DIR --channel CHANNEL --key KEY...",
		Short: "Sign a bundle under a channel and bring it to the server",
		Long: "Signs the bundle in DIR as the next release of its model in a channel, and uploads it. The signatures\n" +
			"are made here; the server's catalog is checked up to the root of the ceremony before anything is signed.\n" +
			"With --proposal the signatures of a channel that wants several may be made one at a time, in several\n" +
			"places: the file goes from holder to holder, who run 'dunlin model sign'.",
		Example: "  dunlin model publish meter-digits-1.1.0 --channel production \\\n" +
			"    --key ceremony/keys/alice-release.pem --key ceremony/keys/bob-release.pem\n" +
			"  dunlin model publish meter-digits-1.1.0 --channel production --key yubikey://slot-9c --proposal release.json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf.Dir = args[0]
			if _, err := bundles.Open(conf.Dir); err != nil {
				return err
			}
			var err error
			if conf.Signature, err = require.Policy(); err != nil {
				return err
			}
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
			if s.proposal == "" {
				p, err := client.Publish(cmd.Context(), conf, time.Now())
				if err != nil {
					return err
				}
				return c.printPublished(p, "")
			}
			p, prop, err := client.Propose(cmd.Context(), conf, time.Now())
			if err != nil {
				return err
			}
			return c.finish(cmd, client, p, prop, s.proposal)
		},
	}
	require.Add(cmd)
	s.add(cmd)
	s.addProposal(cmd)
	flags := cmd.Flags()
	flags.StringVar(&conf.Channel, "channel", "", "dev, staging or production")
	flags.Int64Var(&conf.Floor, "floor", 0, "from now on no release of this model with a lower counter may be activated")
	flags.BoolVar(&conf.Force, "force", false, "publish although file and contract disagree; devices will judge")
	cmd.MarkFlagRequired("channel")
	cmd.MarkFlagRequired("key")
	return cmd
}

// finish publishes a proposal that has its signatures and writes another to a file;
// a proposal of nil was published before.
func (c *cli) finish(cmd *cobra.Command, client *publish.Client, p *publish.Published, prop *publish.Proposal, file string) error {
	if prop == nil {
		return c.printPublished(p, "")
	}
	if p.Signing.Missing > 0 && file != "" {
		if _, err := os.Lstat(file); err == nil {
			return &fleet.Error{Code: "proposal.exists", Message: file + " exists already", Next: "choose another --proposal"}
		}
		if err := prop.Write(file); err != nil {
			return err
		}
		return c.printPublished(p, file)
	}
	if err := client.Complete(cmd.Context(), prop); err != nil {
		return err
	}
	return c.printPublished(p, "")
}

// publishedView is what -o json prints.
type publishedView struct {
	*publish.Published
	State    string `json:"state"` // published, waiting
	Proposal string `json:"proposal,omitempty"`
}

func (c *cli) printPublished(p *publish.Published, proposal string) error {
	view := publishedView{p, "published", proposal}
	if proposal != "" {
		view.State = "waiting"
	}
	return c.print(view, func(w io.Writer) {
		if p.Already {
			fmt.Fprintf(w, "already published\t%s\ndigest\t%s\ncounter\t%d\n", p.Path, p.Digest, p.Counter)
			return
		}
		fmt.Fprintf(w, "%s\t%s\ndigest\t%s\ncounter\t%d\n", view.State, p.Path, p.Digest, p.Counter)
		if p.Floor > 0 {
			fmt.Fprintf(w, "floor\t%d\n", p.Floor)
		}
		fmt.Fprintf(w, "signed by\t%s\nuploaded\t%d blobs\n", orDash(p.Signers), p.Uploaded)
		if proposal != "" {
			fmt.Fprintf(w, "missing\t%d of: %s\nnext\tgive %s to one of them, who runs 'dunlin model sign %s --key KEY'\n", p.Signing.Missing, strings.Join(p.Signing.Open, ", "), proposal, proposal)
		}
	})
}
