package bundle

import (
	"math"
	"slices"
	"unicode/utf8"

	"github.com/dunlin-edge/dunlin/shared/bundle/numpy"
	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// Limits of a contract.
const (
	maxTensors = 64
	maxRank    = 8
	maxDim     = 1 << 30
	maxName    = 128
	maxCustom  = 64
	maxClasses = 1 << 16
	maxText    = 1 << 12
)

// DTypeSize returns the bytes of one element of a datatype ("FP32"); 0 if a
// contract cannot name it.
func DTypeSize(dtype string) int { return numpy.Size(dtype) }

// Validate checks every value against its range. The error names the key.
func (c *Contract) Validate() error {
	if c.Number != ContractNumber {
		return refuse(CodeContractNumber, "contract of format %d; this version reads %d", c.Number, ContractNumber)
	}
	if !ValidName(c.Model) {
		return invalid("model", "%q is no name: lower-case letters, digits and dashes, at most 63", c.Model)
	}
	if !ValidVersion(c.Version) {
		return invalid("version", "%q is no semantic version", c.Version)
	}
	if err := validFile("file", c.File); err != nil {
		return err
	}
	if _, err := ParseSelector(c.Hardware); err != nil {
		return invalid("hardware", "%v", err)
	}
	if p := c.Provenance; p != nil && len(p.Card)+len(p.Licence)+len(p.Commit)+len(p.DataSet) > maxText {
		return invalid("provenance", "longer than %d bytes", maxText)
	}
	switch c.Kind {
	case KindModel:
		return c.validateModel()
	case KindRuntime:
		return c.validateRuntime()
	default:
		return invalid("kind", "%q is neither %q nor %q", c.Kind, KindModel, KindRuntime)
	}
}

func (c *Contract) validateRuntime() error {
	a := c.ABI
	if a == nil || !ValidName(a.Name) || !ValidName(a.Arch) || !numbersForm.MatchString(a.Version) || !numbersForm.MatchString(a.GLibC) {
		return invalid("abi", "a runtime needs name, version, arch and glibc")
	}
	if c.Runtime != nil || c.Golden != nil || c.Watch != nil || c.Reference != nil || len(c.Inputs)+len(c.Outputs) > 0 {
		return invalid("kind", "a runtime has no inputs, outputs, golden cases or runtime of its own")
	}
	return nil
}

func (c *Contract) validateModel() error {
	if c.ABI != nil {
		return invalid("abi", "only a runtime has one")
	}
	if c.Runtime == nil || !ValidName(c.Runtime.Name) || !numbersForm.MatchString(c.Runtime.Min) {
		return invalid("runtime", "a model needs the name and lowest version of its runtime")
	}
	if c.Labels != "" {
		if err := validFile("labels", c.Labels); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"", "none", "carry"}, c.State) {
		return invalid("state", "%q is neither none nor carry", c.State)
	}
	if !slices.Contains([]string{"", "worker", "file", "external"}, c.Serve) {
		return invalid("serve", "%q is none of worker, file, external", c.Serve)
	}
	if err := c.validateCustom(); err != nil {
		return err
	}
	if !(c.Probation.Minutes >= 0 && c.Probation.Minutes <= 30*24*60) || c.Probation.Requests > 1e9 {
		return invalid("probation", "up to 30 days and a billion requests")
	}
	if err := validTensors("inputs", c.Inputs); err != nil {
		return err
	}
	if err := validTensors("outputs", c.Outputs); err != nil {
		return err
	}
	for _, check := range []func() error{c.validateBoxes, c.validateGolden, c.validateBudgets, c.validateWatch, c.validateShadow} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// validateCustom: our worker has no way to bring operators along, an application has.
func (c *Contract) validateCustom() error {
	if len(c.Custom) > 0 && c.Serve != "file" {
		return invalid("custom_operators", "only an application has them: they need serve file")
	}
	if len(c.Custom) > maxCustom {
		return invalid("custom_operators", "%d operators, at most %d are allowed", len(c.Custom), maxCustom)
	}
	for i, name := range c.Custom {
		if name == "" || len(name) > maxName || !utf8.ValidString(name) || slices.Contains(c.Custom[:i], name) {
			return invalid("custom_operators", "the name %.64q is empty, too long or there twice", name)
		}
	}
	return nil
}

func validTensors(key string, list []Tensor) error {
	if len(list) == 0 || len(list) > maxTensors {
		return invalid(key, "%d tensors, 1 to %d are allowed", len(list), maxTensors)
	}
	seen := map[string]bool{}
	for _, t := range list {
		if t.Name == "" || len(t.Name) > maxName || !utf8.ValidString(t.Name) || seen[t.Name] {
			return invalid(key, "the name %.64q is empty, too long or used twice", t.Name)
		}
		seen[t.Name] = true
		if numpy.Size(t.DType) == 0 {
			return invalid(key, "%s: datatype %.32q", t.Name, t.DType)
		}
		if err := t.validateShape(key); err != nil {
			return err
		}
		if m := t.Meaning; m != nil {
			if err := m.Validate(t.Shape); err != nil {
				return invalid(key, "%s: %v", t.Name, err)
			}
		}
	}
	return nil
}

func (t *Tensor) validateShape(key string) error {
	if t.Shape == nil {
		return invalid(key, "%s: no shape; that of a single number is []", t.Name)
	}
	if len(t.Shape) > maxRank {
		return invalid(key, "%s: %d dimensions, at most %d are allowed", t.Name, len(t.Shape), maxRank)
	}
	size := int64(numpy.Size(t.DType))
	for _, d := range t.Shape {
		if d < -1 || d == 0 || d > maxDim {
			return invalid(key, "%s: shape %v", t.Name, t.Shape)
		}
		if size *= int64(max(d, 1)); size > maxDim {
			return invalid(key, "%s: shape %v is larger than 1 GiB", t.Name, t.Shape)
		}
	}
	q := t.Quant
	if q == nil {
		return nil
	}
	if len(q.Scale) == 0 || len(q.Scale) != len(q.Zero) || len(q.Scale) > maxClasses {
		return invalid(key, "%s: %d scales and %d zero points", t.Name, len(q.Scale), len(q.Zero))
	}
	if len(q.Scale) > 1 && (q.Axis < 0 || q.Axis >= len(t.Shape) || t.Shape[q.Axis] != len(q.Scale)) || len(q.Scale) == 1 && q.Axis != 0 {
		return invalid(key, "%s: %d scales along axis %d of %v", t.Name, len(q.Scale), q.Axis, t.Shape)
	}
	for _, s := range q.Scale {
		if !(s > 0 && float64(s) <= math.MaxFloat32) {
			return invalid(key, "%s: scale %v", t.Name, s)
		}
	}
	return nil
}

func (c *Contract) validateWatch() error {
	if w := c.Watch; w != nil {
		if c.Output(w.Output) == nil {
			return invalid("watch.output", "%.64q is no output", w.Output)
		}
		if w.Score != "" && w.Score != "max" {
			return invalid("watch.score", "%.32q is not max", w.Score)
		}
	}
	r := c.Reference
	if r == nil {
		return nil
	}
	if c.Watch == nil {
		return invalid("reference", "nothing is watched")
	}
	if r.Samples == 0 || !r.Score.Valid() || r.Score.Total()+r.Score.NaN != r.Samples {
		return invalid("reference", "%d samples, a histogram of %d", r.Samples, r.Score.Total())
	}
	if len(r.Classes) == 0 || len(r.Classes) > maxClasses {
		return invalid("reference.classes", "%d classes, 1 to %d are allowed", len(r.Classes), maxClasses)
	}
	return c.validateMore(r)
}

// validateMore checks what a reference may hold beside scores and classes.
func (c *Contract) validateMore(r *Reference) error {
	for key, h := range map[string]*sketch.Histogram{"entropy": r.Entropy, "margin": r.Margin} {
		if h != nil && (!h.Valid() || h.Lo != 0 || h.Hi != 1) {
			return invalid("reference."+key, "no histogram over 0..1")
		}
	}
	if len(r.Inputs) != 0 && len(r.Inputs) != len(c.Inputs) {
		return invalid("reference.inputs", "%d, the model has %d", len(r.Inputs), len(c.Inputs))
	}
	for i := range r.Inputs {
		if !r.Inputs[i].Valid() {
			return invalid("reference.inputs", "%s: no histogram", c.Inputs[i].Name)
		}
	}
	return nil
}

func validFile(key, p string) error {
	if err := ValidPath(p); err != nil {
		return invalid(key, "%v", err)
	}
	if p == ContractPath {
		return invalid(key, "%q is the contract's own", p)
	}
	return nil
}

func invalid(key, format string, args ...any) error {
	return refuse(CodeContractInvalid, "contract, "+key+": "+format, args...)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Input returns the input of a name; nil if there is none.
func (c *Contract) Input(name string) *Tensor { return find(c.Inputs, name) }

// Output returns the output of a name; nil if there is none.
func (c *Contract) Output(name string) *Tensor { return find(c.Outputs, name) }

func find(list []Tensor, name string) *Tensor {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// Carries says whether requests depend on earlier ones, so that none may be
// repeated.
func (c *Contract) Carries() bool { return c.State == "carry" }

// Files returns the paths of the files that the contract names.
func (c *Contract) Files() []string {
	files := []string{c.File}
	if c.Labels != "" {
		files = append(files, c.Labels)
	}
	if c.Golden != nil {
		files = append(files, c.Golden.File)
	}
	return files
}
