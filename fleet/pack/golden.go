package pack

import (
	"math"
	"os"
	"regexp"
	"slices"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// Defaults of what model.yaml leaves out.
const (
	defaultRuntime  = "litert >= 2.1.6"
	defaultRelative = 0.05 // of the golden output's range
	defaultMinutes  = 5
	defaultRequests = 100
	scoreBins       = 20

	defaultShare    = 0.1 // of shadow
	defaultDuty     = 0.2
	defaultAgree    = 0.9
	defaultShadowed = 200
)

var runtimeForm = regexp.MustCompile(`^([a-z0-9-]+) *>= *([0-9.]+)$`)

func (p *packer) runtime() error {
	text := p.spec.Runtime
	if text == "" {
		text = defaultRuntime
	}
	m := runtimeForm.FindStringSubmatch(text)
	if m == nil {
		return refuse("pack.runtime", "write it like 'runtime: "+defaultRuntime+"'", "%s, runtime: %q is not understood", SpecName, text)
	}
	p.contract.Runtime = &bundle.RuntimeNeed{Name: m[1], Min: m[2]}
	return nil
}

// golden names the golden cases and checks that their arrays fit.
func (p *packer) golden() error {
	q := Question{"golden", "an .npz with inputs and right outputs, by which each device proves the model before it serves; or none", "golden.npz"}
	if err := fill(p.Asker, &p.spec.Golden, q); err != nil {
		return err
	}
	if p.spec.Golden == "none" {
		return nil
	}
	b, err := p.goldenBytes()
	if err != nil {
		return err
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		return err
	}
	g := &bundle.Golden{File: p.spec.Golden, Tolerance: map[string]bundle.Tolerance{}, Repeat: p.spec.Repeat, Slices: p.spec.Slices}
	if g.Repeat == "same" {
		g.Repeat = bundle.RepeatSame
	}
	for name, t := range p.spec.Tolerance {
		g.Tolerance[name] = bundle.Tolerance(t)
	}
	for _, t := range p.contract.Outputs {
		if len(p.spec.Tolerance) == 0 && arrays[t.Name] != nil {
			g.Tolerance[t.Name] = bundle.Tolerance{Relative: defaultRelative}
		}
	}
	if first := arrays[p.contract.Inputs[0].Name]; first != nil {
		g.Cases = first.Len()
	}
	p.contract.Golden = g
	if _, err := bundle.LoadGolden(&p.contract, b); err != nil {
		return refuse("pack.golden", "save the arrays under the tensors' names and in their types, one row a case", "%s: %v", p.spec.Golden, err)
	}
	return nil
}

// goldenBytes reads the golden cases, or makes them of a folder.
func (p *packer) goldenBytes() ([]byte, error) {
	if err := p.there(p.spec.Golden); err != nil {
		return nil, err
	}
	if st, err := os.Stat(p.path(p.spec.Golden)); err != nil || !st.IsDir() {
		return p.read(p.spec.Golden)
	}
	b, err := p.goldenFolder(p.spec.Golden)
	p.made = map[string][]byte{goldenFile: b}
	p.spec.Golden, p.spec.Slices = goldenFile, goldenSlice
	return b, err
}

// watch chooses the output to observe, the only one with classes if people do not
// say, and takes its reference distribution.
func (p *packer) watch() error {
	name := p.spec.Watch
	if name == "" {
		var classes []string
		for _, t := range p.contract.Outputs {
			if t.Meaning.Kind == "classes" {
				classes = append(classes, t.Name)
			}
		}
		if len(classes) == 1 {
			name = classes[0]
		}
	}
	if name == "" && p.spec.Reference == "" {
		return nil
	}
	if err := fill(p.Asker, &name, Question{"watch", "the output that holds the scores", p.contract.Outputs[0].Name}); err != nil {
		return err
	}
	if p.contract.Output(name) == nil {
		return refuse("pack.watch", "name the output as 'dunlin model inspect' prints it", "%s, watch: %q is no output", SpecName, name)
	}
	p.contract.Watch = &bundle.Watch{Output: name}
	if p.spec.Reference == "" {
		return nil
	}
	b, err := p.read(p.spec.Reference)
	if err != nil {
		return err
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		return err
	}
	if p.contract.Reference, err = reference(p.spec.Reference, arrays, p.contract.Output(name)); err != nil {
		return err
	}
	p.contract.Reference.Inputs = inputs(p.contract.Inputs, arrays)
	return nil
}

// reference counts how an output was distributed over a validation set. Values
// of the tensor's own type are dequantized; real numbers are taken as they are.
func reference(file string, arrays map[string]*bundle.Array, t *bundle.Tensor) (*bundle.Reference, error) {
	next := "save the watched output over a validation set as the array '" + t.Name + "', one row a sample"
	a := arrays[t.Name]
	if a == nil || len(a.Shape) < 2 || a.Len() == 0 || len(a.Data) == 0 {
		return nil, refuse("pack.reference", next, "%s holds no array %q with a row a sample", file, t.Name)
	}
	quant := t.Quant
	if a.DType != t.DType {
		quant = nil
	}
	rows := make([][]float64, a.Len())
	for i := range rows {
		rows[i] = quant.Real(bundle.Values(a.DType, a.Row(i)), bundle.CaseShape(t.Shape))
	}
	if want := t.Shape[len(t.Shape)-1:]; len(want) == 1 && want[0] > 0 && len(rows[0]) != want[0] {
		return nil, refuse("pack.reference", next, "%s: %d numbers a sample, the output has %d", file, len(rows[0]), want[0])
	}
	lo, hi := scoreRange(t, rows)
	entropy, margin := sketch.NewHistogram(0, 1, scoreBins), sketch.NewHistogram(0, 1, scoreBins)
	r := &bundle.Reference{Samples: uint64(len(rows)), Score: sketch.NewHistogram(lo, hi, scoreBins), Classes: make([]uint64, len(rows[0]))}
	for _, row := range rows {
		best := slices.Index(row, slices.Max(row))
		if best < 0 {
			return nil, refuse("pack.reference", next, "%s holds NaN", file)
		}
		r.Score.Add(row[best])
		r.Classes[best]++
		if c := sketch.CertaintyOf(row, t.ScoreKind()); c.OK {
			entropy.Add(c.Entropy)
			margin.Add(c.Margin)
		}
	}
	if entropy.Total() == r.Samples {
		r.Entropy, r.Margin = &entropy, &margin
	}
	return r, nil
}

// inputs counts how the inputs were distributed over the validation set, as far as
// it has them; nil without any.
func inputs(tensors []bundle.Tensor, arrays map[string]*bundle.Array) []sketch.Input {
	out, any := make([]sketch.Input, len(tensors)), false
	for i, t := range tensors {
		a := arrays[t.Name]
		if a == nil || a.Len() == 0 || len(a.Shape) < 2 {
			continue
		}
		if a.DType != t.DType {
			t.DType, t.Quant = a.DType, nil // real numbers as they are
		}
		lo, hi := tensors[i].Span()
		rows := make([][]float64, a.Len())
		least, most := math.Inf(1), math.Inf(-1)
		for n := range rows {
			rows[n] = t.Look(nil, a.Row(n))
			for _, v := range rows[n] {
				least, most = min(least, v), max(most, v)
			}
		}
		if lo >= hi { // nothing says what the values can be: what the set shows, and as much again
			lo, hi = least-(most-least)/2, most+(most-least)/2
		}
		out[i] = sketch.NewInput(lo, hi)
		for _, row := range rows {
			out[i].Add(row)
		}
		any = true
	}
	if !any {
		return nil
	}
	return out
}

// scoreRange is what the score can be: 0..1 for probabilities, else what the
// reference shows.
func scoreRange(t *bundle.Tensor, rows [][]float64) (lo, hi float64) {
	if t.Meaning.Score == "softmax" || t.Meaning.Score == "sigmoid" {
		return 0, 1
	}
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, row := range rows {
		score := slices.Max(row)
		lo, hi = min(lo, score), max(hi, score)
	}
	if !(lo < hi) {
		return lo - 0.5, lo + 0.5
	}
	return lo, hi
}

// rest takes over what needs no file.
func (p *packer) rest() error {
	c, s := &p.contract, p.spec
	for class, b := range s.Budgets {
		c.Budgets = append(c.Budgets, b.budget(class))
	}
	slices.SortFunc(c.Budgets, func(a, b bundle.Budget) int {
		if a.Class < b.Class {
			return -1
		}
		return 1
	})
	if s.Shadow != nil {
		c.Shadow = &bundle.Shadow{Share: defaultShare, Minutes: defaultMinutes, Requests: defaultShadowed, Duty: defaultDuty, Agree: defaultAgree}
		overlay(c.Shadow, s.Shadow)
	}
	c.Probation = bundle.Probation{Minutes: defaultMinutes, Requests: defaultRequests}
	if s.Probation != nil {
		c.Probation = bundle.Probation(*s.Probation)
	}
	if s.About != (specAbout{}) {
		about := bundle.Provenance(s.About)
		c.Provenance = &about
	}
	return nil
}

// overlay takes over what people said of the shadow.
func overlay(to *bundle.Shadow, said *specShadow) {
	for _, v := range []struct{ to, said *float64 }{
		{&to.Share, &said.Share}, {&to.Minutes, &said.Minutes}, {&to.Duty, &said.Duty}, {&to.Agree, &said.Agree},
	} {
		if *v.said != 0 {
			*v.to = *v.said
		}
	}
	if said.Requests != 0 {
		to.Requests = said.Requests
	}
}
