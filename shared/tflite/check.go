package tflite

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Policy says what a model may contain.
type Policy struct {
	Custom     []string // names of custom operators that the runtime is known to have
	MaxTensors int      // over all subgraphs; 0: no limit beyond the parser's
}

// Problem is one finding of Check. Code is for programs, "operator.tensor".
type Problem struct {
	Code  string
	Where string // "subgraph 0, operator 3 (CONV_2D)"
	Text  string
}

// String returns the problem as one line.
func (p Problem) String() string { return p.Where + ": " + p.Text + " (" + p.Code + ")" }

// maxProblems bounds what Check returns: a broken file has them by the thousand.
const maxProblems = 32

type checker struct {
	m        *Model
	policy   Policy
	problems []Problem
}

func (c *checker) add(code, where, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{code, where, fmt.Sprintf(format, args...)})
	}
}

// Check looks for what the runtime would stumble over: indexes out of range,
// constant data that does not fill its tensor, operators that no runtime of
// ours has, data outside of the file. It returns at most 32 problems, nil if
// there are none.
func Check(m *Model, p Policy) []Problem {
	c := &checker{m: m, policy: p}
	tensors := 0
	for i := range m.Subgraphs {
		tensors += len(m.Subgraphs[i].Tensors)
		c.subgraph(i)
	}
	if p.MaxTensors > 0 && tensors > p.MaxTensors {
		c.add("model.tensors", "model", "%d tensors, at most %d are allowed", tensors, p.MaxTensors)
	}
	c.signatures()
	for _, md := range m.Metadata {
		if int64(md.Buffer) >= int64(len(m.Buffers)) {
			c.add("metadata.buffer", "metadata "+quote(md.Name), "buffer %d of %d", md.Buffer, len(m.Buffers))
		}
	}
	return c.problems
}

func (c *checker) subgraph(i int) {
	g := &c.m.Subgraphs[i]
	where := fmt.Sprintf("subgraph %d", i)
	c.indexes("subgraph.input", where, "input", g, g.Inputs, false)
	c.indexes("subgraph.output", where, "output", g, g.Outputs, false)
	for j := range g.Tensors {
		c.tensor(fmt.Sprintf("%s, tensor %d (%s)", where, j, quote(g.Tensors[j].Name)), &g.Tensors[j])
		if len(c.problems) >= maxProblems {
			return
		}
	}
	for j := range g.Operators {
		c.operator(fmt.Sprintf("%s, operator %d", where, j), g, &g.Operators[j])
		if len(c.problems) >= maxProblems {
			return
		}
	}
}

// indexes checks that every index names a tensor of g; -1 is allowed where a
// tensor may be left out.
func (c *checker) indexes(code, where, what string, g *Subgraph, list []int32, optional bool) {
	for _, i := range list {
		if i == -1 && optional {
			continue
		}
		if i < 0 || int(i) >= len(g.Tensors) {
			c.add(code, where, "%s tensor %d of %d", what, i, len(g.Tensors))
			return
		}
	}
}

func (c *checker) operator(where string, g *Subgraph, o *Operator) {
	if int64(o.OpCode) >= int64(len(c.m.OpCodes)) {
		c.add("operator.code", where, "code %d of %d", o.OpCode, len(c.m.OpCodes))
		return
	}
	code := c.m.OpCodes[o.OpCode]
	where += " (" + quote(code.Name()) + ")"
	c.indexes("operator.tensor", where, "input", g, o.Inputs, true)
	c.indexes("operator.tensor", where, "output", g, o.Outputs, false)
	c.indexes("operator.tensor", where, "intermediate", g, o.Intermediates, true)
	switch {
	case code.IsCustom() && !slices.Contains(c.policy.Custom, code.Custom):
		c.add("operator.custom", where, "a custom operator that the runtime does not have")
	case code.Builtin == opDelegate, code.Builtin < 0, int(code.Builtin) >= len(builtins):
		c.add("operator.unknown", where, "no operator of schema version 3")
	}
	if size := uint64(c.m.Size); o.OptionsOffset > 1 && (o.OptionsSize > size || o.OptionsOffset > size-o.OptionsSize) {
		c.add("operator.options", where, "options of %d bytes at %d lie outside of the file", o.OptionsSize, o.OptionsOffset)
	}
}

