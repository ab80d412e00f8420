package tflite

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func (c *checker) subgraph(i int) {
	g := &c.m.Subgraphs[i]
	where := fmt.Sprintf("subgraph %d", i)
	before := len(c.problems)
	c.indexes("subgraph.input", where, "input", g, g.Inputs, false)
	c.indexes("subgraph.output", where, "output", g, g.Outputs, false)
	for j := range g.Tensors {
		c.tensor(fmt.Sprintf("%s, tensor %d (%s)", where, j, quote(g.Tensors[j].Name)), &g.Tensors[j], len(g.Tensors))
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
	if len(c.problems) == before { // every index is one
		c.flow(where, g)
	}
}

// optional are the inputs that an operator does without: those from a position on, or
// of the positions listed. Every other operator reads all of its inputs unasked.
var optional = map[string]struct {
	from int
	at   []int
}{
	"FULLY_CONNECTED": {from: 2}, "CONV_2D": {from: 2}, "DEPTHWISE_CONV_2D": {from: 2}, "CONV_3D": {from: 2},
	"TRANSPOSE_CONV": {from: 3}, "CONV_3D_TRANSPOSE": {from: 3}, "SVDF": {from: 3}, "BIDIRECTIONAL_SEQUENCE_RNN": {from: 9},
	"LSTM": {from: 20, at: lstmOptional}, "UNIDIRECTIONAL_SEQUENCE_LSTM": {from: 20, at: lstmOptional},
	"BIDIRECTIONAL_SEQUENCE_LSTM": {from: 39, at: []int{1, 5, 9, 10, 11, 12, 16, 17, 18, 22, 26, 27, 28, 29, 33, 34}},
}

// lstmOptional: input gate, peepholes, projection; layer norms follow from 20 on.
var lstmOptional = []int{1, 5, 9, 10, 11, 12, 16, 17}

// leftOut checks that an operator misses no input that it needs. What a custom one
// needs is not known.
func (c *checker) leftOut(where string, code OpCode, inputs []int32) {
	o, ok := optional[code.Name()]
	for i, x := range inputs {
		if x == -1 && !code.IsCustom() && !(ok && (i >= o.from || slices.Contains(o.at, i))) {
			c.add("operator.tensor", where, "input %d is left out, which the operator needs", i)
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
	c.leftOut(where, code, o.Inputs)
	c.indexes("operator.tensor", where, "output", g, o.Outputs, false)
	c.indexes("operator.tensor", where, "intermediate", g, o.Intermediates, true)
	c.known(where, code)
	for _, k := range o.Calls {
		if k < 0 || int(k) >= len(c.m.Subgraphs) {
			c.add("operator.subgraph", where, "it calls subgraph %d of %d", k, len(c.m.Subgraphs))
		}
	}
	if size := uint64(c.m.Size); o.OptionsOffset > 1 && (o.OptionsSize > size || o.OptionsOffset > size-o.OptionsSize) {
		c.add("operator.options", where, "options of %d bytes at %d lie outside of the file", o.OptionsSize, o.OptionsOffset)
	} else if o.OptionsOffset > 1 && o.OptionsOffset < uint64(c.m.Flat) {
		c.add("operator.options", where, "options at %d lie within the first %d bytes, which are tables", o.OptionsOffset, c.m.Flat)
	}
}

// known checks that the runtime has the operator, and that it may be there.
func (c *checker) known(where string, code OpCode) {
	if c.policy.Allow != nil && !slices.Contains(c.policy.Allow, code.Name()) {
		c.add("operator.allowed", where, "an operator that is not on the list of allowed ones")
	}
	if code.IsCustom() {
		if !slices.Contains(c.policy.Custom, code.Custom) {
			c.add("operator.custom", where, "a custom operator that the runtime does not have")
		}
		return
	}
	if code.Builtin < 0 || int(code.Builtin) >= len(builtins) {
		c.add("operator.unknown", where, "no operator of schema version 3")
		return
	}
	switch o := builtins[code.Builtin]; {
	case c.policy.Newer && code.Version >= o.min():
	case o.max == 0:
		c.add("operator.unknown", where, "an operator of the schema that LiteRT %s does not have", RuntimeVersion)
	case code.Version < o.min() || code.Version > o.max:
		c.add("operator.version", where, "version %d, LiteRT %s has %d to %d", code.Version, RuntimeVersion, o.min(), o.max)
	}
}

// flow checks that every tensor is there before an operator reads it, and that none
// writes what is constant, given from outside or written already: the runtime does
// not look, and reads or writes memory that it never got.
func (c *checker) flow(where string, g *Subgraph) {
	have := make([]bool, len(g.Tensors)) // has a value
	kept := make([]bool, len(g.Tensors)) // must not be written
	for i := range g.Tensors {
		t := &g.Tensors[i]
		n, _ := product(t.Shape)
		constant := int64(t.Buffer) < int64(len(c.m.Buffers)) && c.m.Buffers[t.Buffer].Size > 0
		kept[i] = constant
		have[i] = constant || t.Variable || n == 0
	}
	for _, i := range g.Inputs {
		have[i], kept[i] = true, true
	}
	for j, o := range g.Operators {
		where := fmt.Sprintf("%s, operator %d (%s)", where, j, quote(c.m.OpCodes[o.OpCode].Name()))
		for _, i := range o.Inputs {
			if i >= 0 && !have[i] {
				c.add("operator.order", where, "it reads tensor %d, which nothing wrote before", i)
			}
		}
		for _, i := range o.Outputs {
			if kept[i] {
				c.add("operator.output", where, "it writes tensor %d, which is constant, an input or written already", i)
			}
			have[i], kept[i] = true, true
		}
	}
	for _, i := range g.Outputs {
		if !have[i] {
			c.add("subgraph.output", where, "nothing writes the output tensor %d", i)
		}
	}
}

// circles checks that no subgraph calls itself, not by way of others either: the
// runtime would follow until its stack ends.
func (c *checker) circles() {
	const under, done = 1, 2
	state := make([]int, len(c.m.Subgraphs))
	var visit func(i int) bool
	visit = func(i int) bool {
		state[i] = under
		for _, o := range c.m.Subgraphs[i].Operators {
			for _, k := range o.Calls {
				if k < 0 || int(k) >= len(state) || state[k] == done {
					continue
				}
				if state[k] == under || !visit(int(k)) {
					return false
				}
			}
		}
		state[i] = done
		return true
	}
	for i := range state {
		if state[i] == 0 && !visit(i) {
			c.add("subgraph.circle", fmt.Sprintf("subgraph %d", i), "it calls itself, directly or by way of others")
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
		g := &c.m.Subgraphs[s.Subgraph]
		c.names(where+", input", s, s.Inputs, g.Inputs)
		c.names(where+", output", s, s.Outputs, g.Outputs)
	}
}

func (c *checker) names(where string, s Signature, list []Named, of []int32) {
	seen, own := map[string]bool{}, map[int32]bool{}
	for _, i := range of {
		own[i] = true
	}
	for _, n := range list {
		if n.Name == "" || !utf8.ValidString(n.Name) || strings.ContainsFunc(n.Name, unicode.IsControl) || seen[n.Name] {
			c.add("signature.name", where, "the name %s is empty, no text or used twice", quote(n.Name))
		}
		seen[n.Name] = true
		switch {
		case c.m.Tensor(s, n) == nil:
			c.add("signature.tensor", where, "%s names tensor %d, which does not exist", quote(n.Name), n.Tensor)
		case !own[int32(n.Tensor)]:
			c.add("signature.tensor", where, "%s names tensor %d, which is none of its subgraph's", quote(n.Name), n.Tensor)
		}
	}
}
