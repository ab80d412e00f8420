package bundle

import (
	"cmp"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// knownCustom are the custom operators that LiteRT's own resolver registers.
var knownCustom = []string{"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess", "aeq.hadamard_rotation"}

// CheckModel judges a model file without running it: the static check of the
// file, then whether its tensors are those of the contract. A model that an
// outside service runs is not looked into.
func (c *Contract) CheckModel(file []byte) error {
	if c.Kind != KindModel || c.Serve == "external" {
		return nil
	}
	m, err := tflite.Parse(file)
	if err != nil {
		return refuse(CodeModelMalformed, "%s: %v", c.File, err)
	}
	if problems := c.CheckFile(m); len(problems) > 0 {
		return refuse(CodeModelCheck, "%s: %s%s", c.File, problems[0], more(len(problems)))
	}
	inputs, outputs, err := Describe(m)
	if err != nil {
		return err
	}
	if err := match("input", c.Inputs, inputs); err != nil {
		return err
	}
	return match("output", c.Outputs, outputs)
}

// CheckFile is the static check of a model file alone: no operators but our runtime's.
func CheckFile(m *tflite.Model) []tflite.Problem {
	return (&Contract{}).CheckFile(m)
}

// CheckFile is the static check by the contract: what it declares, and what runtime it
// asks for.
func (c *Contract) CheckFile(m *tflite.Model) []tflite.Problem {
	known := &RuntimeABI{Name: "litert", Version: tflite.RuntimeVersion}
	return tflite.Check(m, tflite.Policy{Custom: slices.Concat(knownCustom, c.Custom), Newer: c.Runtime != nil && !c.Runtime.MetBy(known)})
}

func more(n int) string {
	if n == 1 {
		return ""
	}
	return ", and more"
}

// Describe returns the inputs and outputs of a model's first signature as a
// contract names them, without meaning.
func Describe(m *tflite.Model) (inputs, outputs []Tensor, err error) {
	s, ok := m.Signature("")
	if !ok {
		return nil, nil, refuse(CodeModelCheck, "the model has no signature and no subgraph")
	}
	if inputs, err = describe(m, s, s.Inputs); err != nil {
		return nil, nil, err
	}
	outputs, err = describe(m, s, s.Outputs)
	return inputs, outputs, err
}

func describe(m *tflite.Model, s tflite.Signature, names []tflite.Named) ([]Tensor, error) {
	var list []Tensor
	for _, n := range names {
		t := m.Tensor(s, n)
		if t == nil {
			return nil, refuse(CodeModelCheck, "tensor %.64q does not exist", n.Name)
		}
		if DTypeSize(t.Type.OIP()) == 0 {
			return nil, refuse(CodeModelCheck, "tensor %.64q is of type %s, which cannot be an input or output", n.Name, t.Type)
		}
		d := Tensor{Name: n.Name, DType: t.Type.OIP(), Shape: t.Dims()}
		if q := t.Quant; q != nil && !q.Details {
			d.Quant = &Quant{Scale: q.Scale, Zero: q.Zero}
			if len(q.Zero) == 0 {
				d.Quant.Zero = make([]int64, len(q.Scale))
			}
			if len(q.Scale) > 1 {
				d.Quant.Axis = int(q.Axis)
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// match compares tensors by name; the order does not matter.
func match(what string, contract, file []Tensor) error {
	for _, want := range contract {
		have := find(file, want.Name)
		switch {
		case have == nil:
			return mismatch("the contract's %s %q is not in the file, which has %s", what, want.Name, names(file))
		case have.DType != want.DType:
			return mismatch("%s %q is %s by the contract, %s in the file", what, want.Name, want.DType, have.DType)
		case !slices.Equal(have.Shape, want.Shape):
			return mismatch("%s %q has shape %v by the contract, %v in the file", what, want.Name, want.Shape, have.Shape)
		case !have.Quant.equal(want.Quant):
			return mismatch("%s %q is quantized otherwise in the file than by the contract", what, want.Name)
		}
	}
	if len(file) != len(contract) {
		return mismatch("the contract has %d %ss, the file %d: %s", len(contract), what, len(file), names(file))
	}
	return nil
}

func mismatch(format string, args ...any) *Error { return refuse(CodeModelMismatch, format, args...) }

func (q *Quant) equal(o *Quant) bool {
	if q == nil || o == nil {
		return q == o
	}
	return slices.Equal(q.Scale, o.Scale) && slices.Equal(q.Zero, o.Zero) && q.Axis == o.Axis
}

func names(list []Tensor) string {
	var s []string
	for _, t := range list {
		s = append(s, t.Name)
	}
	return strings.Join(s, ", ")
}

// Classes is the number of classes that the watched or else the first classes
// output tells apart: its last dimension. 0 if there is no such output.
func (c *Contract) Classes() int {
	for _, t := range c.Outputs {
		if c.Watch != nil && c.Watch.Output != t.Name {
			continue
		}
		if t.Meaning != nil && t.Meaning.Kind == "classes" && len(t.Shape) > 0 {
			return max(t.Shape[len(t.Shape)-1], 0)
		}
	}
	return 0
}

// ParseLabels reads a labels file, one class name a line.
func ParseLabels(b []byte) ([]string, error) {
	text := strings.TrimRight(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	if text == "" {
		return nil, refuse(CodeContractInvalid, "the labels file is empty")
	}
	lines := strings.Split(text, "\n")
	if len(lines) > maxClasses {
		return nil, refuse(CodeContractInvalid, "%d labels, at most %d are read", len(lines), maxClasses)
	}
	return lines, nil
}

// CheckLabels compares a labels file with the number of classes.
func (c *Contract) CheckLabels(b []byte) error {
	labels, err := ParseLabels(b)
	if err != nil {
		return err
	}
	n := cmp.Or(c.Classes(), c.boxClasses())
	if n != 0 && n != len(labels) {
		return mismatch("%s holds %d labels, the model tells %d classes apart", c.Labels, len(labels), n)
	}
	return nil
}