func (c *checker) tensor(where string, t *Tensor) {
	if !t.Type.Known() {
		c.add("tensor.type", where, "%s is not in the schema", t.Type)
		return
	}
	if t.External != 0 {
		c.add("tensor.external", where, "its data is in another file")
	}
	if n := len(t.ShapeSignature); n != 0 && n != len(t.Shape) {
		c.add("tensor.shape", where, "shape has %d dimensions, its signature %d", len(t.Shape), n)
	}
	elements, ok := product(t.Shape)
	if !ok {
		c.add("tensor.shape", where, "shape %v is negative or too large", t.Shape)
		return
	}
	c.quant(where, t)
	if int64(t.Buffer) >= int64(len(c.m.Buffers)) {
		c.add("tensor.buffer", where, "buffer %d of %d", t.Buffer, len(c.m.Buffers))
		return
	}
	have := c.m.Buffers[t.Buffer].Size
	want, fixed := t.Type.Bytes(elements)
	if have != 0 && fixed && !t.Sparse && have != want {
		c.add("tensor.data", where, "%d bytes of data for %s %v, which takes %d", have, t.Type, t.Shape, want)
	}
}

func (c *checker) quant(where string, t *Tensor) {
	q := t.Quant
	if q == nil || q.Details {
		return
	}
	if len(q.Zero) != 0 && len(q.Zero) != len(q.Scale) {
		c.add("tensor.quantization", where, "%d scales and %d zero points", len(q.Scale), len(q.Zero))
	}
	if len(q.Scale) > 1 && (q.Axis < 0 || int(q.Axis) >= len(t.Shape) || int(t.Shape[q.Axis]) != len(q.Scale)) {
		c.add("tensor.quantization", where, "%d scales along axis %d of %v", len(q.Scale), q.Axis, t.Shape)
	}
	for _, s := range q.Scale {
		if !(s >= 0 && s <= 3.4e38) {
			c.add("tensor.quantization", where, "scale %v", s)
			return
		}
	}
}

func (c *checker) signatures() {
	seen := map[string]bool{}
	for _, s := range c.m.Signatures {
		where := "signature " + quote(s.Key)
		if seen[s.Key] {
			c.add("signature.key", where, "there are two of it")
		}
		seen[s.Key] = true
		if int64(s.Subgraph) >= int64(len(c.m.Subgraphs)) {
			c.add("signature.subgraph", where, "subgraph %d of %d", s.Subgraph, len(c.m.Subgraphs))
			continue
		}
		c.names(where, s, s.Inputs)
		c.names(where, s, s.Outputs)
	}
}

func (c *checker) names(where string, s Signature, list []Named) {
	seen := map[string]bool{}
	for _, n := range list {
		if n.Name == "" || !utf8.ValidString(n.Name) || seen[n.Name] {
			c.add("signature.name", where, "the name %s is empty, not UTF-8 or used twice", quote(n.Name))
		}
		seen[n.Name] = true
		if c.m.Tensor(s, n) == nil {
			c.add("signature.tensor", where, "%s names tensor %d, which does not exist", quote(n.Name), n.Tensor)
		}
	}
}

// product returns the number of elements; ok is false if a dimension is
// negative or the product is beyond 2^48.
func product(shape []int32) (n int64, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if n *= int64(d); n > 1<<48 {
			return 0, false
		}
	}
	return n, true
}

// quote makes a name from the file fit to print: at most 64 bytes, escaped.
func quote(name string) string {
	if len(name) > 64 {
		name = name[:64]
	}
	return fmt.Sprintf("%+q", name)
}
