package modelview

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Subject is one side of a comparison: a bundle, or a .tflite file alone.
type Subject struct {
	View     *View
	Contract *bundle.Contract // nil: of a file alone
	Labels   []string         // of the bundle, or else of the file's metadata
}

// Change is one thing that differs. Breaking means that a consumer of the old model
// gets errors or other meanings without noticing; everything else it survives.
type Change struct {
	Part     string `json:"part"` // "input image", "labels", "weights", …
	Text     string `json:"text"`
	Breaking bool   `json:"breaking"`
}

// Compare says what a consumer, a device or a reader notices when b follows a.
// Breaking changes come first.
func Compare(a, b *Subject) []Change {
	d := &diff{}
	d.tensors("input", a.inputs(), b.inputs())
	d.tensors("output", a.outputs(), b.outputs())
	d.labels(a.Labels, b.Labels)
	if a.Contract != nil && b.Contract != nil {
		d.contract(a.Contract, b.Contract)
	}
	if a.View != nil && b.View != nil {
		d.network(a.View, b.View)
	}
	slices.SortStableFunc(d.changes, func(x, y Change) int {
		switch {
		case x.Breaking == y.Breaking:
			return 0
		case x.Breaking:
			return -1
		}
		return 1
	})
	return d.changes
}

// Breaking counts the changes that break consumers.
func Breaking(changes []Change) int {
	n := 0
	for _, c := range changes {
		if c.Breaking {
			n++
		}
	}
	return n
}

// Table writes changes for people.
func Table(w io.Writer, changes []Change) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing differs")
		return
	}
	fmt.Fprintln(w, "CONSUMERS\tPART\tCHANGE")
	for _, c := range changes {
		verdict := "compatible"
		if c.Breaking {
			verdict = "breaking"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", verdict, clean(c.Part), c.Text)
	}
}

func (s *Subject) inputs() []bundle.Tensor {
	if s.Contract != nil {
		return s.Contract.Inputs
	}
	if len(s.View.Signatures) == 0 {
		return nil
	}
	return s.View.Signatures[0].Inputs
}

func (s *Subject) outputs() []bundle.Tensor {
	if s.Contract != nil {
		return s.Contract.Outputs
	}
	if len(s.View.Signatures) == 0 {
		return nil
	}
	return s.View.Signatures[0].Outputs
}

type diff struct{ changes []Change }

func (d *diff) breaks(part, format string, args ...any) {
	d.changes = append(d.changes, Change{part, fmt.Sprintf(format, args...), true})
}

func (d *diff) keeps(part, format string, args ...any) {
	d.changes = append(d.changes, Change{part, fmt.Sprintf(format, args...), false})
}

// tensors compares by name. One that is gone where another of the same type and shape
// stands now was renamed.
func (d *diff) tensors(what string, a, b []bundle.Tensor) {
	renamed := map[string]bool{}
	for i, t := range a {
		if u := find(b, t.Name); u != nil {
			d.tensor(what, t, *u)
			continue
		}
		part := what + " " + t.Name
		if i < len(b) && find(a, b[i].Name) == nil && b[i].DType == t.DType && slices.Equal(b[i].Shape, t.Shape) {
			renamed[b[i].Name] = true
			d.breaks(part, "renamed to %s", clean(b[i].Name))
			d.meaning(part, t.Meaning, b[i].Meaning)
			continue
		}
		d.breaks(part, "dropped")
	}
	for _, u := range b {
		switch {
		case find(a, u.Name) != nil || renamed[u.Name]:
		case what == "input":
			d.breaks("input "+u.Name, "added, %s %v: requests without it are refused", u.DType, u.Shape)
		default:
			d.keeps("output "+u.Name, "added, %s %v", u.DType, u.Shape)
		}
	}
	if !slices.EqualFunc(a, b, sameName) && slices.EqualFunc(sorted(a), sorted(b), sameName) {
		d.keeps(what+"s", "come in another order: %s; by name nothing changes", clean(names(b)))
	}
}

func (d *diff) tensor(what string, a, b bundle.Tensor) {
	part := what + " " + a.Name
	if a.DType != b.DType {
		d.breaks(part, "type %s is now %s", a.DType, b.DType)
	}
	switch {
	case slices.Equal(a.Shape, b.Shape):
	case what == "input" && within(a.Shape, b.Shape), what == "output" && within(b.Shape, a.Shape):
		d.keeps(part, "shape %v is now %v, which takes the same", a.Shape, b.Shape)
	default:
		d.breaks(part, "shape %v is now %v", a.Shape, b.Shape)
	}
	if a.DType == b.DType && !sameQuant(a.Quant, b.Quant) {
		d.breaks(part, "quantization%s is now%s: the same numbers mean other values", or(quantText(a.Quant)), or(quantText(b.Quant)))
	}
	d.meaning(part, a.Meaning, b.Meaning)
}

// meaning compares what the numbers stand for; saying it for the first time, or no
// longer, changes no number.
func (d *diff) meaning(part string, a, b *bundle.Meaning) {
	switch {
	case a == nil && b == nil:
	case a == nil || b == nil:
		d.keeps(part, "meaning%s is now%s", or(meaningText(a)), or(meaningText(b)))
	case !reflect.DeepEqual(a, b):
		d.breaks(part, "meaning%s is now%s", or(meaningText(a)), or(meaningText(b)))
	}
}

