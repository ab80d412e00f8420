package tflite

import "fmt"

// Policy says what a model may contain.
type Policy struct {
	Custom     []string // names of custom operators that may be there: the runtime's own, and declared ones
	Allow      []string // names of the only operators that may be there, custom ones too; nil: all of the runtime's
	MaxTensors int      // over all subgraphs; 0: no limit beyond the parser's
	Newer      bool     // the model asks for a runtime newer than RuntimeVersion: which versions of operators that has is left to it
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
// constant data that does not fill its tensor or lies inside of the FlatBuffer,
// tensors that are read before anything wrote them or written where they are
// constant, subgraphs that call each other in a circle, operators that the runtime
// does not have in that version or that the policy does not allow, metadata that
// cannot be read. It returns at most 32 problems, nil if there are none.
func Check(m *Model, p Policy) []Problem {
	c := &checker{m: m, policy: p}
	tensors := 0
	for i := range m.Subgraphs {
		tensors += len(m.Subgraphs[i].Tensors)
		c.subgraph(i)
	}
	c.circles()
	if p.MaxTensors > 0 && tensors > p.MaxTensors {
		c.add("model.tensors", "model", "%d tensors, at most %d are allowed", tensors, p.MaxTensors)
	}
	c.signatures()
	c.buffers()
	if m.External {
		c.add("model.external", "model", "it names buffers in other files")
	}
	for _, p := range m.Faults {
		c.add(p.Code, p.Where, "%s", p.Text)
	}
	for _, md := range m.Metadata {
		if int64(md.Buffer) >= int64(len(m.Buffers)) {
			c.add("metadata.buffer", "metadata "+quote(md.Name), "buffer %d of %d", md.Buffer, len(m.Buffers))
		}
	}
	return c.problems
}

func (c *checker) tensor(where string, t *Tensor, tensors int) {
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
	c.quant(where, t, tensors)
	if int64(t.Buffer) >= int64(len(c.m.Buffers)) {
		c.add("tensor.buffer", where, "buffer %d of %d", t.Buffer, len(c.m.Buffers))
		return
	}
	if t.Sparsity != nil {
		n, err := t.Sparsity.values(t.Shape)
		if err != nil {
			c.add("tensor.sparsity", where, "%v", err)
			return
		}
		elements = n
	}
	have := c.m.Buffers[t.Buffer].Size
	want, fixed := t.Type.Bytes(elements)
	switch {
	case have == 0 && t.Sparsity != nil && elements > 0:
		c.add("tensor.sparsity", where, "sparse without data")
	case have != 0 && fixed && have != want:
		c.add("tensor.data", where, "%d bytes of data for %s %v, which takes %d", have, t.Type, t.Shape, want)
	}
}

// buffers checks that data outside of the FlatBuffer does not overlap it.
func (c *checker) buffers() {
	for i, b := range c.m.Buffers {
		if b.Outside && b.Offset < c.m.Flat {
			c.add("buffer.overlap", fmt.Sprintf("buffer %d", i), "its data at %d lies within the first %d bytes, which are tables", b.Offset, c.m.Flat)
		}
	}
}

func (c *checker) quant(where string, t *Tensor, tensors int) {
	q := t.Quant
	if q == nil {
		return
	}
	for i, x := range q.Tensors { // the second may be left out
		if int(x) >= tensors || x < -1 || x == -1 && i == 0 {
			c.add("tensor.quantization", where, "its scales or zero points are in tensor %d of %d", x, tensors)
		}
	}
	if q.Details {
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

// maxElements is the largest number of elements of one tensor: kernels count them
// in 32 bits.
const maxElements = 1<<31 - 1

// product returns the number of elements; ok is false if a dimension is
// negative or the product, zeros left aside, is beyond maxElements.
func product(shape []int32) (n int64, ok bool) {
	n = 1
	zero := false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		zero = zero || d == 0
		if n *= int64(max(d, 1)); n > maxElements {
			return 0, false
		}
	}
	if zero {
		return 0, true
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
