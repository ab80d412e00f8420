package bundle

import (
	"slices"
	"strings"
)

// Golden names the golden cases: an .npz whose arrays carry the tensors' names
// with a leading dimension that counts the cases. The cases of a model that carries
// state follow each other, from a fresh state.
type Golden struct {
	File      string               `json:"file"`
	Cases     int                  `json:"cases"`
	Tolerance map[string]Tolerance `json:"tolerance"`        // by output name
	Repeat    string               `json:"repeat,omitempty"` // what a case that is run again must give
	Slices    string               `json:"slices,omitempty"` // array of labels in File, such as "site=a,light=dim"
}

// What a case that is run again must give.
const (
	RepeatSame  = ""      // the same bytes
	RepeatClose = "close" // what is within the tolerance
	RepeatAny   = "any"   // nothing: it is not run again
)

// Tolerance bounds the difference between an output and its golden value; each
// field that is set must hold. NaN and infinities never do.
type Tolerance struct {
	Relative float64 `json:"relative,omitempty"` // of the golden output's range (max-min over all cases), per element
	Absolute float64 `json:"absolute,omitempty"` // per element, real values
	Top      int     `json:"top,omitempty"`      // the golden argmax is among the first Top of the output
	Cosine   float64 `json:"cosine,omitempty"`   // least cosine of the angle between output and golden value
	IoU      float64 `json:"iou,omitempty"`      // boxes: each golden one overlaps one of the output by this, intersection over union
	Pass     float64 `json:"pass,omitempty"`     // share of cases that must hold, 0: all
}

// Limits of golden cases.
const (
	MaxGolden = 10_000
	MaxSlices = 64 // different labels
	maxLabel  = 64 // bytes
)

// Cases are golden cases, read and found to fit their contract.
type Cases struct {
	N       int
	Inputs  map[string]*Array // by input name; Row(i) is the stored input of case i
	Outputs map[string]*Array // by output name, those that have a tolerance
	Slices  [][]string        // the labels of each case; nil: there are none
}

func (c *Contract) validateGolden() error {
	g := c.Golden
	if g == nil {
		return nil
	}
	if err := validFile("golden.file", g.File); err != nil {
		return err
	}
	if g.Cases < 1 || g.Cases > MaxGolden {
		return invalid("golden.cases", "%d cases, 1 to %d are allowed", g.Cases, MaxGolden)
	}
	if len(g.Tolerance) == 0 {
		return invalid("golden.tolerance", "no output has one, so the cases would prove nothing")
	}
	if !slices.Contains([]string{RepeatSame, RepeatClose, RepeatAny}, g.Repeat) {
		return invalid("golden.repeat", "%.32q is neither close nor any", g.Repeat)
	}
	if len(g.Slices) > maxName || g.Slices != "" && (c.Input(g.Slices) != nil || c.Output(g.Slices) != nil) {
		return invalid("golden.slices", "%.64q is too long, or a tensor's name", g.Slices)
	}
	for name, t := range g.Tolerance {
		out := c.Output(name)
		if out == nil {
			return invalid("golden.tolerance", "%.64q is no output", name)
		}
		if err := t.validate(out); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tolerance) validate(out *Tensor) error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	if t.Relative == 0 && t.Absolute == 0 && t.Top == 0 && t.Cosine == 0 && t.IoU == 0 {
		return invalid("golden.tolerance", "%s: bounds nothing", out.Name)
	}
	if !share(t.Relative) || !(t.Absolute >= 0 && finite(t.Absolute)) || t.Top < 0 || t.Top > maxClasses || !share(t.Cosine) || !share(t.IoU) || !share(t.Pass) {
		return invalid("golden.tolerance", "%s: %+v", out.Name, *t)
	}
	if n := len(out.Shape); t.IoU > 0 && (n < 2 || out.Shape[n-1] != 4 || out.Meaning == nil || out.Meaning.Kind != "boxes") {
		return invalid("golden.tolerance", "%s: iou needs an output of boxes, four numbers each", out.Name)
	}
	return nil
}

// LoadGolden reads the golden cases of a contract from the bytes of their .npz.
// Every input and every output with a tolerance must be there, in the tensor's
// datatype, with the number of cases as the leading dimension: in place of a
// leading 1 or -1 of the tensor's shape, else in front of it.
func LoadGolden(c *Contract, npz []byte) (*Cases, error) {
	if c.Golden == nil {
		return nil, refuse(CodeGoldenInvalid, "the contract names no golden cases")
	}
	arrays, err := ReadNPZ(npz)
	if err != nil {
		return nil, err
	}
	cases := &Cases{N: c.Golden.Cases, Inputs: map[string]*Array{}, Outputs: map[string]*Array{}}
	for i := range c.Inputs {
		t := &c.Inputs[i]
		if cases.Inputs[t.Name], err = goldenArray(arrays, t, cases.N); err != nil {
			return nil, err
		}
	}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		if _, compared := c.Golden.Tolerance[t.Name]; !compared {
			continue
		}
		if cases.Outputs[t.Name], err = goldenArray(arrays, t, cases.N); err != nil {
			return nil, err
		}
	}
	if c.Golden.Slices != "" {
		if cases.Slices, err = sliceLabels(arrays[c.Golden.Slices], c.Golden.Slices, cases.N); err != nil {
			return nil, err
		}
	}
	return cases, nil
}

// sliceLabels reads which slices each case belongs to: a text a case, labels apart
// by commas.
func sliceLabels(a *Array, name string, n int) ([][]string, error) {
	if a == nil || a.DType != Text || len(a.Shape) != 1 || a.Len() != n {
		return nil, refuse(CodeGoldenInvalid, "golden cases: %q is no list of %d texts", name, n)
	}
	seen, list := map[string]bool{}, make([][]string, n)
	for i := range list {
		for label := range strings.SplitSeq(a.Text(i), ",") {
			label = strings.TrimSpace(label)
			if label == "" || len(label) > maxLabel || slices.Contains(list[i], label) {
				return nil, refuse(CodeGoldenInvalid, "golden cases: case %d has the label %.80q, which is empty, too long or there twice", i, label)
			}
			list[i], seen[label] = append(list[i], label), true
		}
	}
	if len(seen) > MaxSlices {
		return nil, refuse(CodeGoldenInvalid, "golden cases: %d slices, at most %d are allowed", len(seen), MaxSlices)
	}
	return list, nil
}

func goldenArray(arrays map[string]*Array, t *Tensor, n int) (*Array, error) {
	a := arrays[t.Name]
	if a == nil {
		return nil, refuse(CodeGoldenInvalid, "golden cases: no array named %q", t.Name)
	}
	if a.DType != t.DType {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q holds %s, the tensor %s", t.Name, a.DType, t.DType)
	}
	if a.Len() != n {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q holds %d cases, not %d", t.Name, a.Len(), n)
	}
	if !fitsShape(a.Shape[1:], CaseShape(t.Shape)) {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q of %v is no list of %v", t.Name, a.Shape, CaseShape(t.Shape))
	}
	return a, nil
}

// CaseShape is the shape of one case of a tensor: without a leading 1 or -1.
func CaseShape(shape []int) []int {
	if len(shape) > 0 && (shape[0] == 1 || shape[0] == -1) {
		return shape[1:]
	}
	return shape
}

// fitsShape says whether have is an instance of want, in which -1 is any size.
func fitsShape(have, want []int) bool {
	return slices.EqualFunc(have, want, func(h, w int) bool { return h == w || w == -1 })
}
