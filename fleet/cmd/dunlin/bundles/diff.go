package bundles

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/modelview"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func (c *Commands) diffCmd() *cobra.Command {
	var breaking bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what changed between two models and what of it breaks consumers",
		Long: "Compares two bundles, two .tflite files, or one of each.\n" +
			"Breaking is what a consumer of the old model would get errors from or read wrongly: an input that is renamed\n" +
			"or new, another shape, type, quantization or meaning, an output that is gone, labels in another order.\n" +
			"Other weights, operators and budgets are compatible. With --breaking the exit code is 1 if anything breaks.",
		Example: "  dunlin model diff meter-digits-1.1.0 meter-digits-1.2.0\n  dunlin model diff old.tflite new.tflite --breaking",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var sides [2]*modelview.Subject
			for i, path := range args {
				s, err := subject(path)
				if err != nil {
					return err
				}
				sides[i] = s
			}
			changes := modelview.Compare(sides[0], sides[1])
			n := modelview.Breaking(changes)
			view := map[string]any{"old": args[0], "new": args[1], "breaking": n, "changes": append([]modelview.Change{}, changes...)}
			if err := c.Print(view, func(w io.Writer) { modelview.Table(w, changes) }); err != nil {
				return err
			}
			if breaking && n > 0 {
				return &fleet.Error{Code: "model.breaking", Message: fmt.Sprintf("%d changes break consumers", n), Next: "publish it as another model, or change the consumers first"}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&breaking, "breaking", false, "exit with 1 if a change breaks consumers")
	return cmd
}

// subject opens one side of a comparison.
func subject(path string) (*modelview.Subject, error) {
	s := &modelview.Subject{}
	var err error
	if isFile(path) {
		if s.View, err = readModel(path); err != nil {
			return nil, err
		}
		if len(s.View.Labels) > 0 {
			s.Labels = s.View.Labels[0].Names
		}
		if len(s.View.Problems) > 0 {
			return nil, &fleet.Error{Code: bundle.CodeModelCheck, Message: path + ": " + s.View.Problems[0], Next: "run 'dunlin model inspect' on it"}
		}
		return s, nil
	}
	b, err := Open(path)
	if err != nil {
		return nil, err
	}
	s.Contract = b.Contract
	if b.Contract.Kind != bundle.KindModel {
		return nil, &fleet.Error{Code: "model.kind", Message: path + " is a " + b.Contract.Kind + ", no model", Next: "name two models"}
	}
	if s.View, err = viewOf(b); err != nil {
		return nil, err
	}
	if b.Contract.Labels == "" {
		return s, nil
	}
	file, err := b.ReadFile(b.Contract.Labels)
	if err != nil {
		return nil, err
	}
	s.Labels, err = bundle.ParseLabels(file)
	return s, err
}