func (d *diff) labels(a, b []string) {
	switch {
	case slices.Equal(a, b):
	case len(a) == 0:
		d.keeps("labels", "%d are there now", len(b))
	case len(b) == 0:
		d.breaks("labels", "all %d are gone", len(a))
	case len(b) > len(a) && slices.Equal(a, b[:len(a)]):
		d.keeps("labels", "%d more behind the %d", len(b)-len(a), len(a))
	case slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))):
		i := first(a, b)
		d.breaks("labels", "their order changed: value %d was %q and is %q", i, clean(a[i]), clean(b[i]))
	case len(b) < len(a) && slices.Equal(a[:len(b)], b):
		d.breaks("labels", "the last %d of %d are gone", len(a)-len(b), len(a))
	default:
		i := first(a, b)
		d.breaks("labels", "value %d was %q and is %q", i, clean(a[i]), clean(b[i]))
	}
}

// first is the first position at which two lists differ, of the shorter's.
func first(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return 0
}

func (d *diff) contract(a, b *bundle.Contract) {
	if a.Model != b.Model {
		d.keeps("model", "%s is now %s: another line of releases", a.Model, b.Model)
	}
	if a.Carries() != b.Carries() {
		d.breaks("state", "carried from request to request: %v is now %v", a.Carries(), b.Carries())
	}
	if serve(a) != serve(b) {
		d.breaks("serve", "%s is now %s", serve(a), serve(b))
	}
	if a.Runtime != nil && b.Runtime != nil && *a.Runtime != *b.Runtime {
		d.keeps("runtime", "%s %s is now %s %s", a.Runtime.Name, a.Runtime.Min, b.Runtime.Name, b.Runtime.Min)
	}
	if a.Hardware != b.Hardware {
		d.keeps("hardware", "%q is now %q", a.Hardware, b.Hardware)
	}
	if !slices.Equal(a.Budgets, b.Budgets) {
		d.keeps("budgets", "%d are now %d, or others", len(a.Budgets), len(b.Budgets))
	}
	if (a.Golden == nil) != (b.Golden == nil) || a.Golden != nil && a.Golden.Cases != b.Golden.Cases {
		d.keeps("golden", "%d cases are now %d", cases(a), cases(b))
	}
	if a.Probation != b.Probation {
		d.keeps("probation", "%v min and %d requests are now %v min and %d", a.Probation.Minutes, a.Probation.Requests, b.Probation.Minutes, b.Probation.Requests)
	}
}

func serve(c *bundle.Contract) string {
	if c.Serve == "" {
		return "worker"
	}
	return c.Serve
}

func cases(c *bundle.Contract) int {
	if c.Golden == nil {
		return 0
	}
	return c.Golden.Cases
}

// network compares what is inside: nothing of it breaks anybody.
func (d *diff) network(a, b *View) {
	if a.Digest == b.Digest {
		return
	}
	if !slices.Equal(a.Operators, b.Operators) {
		d.keeps("operators", "%s", operatorsText(a.Operators, b.Operators))
	}
	if a.Parameters.Bytes != b.Parameters.Bytes {
		d.keeps("parameters", "%d bytes are now %d", a.Parameters.Bytes, b.Parameters.Bytes)
	}
	changed := 0
	for data, n := range b.constants {
		changed += max(n-a.constants[data], 0)
	}
	if changed > 0 {
		d.keeps("weights", "%d of %d tensors hold other data", changed, b.Parameters.Tensors)
	}
	if !slices.Equal(a.Operators, b.Operators) || a.Parameters != b.Parameters || changed > 0 {
		return
	}
	d.keeps("file", "%d bytes are now %d; operators and weights are the same", a.Bytes, b.Bytes)
}

// operatorsText says which kinds of operator came, went or changed their number.
func operatorsText(a, b []Operator) string {
	counts := map[string][2]int{}
	for i, list := range [][]Operator{a, b} {
		for _, o := range list {
			key := fmt.Sprintf("%s version %d", clean(o.Name), o.Version)
			c := counts[key]
			c[i] += o.Count
			counts[key] = c
		}
	}
	var words []string
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if c := counts[key]; c[0] != c[1] {
			words = append(words, fmt.Sprintf("%s: %d, was %d", key, c[1], c[0]))
		}
	}
	return strings.Join(words, "; ")
}

// within says whether every shape that a allows is one that b allows.
func within(a, b []int) bool {
	return slices.EqualFunc(a, b, func(x, y int) bool { return x == y || y == -1 })
}

func sameQuant(a, b *bundle.Quant) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.Scale, b.Scale) && slices.Equal(a.Zero, b.Zero) && a.Axis == b.Axis
}

func sameName(a, b bundle.Tensor) bool { return a.Name == b.Name }

func sorted(list []bundle.Tensor) []bundle.Tensor {
	return slices.SortedFunc(slices.Values(list), func(a, b bundle.Tensor) int { return strings.Compare(a.Name, b.Name) })
}

func names(list []bundle.Tensor) string {
	var s []string
	for _, t := range list {
		s = append(s, t.Name)
	}
	return strings.Join(s, ", ")
}

func find(list []bundle.Tensor, name string) *bundle.Tensor {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// or makes a part of a sentence of ", text", or of nothing.
func or(text string) string {
	if text == "" {
		return " (none)"
	}
	return text[1:]
}
