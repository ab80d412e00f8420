package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
)

func (c *cli) keysModelSigningCmd() *cobra.Command {
	var out, passphraseFile string
	cmd := &cobra.Command{
		Use:   "model-signing --out FILE",
		Short: "Make a key that signs models for anybody to verify (OpenSSF Model Signing)",
		Long: "Makes a P-256 key in FILE, encrypted, and its public half in FILE.pub. 'dunlin model pack --sign-key FILE'\n" +
			"signs bundles with it. It is no part of the ceremony: what devices run is decided by the holders' keys.",
		Example: "  dunlin keys model-signing --out publisher.pem",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			private, public, err := modelsig.NewKey(c.passphrase(passphraseFile, out))
			if err != nil {
				return err
			}
			for _, f := range []struct {
				path string
				b    []byte
				mode fs.FileMode
			}{{out, private, 0o600}, {out + ".pub", public, 0o644}} {
				if err := writeNew(f.path, f.b, f.mode); err != nil {
					return err
				}
			}
			return c.print(map[string]any{"key": out, "public": out + ".pub"}, func(w io.Writer) {
				fmt.Fprintf(w, "key\t%s\npublic\t%s.pub\nnext: give the public half to those who verify, and pack with --sign-key %s\n", out, out, out)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "file with the passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
	cmd.MarkFlagRequired("out")
	return cmd
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return &fleet.Error{Code: "key.exists", Message: path + " exists already", Next: "choose another --out"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
