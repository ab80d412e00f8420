package main

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/bundles"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

func (c *cli) modelPublishCmd() *cobra.Command {
	var keys []string
	var root, passphraseFile string
	var require bundles.RequireFlag
	conf := publish.ReleaseConfig{}
	cmd := &cobra.Command{
		Use:   "publish DIR --channel CHANNEL --key FILE...",
		Short: "Sign a bundle under a channel and bring it to the server",
		Long: "Signs the bundle in DIR as the next release of its model in a channel, and uploads it. The signatures\n" +
			"are made here; the server's catalog is checked up to the root of the ceremony before anything is signed.",
		Example: "  dunlin model publish meter-digits-1.1.0 --channel production \\\n" +
			"    --key ceremony/keys/alice-release.pem --key ceremony/keys/bob-release.pem",
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
			root = cmp.Or(root, c.getenv("DUNLIN_ROOT"), filepath.Join(filepath.Dir(keys[0]), "..", "catalog-root.json"))
			if conf.Trust, err = publish.ReadTrust(root, filepath.Dir(root)); err != nil {
				return err
			}
			for _, file := range keys {
				k, err := publish.LoadKey(file, c.passphrase(passphraseFile, file))
				if err != nil {
					return err
				}
				conf.Keys = append(conf.Keys, k)
			}
			p, err := client.Publish(cmd.Context(), conf, time.Now())
			if err != nil {
				return err
			}
			return c.printPublished(p)
		},
	}
	require.Add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&conf.Channel, "channel", "", "dev, staging or production")
	flags.StringArrayVar(&keys, "key", nil, "release key of a holder; once for every signature")
	flags.Int64Var(&conf.Floor, "floor", 0, "from now on no release of this model with a lower counter may be activated")
	flags.BoolVar(&conf.Force, "force", false, "publish although file and contract disagree; devices will judge")
	flags.StringVar(&root, "root", "", "the ceremony's catalog-root.json (DUNLIN_ROOT; default beside the folder of the first key)")
	flags.StringVar(&passphraseFile, "passphrase-file", "", "file with the keys' passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
	cmd.MarkFlagRequired("channel")
	cmd.MarkFlagRequired("key")
	return cmd
}

func (c *cli) printPublished(p *publish.Published) error {
	return c.print(p, func(w io.Writer) {
		if p.Already {
			fmt.Fprintf(w, "already published\t%s\ndigest\t%s\ncounter\t%d\n", p.Path, p.Digest, p.Counter)
			return
		}
		fmt.Fprintf(w, "published\t%s\ndigest\t%s\ncounter\t%d\n", p.Path, p.Digest, p.Counter)
		if p.Floor > 0 {
			fmt.Fprintf(w, "floor\t%d\n", p.Floor)
		}
		fmt.Fprintf(w, "signed by\t%s\nuploaded\t%d blobs\n", strings.Join(p.Signers, ", "), p.Uploaded)
	})
}
