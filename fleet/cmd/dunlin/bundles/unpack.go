package bundles

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func (c *Commands) unpackCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "unpack BUNDLE",
		Short: "Write a bundle's files into a folder, for other tools to look at",
		Long: "Writes every file of a bundle under its own name, the contract and the signature included.\n" +
			"Others verify it there: model_signing verify key --signature DIR/" + modelsig.Name + " --public_key KEY.pub DIR",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := Open(args[0])
			if err != nil {
				return err
			}
			out = cmp.Or(out, b.Contract.Model+"-"+b.Contract.Version+"-files")
			if err := unpack(b, out); err != nil {
				return err
			}
			return c.Print(map[string]any{"folder": out, "digest": b.Digest, "files": len(b.Manifest.Layers)}, func(w io.Writer) {
				fmt.Fprintf(w, "folder\t%s\nfiles\t%d\n", out, len(b.Manifest.Layers))
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder to make (default MODEL-VERSION-files)")
	return cmd
}

// unpack writes a bundle's files into a folder that must not exist yet, each under
// its own path, verified while it is read: what others' tools look at.
func unpack(b *bundle.Bundle, dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return &fleet.Error{Code: "unpack.out", Message: dir + " exists already", Next: "pass another folder with --out"}
	}
	if err != nil {
		return err
	}
	for _, l := range b.Manifest.Layers {
		if err := unpackFile(b, l, filepath.Join(dir, filepath.FromSlash(l.Path()))); err != nil {
			return err
		}
	}
	return nil
}

func unpackFile(b *bundle.Bundle, l bundle.Descriptor, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r, err := b.Blob(l)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
