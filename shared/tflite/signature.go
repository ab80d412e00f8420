package tflite

// Signature names the tensors that a caller gives and gets.
type Signature struct {
	Key      string
	Subgraph uint32
	Inputs   []Named
	Outputs  []Named
}

// Named is a name for a tensor of the signature's subgraph.
type Named struct {
	Name   string
	Tensor uint32
}

// Signature returns the signature of a key; an empty key stands for the first.
// A model without signatures has one with an empty key: the main subgraph under
// the tensors' own names, as the runtime does it.
func (m *Model) Signature(key string) (Signature, bool) {
	for _, s := range m.Signatures {
		if key == "" || s.Key == key {
			return s, true
		}
	}
	if key != "" || len(m.Signatures) > 0 || len(m.Subgraphs) == 0 {
		return Signature{}, false
	}
	g := &m.Subgraphs[0]
	return Signature{Inputs: named(g, g.Inputs), Outputs: named(g, g.Outputs)}, true
}

func named(g *Subgraph, indexes []int32) []Named {
	var list []Named
	for _, i := range indexes {
		n := Named{Tensor: uint32(i)}
		if i >= 0 && int(i) < len(g.Tensors) {
			n.Name = g.Tensors[i].Name
		}
		list = append(list, n)
	}
	return list
}

// Tensor returns the tensor that a signature names; nil if the index is out of
// range.
func (m *Model) Tensor(s Signature, n Named) *Tensor {
	if int64(s.Subgraph) >= int64(len(m.Subgraphs)) {
		return nil
	}
	g := &m.Subgraphs[s.Subgraph]
	if int64(n.Tensor) >= int64(len(g.Tensors)) {
		return nil
	}
	return &g.Tensors[n.Tensor]
}

// Dims returns the shape with -1 for every dimension that may change.
func (t *Tensor) Dims() []int {
	shape := t.Shape
	if len(t.ShapeSignature) == len(t.Shape) {
		shape = t.ShapeSignature
	}
	dims := make([]int, len(shape))
	for i, d := range shape {
		dims[i] = int(d)
	}
	return dims
}
