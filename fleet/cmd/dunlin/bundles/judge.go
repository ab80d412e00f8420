package bundles

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
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func (c *Commands) packCmd() *cobra.Command {
	var out string
	var force bool
	var runtime pack.RuntimeConfig
	var sign signFlags
	var require RequireFlag
	cmd := &cobra.Command{
		Use:   "pack [FOLDER]",
		Short: "Make a bundle of a model and its model.yaml, or of a runtime library",
		Long: "Makes an OCI image layout of a folder with model.yaml and the files that it names.\n" +
			"Shapes, types and quantization come from the model file; what only you know is asked for.\n" +
			"With --runtime it makes one of a LiteRT library instead.\n" +
			"The bundle carries an OpenSSF model signature over all its files, by --sign-key.",
		Example: "  dunlin model pack models/meter-digits\n  dunlin model pack --runtime libLiteRt.so --version 2.3.0",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := require.Policy()
			if err != nil {
				return err
			}
			var plan *pack.Plan
			if runtime.Library != "" {
				plan, err = pack.Runtime(runtime)
			} else {
				plan, err = pack.Model(pack.Config{Dir: cmp.Or(strings.Join(args, ""), "."), Asker: c.Asker(), Force: force, Signature: policy, Now: time.Now()})
			}
			if err != nil {
				return err
			}
			if err := c.sign(plan, &sign); err != nil {
				return err
			}
			out = cmp.Or(out, plan.Contract.Model+"-"+plan.Contract.Version)
			if err := plan.Write(out); err != nil {
				return err
			}
			return c.printBundle(out, plan.Digest, plan.Manifest, plan.Contract, nil)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder to write (default MODEL-VERSION)")
	cmd.Flags().BoolVar(&force, "force", false, "pack although model.yaml and the file disagree; devices will judge")
	cmd.Flags().StringVar(&runtime.Library, "runtime", "", "pack this LiteRT library instead of a model")
	cmd.Flags().StringVar(&runtime.Version, "version", "", "version of the runtime library")
	cmd.Flags().StringVar(&runtime.Arch, "arch", "", "architecture that the library must be for, as Go names it")
	sign.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("unsigned", "sign-key")
	cmd.MarkFlagsMutuallyExclusive("unsigned", "sign-cert")
	require.Add(cmd)
	cmd.MarkFlagsMutuallyExclusive("runtime", "require-signature")
	return cmd
}

func (c *Commands) verifyCmd() *cobra.Command {
	var require RequireFlag
	var signature string
	var unsigned []string
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Check a bundle or a .tflite file: every digest, the contract, the model, the golden cases",
		Long: "Checks a bundle or a .tflite file. With --require-signature it verifies an OpenSSF model signature,\n" +
			"of a bundle or of any folder with a model in it.",
		Example: "  dunlin model verify meter-digits-1.1.0\n  dunlin model verify downloads/resnet --require-signature key=vendor.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := args[0]
			policy, err := require.Policy()
			if err != nil {
				return err
			}
			if policy != nil {
				return c.verifySignature(path, signature, policy, unsigned)
			}
			if signature != "" || len(unsigned) > 0 {
				return &fleet.Error{Code: modelsig.CodePolicy, Message: "it is not said whose signature that must be", Next: "pass --require-signature too"}
			}
			if isFile(path) {
				return c.verifyFile(path)
			}
			b, err := c.verifyBundle(path)
			if err != nil {
				return err
			}
			return c.Print(map[string]any{"path": path, "digest": b.Digest, "files": len(b.Manifest.Layers), "bytes": b.Manifest.Size(), "ok": true}, func(w io.Writer) {
				fmt.Fprintf(w, "ok: %s %s, %d files, %d bytes, %s\n", b.Contract.Model, b.Contract.Version, len(b.Manifest.Layers), b.Manifest.Size(), b.Digest)
			})
		},
	}
	require.Add(cmd)
	cmd.Flags().StringVar(&signature, "signature", "", "the signature's file, of a folder (default "+modelsig.Name+" in it)")
	cmd.Flags().StringArrayVar(&unsigned, "unsigned", nil, "path in the folder that may be there without the signer knowing it; once for each")
	return cmd
}

// verifyBundle opens a bundle and checks all of it.
func (c *Commands) verifyBundle(dir string) (*bundle.Bundle, error) {
	b, err := Open(dir)
	if err != nil {
		return nil, err
	}
	if err := b.Verify(); err != nil {
		return nil, err
	}
	return b, b.Check()
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// openBundle opens the layout in a folder.
func Open(dir string) (*bundle.Bundle, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, &fleet.Error{Code: "bundle.unknown", Message: err.Error(), Next: "name the folder that 'dunlin model pack' wrote"}
	}
	return bundle.OpenLayout(os.DirFS(filepath.Clean(dir)))
}

func (c *Commands) verifyFile(path string) error {
	v, err := readModel(path)
	if err != nil {
		return err
	}
	if len(v.Problems) > 0 {
		return &fleet.Error{Code: bundle.CodeModelCheck, Message: path + ": " + strings.Join(v.Problems, "; "), Next: "export the model again without these operators or tensors"}
	}
	return c.Print(map[string]any{"path": path, "bytes": v.Bytes, "ok": true}, func(w io.Writer) {
		fmt.Fprintf(w, "ok: %s, %d bytes\n", path, v.Bytes)
	})
}
