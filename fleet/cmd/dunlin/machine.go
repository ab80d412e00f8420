package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/publish"
)

func (c *cli) keysMachineCmd() *cobra.Command {
	var passphraseFile string
	conf := publish.MachineConfig{}
	cmd := &cobra.Command{
		Use:   "machine --dir DIR --name NAME --channel CHANNEL",
		Short: "Give a build server a key for one channel, before anything is signed",
		Long: "Makes a key that signs releases of one channel without a person: of dev or staging, never of production.\n" +
			"A build server publishes with it: 'dunlin model publish --key FILE', its passphrase in DUNLIN_PASSPHRASE.",
		Example: "  dunlin keys machine --dir ceremony --name ci --channel dev",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			conf.Passphrase = c.passphrase(passphraseFile, conf.Name)
			where, err := publish.AddMachine(conf)
			if err != nil {
				return err
			}
			return c.print(map[string]any{"name": conf.Name, "channel": conf.Channel, "key": where}, func(w io.Writer) {
				fmt.Fprintf(w, "%s signs for %s with %s\nnext: the holders run 'dunlin keys sign --dir %s --holder NAME' once all have joined\n", conf.Name, conf.Channel, where, conf.Dir)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&conf.Dir, "dir", "", "folder of the ceremony")
	flags.StringVar(&conf.Name, "name", "", "name of the machine")
	flags.StringVar(&conf.Channel, "channel", "", "the channel that it signs for")
	flags.StringVar(&conf.Key, "key", "", "key of a plug-in, as NAME://KEY; left out, one is made in the ceremony's folder")
	flags.StringVar(&passphraseFile, "passphrase-file", "", "file with the key's passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
	for _, name := range []string{"dir", "name", "channel"} {
		cmd.MarkFlagRequired(name)
	}
	return cmd
}
