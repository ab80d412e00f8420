package bundles

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/modelview"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func (c *Commands) inspectCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect PATH",
		Short: "Show what a bundle or a .tflite file is",
		Long: "Shows inputs and outputs with type, shape, quantization and meaning, the operators with their versions,\n" +
			"the weights by type, the embedded metadata and labels, what runtime it needs, and what the static check found.",
		Example: "  dunlin model inspect meter-digits-1.1.0\n  dunlin model inspect model.tflite -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if isFile(args[0]) {
				v, err := readModel(args[0])
				if err != nil {
					return err
				}
				return c.Print(v, v.Table)
			}
			b, err := Open(args[0])
			if err != nil {
				return err
			}
			v, err := viewOf(b)
			if err != nil {
				return err
			}
			return c.printBundle(args[0], b.Digest, b.Manifest, b.Contract, v)
		},
	}
}

// readModel looks into a .tflite file.
func readModel(path string) (*modelview.View, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return view(path, b, nil)
}

// viewOf looks into a bundle's model file; nil of a runtime, and of a model that is no
// .tflite file because an outside service runs it.
func viewOf(b *bundle.Bundle) (*modelview.View, error) {
	c := b.Contract
	if c.Kind != bundle.KindModel || c.Serve == "external" {
		return nil, nil
	}
	file, err := b.ReadFile(c.File)
	if err != nil {
		return nil, err
	}
	return view(c.File, file, c)
}

func view(name string, file []byte, c *bundle.Contract) (*modelview.View, error) {
	v, err := modelview.Read(name, file, c)
	if err != nil {
		return nil, &fleet.Error{Code: bundle.CodeModelMalformed, Message: name + ": " + err.Error(), Next: "export the model again"}
	}
	return v, nil
}

// fileView and bundleView are what -o json prints.
type fileView struct {
	Path   string `json:"path"`
	Type   string `json:"media_type"`
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

type bundleView struct {
	Folder   string           `json:"folder"`
	Digest   string           `json:"digest"`
	Bytes    int64            `json:"bytes"`
	Files    []fileView       `json:"files"`
	Contract *bundle.Contract `json:"contract"`
	Model    *modelview.View  `json:"model,omitempty"` // what is in the model file; not of a runtime
}

// printBundle shows a bundle, and what is in its model file if a view of it is given.
func (c *Commands) printBundle(folder, digest string, m *bundle.Manifest, contract *bundle.Contract, model *modelview.View) error {
	view := bundleView{Folder: folder, Digest: digest, Bytes: m.Size(), Contract: contract, Model: model}
	for _, l := range m.Layers {
		view.Files = append(view.Files, fileView{l.Path(), l.MediaType, l.Digest, l.Size})
	}
	return c.Print(view, func(w io.Writer) {
		fmt.Fprintf(w, "%s\t%s %s\n", contract.Kind, contract.Model, contract.Version)
		fmt.Fprintf(w, "digest\t%s\nfolder\t%s\n", digest, folder)
		printNeeds(w, contract)
		modelview.Tensors(w, "input", contract.Inputs)
		modelview.Tensors(w, "output", contract.Outputs)
		printProof(w, contract)
		if model != nil {
			model.Inside(w)
		}
		fmt.Fprintf(w, "\nFILE\tBYTES\tDIGEST\n")
		for _, f := range view.Files {
			fmt.Fprintf(w, "%s\t%d\t%s\n", f.Path, f.Bytes, f.Digest)
		}
	})
}

func printNeeds(w io.Writer, c *bundle.Contract) {
	if a := c.ABI; a != nil {
		fmt.Fprintf(w, "offers\t%s %s for %s, glibc %s or newer\n", a.Name, a.Version, a.Arch, a.GLibC)
	}
	if r := c.Runtime; r != nil {
		fmt.Fprintf(w, "needs\t%s %s or newer\n", r.Name, r.Min)
	}
	if c.Hardware != "" {
		fmt.Fprintf(w, "hardware\t%s\n", c.Hardware)
	}
}

func printProof(w io.Writer, c *bundle.Contract) {
	if c.Kind != bundle.KindModel {
		return
	}
	if g := c.Golden; g != nil {
		fmt.Fprintf(w, "golden\t%d cases in %s\n", g.Cases, g.File)
		if g.Slices != "" {
			fmt.Fprintf(w, "slices\tby %s\n", g.Slices)
		}
	} else {
		fmt.Fprintf(w, "golden\tnone: devices prove only that it loads and runs\n")
	}
	for _, b := range c.Budgets {
		fmt.Fprintf(w, "budget\t%s\t%s\n", b.Class, b.String())
	}
	if s := c.Shadow; s != nil {
		fmt.Fprintf(w, "shadow\t%v of live requests until %d are compared or %v min are over, %v must agree\n", s.Share, s.Requests, s.Minutes, s.Agree)
	}
	if c.Watch != nil {
		fmt.Fprintf(w, "watch\t%s\n", c.Watch.Output)
	}
	if r := c.Reference; r != nil {
		fmt.Fprintf(w, "reference\t%d samples, mean score %.3f\n", r.Samples, r.Score.Mean())
	}
	fmt.Fprintf(w, "probation\t%v min and %d requests\n", c.Probation.Minutes, c.Probation.Requests)
}
