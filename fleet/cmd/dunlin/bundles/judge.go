package bundles

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
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
			"With --sign-key the bundle carries an OpenSSF model signature over all its files.",
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
			return c.printBundle(out, plan.Digest, plan.Manifest, plan.Contract)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder to write (default MODEL-VERSION)")
	cmd.Flags().BoolVar(&force, "force", false, "pack although model.yaml and the file disagree; devices will judge")
	cmd.Flags().StringVar(&runtime.Library, "runtime", "", "pack this LiteRT library instead of a model")
	cmd.Flags().StringVar(&runtime.Version, "version", "", "version of the runtime library")
	cmd.Flags().StringVar(&runtime.Arch, "arch", "", "architecture that the library must be for, as Go names it")
	sign.add(cmd)
	require.Add(cmd)
	cmd.MarkFlagsMutuallyExclusive("runtime", "require-signature")
	return cmd
}

func (c *Commands) inspectCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect PATH",
		Short: "Show what a bundle or a .tflite file is",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if isFile(args[0]) {
				return c.inspectFile(args[0])
			}
			b, err := Open(args[0])
			if err != nil {
				return err
			}
			return c.printBundle(args[0], b.Digest, b.Manifest, b.Contract)
		},
	}
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
}

func (c *Commands) printBundle(folder, digest string, m *bundle.Manifest, contract *bundle.Contract) error {
	view := bundleView{Folder: folder, Digest: digest, Bytes: m.Size(), Contract: contract}
	for _, l := range m.Layers {
		view.Files = append(view.Files, fileView{l.Path(), l.MediaType, l.Digest, l.Size})
	}
	return c.Print(view, func(w io.Writer) {
		fmt.Fprintf(w, "%s\t%s %s\n", contract.Kind, contract.Model, contract.Version)
		fmt.Fprintf(w, "digest\t%s\nfolder\t%s\n", digest, folder)
		printNeeds(w, contract)
		printTensors(w, "input", contract.Inputs)
		printTensors(w, "output", contract.Outputs)
		printProof(w, contract)
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

func printTensors(w io.Writer, what string, list []bundle.Tensor) {
	for _, t := range list {
		fmt.Fprintf(w, "%s\t%s\t%s %v%s%s\n", what, t.Name, t.DType, t.Shape, quantText(t.Quant), meaningText(t.Meaning))
	}
}

func quantText(q *bundle.Quant) string {
	switch {
	case q == nil:
		return ""
	case len(q.Scale) == 1:
		return fmt.Sprintf(", %v*(q%+d)", q.Scale[0], -q.Zero[0])
	default:
		return fmt.Sprintf(", %d scales along axis %d", len(q.Scale), q.Axis)
	}
}

func meaningText(m *bundle.Meaning) string {
	if m == nil {
		return ""
	}
	s := ", " + m.Kind
	for _, word := range []string{m.Colour, m.Score} {
		if word != "" {
			s += " " + word
		}
	}
	if m.Range != [2]float64{} {
		s += fmt.Sprintf(" %v..%v", m.Range[0], m.Range[1])
	}
	return s
}

func printProof(w io.Writer, c *bundle.Contract) {
	if c.Kind != bundle.KindModel {
		return
	}
	if g := c.Golden; g != nil {
		fmt.Fprintf(w, "golden\t%d cases in %s\n", g.Cases, g.File)
	} else {
		fmt.Fprintf(w, "golden\tnone: devices prove only that it loads and runs\n")
	}
	for _, b := range c.Budgets {
		fmt.Fprintf(w, "budget\t%s\tp95 %d us, %d KiB, start %d ms\n", b.Class, b.LatencyP95US, b.PeakMemoryKB, b.StartMS)
	}
	if c.Watch != nil {
		fmt.Fprintf(w, "watch\t%s\n", c.Watch.Output)
	}
	if r := c.Reference; r != nil {
		fmt.Fprintf(w, "reference\t%d samples, mean score %.3f\n", r.Samples, r.Score.Mean())
	}
	fmt.Fprintf(w, "probation\t%v min and %d requests\n", c.Probation.Minutes, c.Probation.Requests)
}

// modelView is what -o json prints of a .tflite file.
type modelView struct {
	File      string          `json:"file"`
	Bytes     int64           `json:"bytes"`
	Inputs    []bundle.Tensor `json:"inputs"`
	Outputs   []bundle.Tensor `json:"outputs"`
	Operators map[string]int  `json:"operators"`
	Appended  []string        `json:"appended,omitempty"` // files in a ZIP behind the model
	Problems  []string        `json:"problems,omitempty"` // of the static check
}

func readModel(path string) (*modelView, []tflite.Problem, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	m, err := tflite.Parse(b)
	if err != nil {
		return nil, nil, &fleet.Error{Code: bundle.CodeModelMalformed, Message: path + ": " + err.Error(), Next: "export the model again"}
	}
	v := &modelView{File: path, Bytes: m.Size, Operators: map[string]int{}, Appended: m.Appended}
	problems := bundle.CheckFile(m)
	for _, p := range problems {
		v.Problems = append(v.Problems, p.String())
	}
	if len(problems) > 0 { // then its tensors may be out of range
		return v, problems, nil
	}
	for i := range m.Subgraphs {
		for _, o := range m.Subgraphs[i].Operators {
			v.Operators[m.OpCodes[o.OpCode].Name()]++
		}
	}
	v.Inputs, v.Outputs, err = bundle.Describe(m)
	return v, nil, err
}

func (c *Commands) inspectFile(path string) error {
	v, _, err := readModel(path)
	if err != nil {
		return err
	}
	return c.Print(v, func(w io.Writer) {
		fmt.Fprintf(w, "file\t%s\t%d bytes\n", v.File, v.Bytes)
		printTensors(w, "input", v.Inputs)
		printTensors(w, "output", v.Outputs)
		var names []string
		for name := range v.Operators {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(w, "operator\t%s\t%d\n", name, v.Operators[name])
		}
		for _, p := range v.Problems {
			fmt.Fprintf(w, "problem\t%s\n", p)
		}
	})
}

func (c *Commands) verifyFile(path string) error {
	v, problems, err := readModel(path)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return &fleet.Error{Code: bundle.CodeModelCheck, Message: path + ": " + strings.Join(v.Problems, "; "), Next: "export the model again without these operators or tensors"}
	}
	return c.Print(map[string]any{"path": path, "bytes": v.Bytes, "ok": true}, func(w io.Writer) {
		fmt.Fprintf(w, "ok: %s, %d bytes\n", path, v.Bytes)
	})
}
