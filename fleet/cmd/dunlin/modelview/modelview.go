// Package modelview says what a model is, for people and for programs, and what
// changed between two: what `dunlin model inspect` and `dunlin model diff` print.
package modelview

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// View is what a .tflite file is. Of a file with problems only those and the size are
// known: its tables may point anywhere.
type View struct {
	File        string       `json:"file"`
	Bytes       int64        `json:"bytes"`
	Digest      string       `json:"digest"`
	Description string       `json:"description,omitempty"`
	Converted   string       `json:"converted_for,omitempty"` // oldest TensorFlow Lite that the converter thinks will do
	Problems    []string     `json:"problems,omitempty"`      // of the static check
	Notes       []string     `json:"notes,omitempty"`         // where the metadata does not fit
	Subgraphs   int          `json:"subgraphs"`
	Signatures  []Signature  `json:"signatures"`
	Operators   []Operator   `json:"operators"`
	Parameters  Weights      `json:"parameters"` // all of them
	Weights     []Weights    `json:"weights"`    // by type, most bytes first
	Card        *tflite.Card `json:"metadata,omitempty"`
	Labels      []Labels     `json:"labels,omitempty"`
	Appended    []string     `json:"appended,omitempty"` // files in the ZIP behind the model

	constants map[string]int // how often which data is there, by digest
}

// Signature is a way to call the model.
type Signature struct {
	Key     string          `json:"key"` // empty: the file has none, this is its main subgraph
	Inputs  []bundle.Tensor `json:"inputs"`
	Outputs []bundle.Tensor `json:"outputs"`
}

// Operator is one kind of operator of the model.
type Operator struct {
	Name    string `json:"name"`
	Version int32  `json:"version"`
	Count   int    `json:"count"`
	Custom  bool   `json:"custom,omitempty"`
}

// Weights counts constant data.
type Weights struct {
	Type     string `json:"type,omitempty"`
	Tensors  int    `json:"tensors"`
	Elements int64  `json:"elements"`
	Bytes    int64  `json:"bytes"`
}

// Labels are the names of an output's values, from a file in the model or in the bundle.
type Labels struct {
	Output string   `json:"output,omitempty"`
	File   string   `json:"file"`
	Names  []string `json:"names"`
}

// Read looks into a .tflite file and judges it by its contract; nil: by none. The error
// is that it is no such file; problems of one that can be read are in the view.
func Read(name string, file []byte, c *bundle.Contract) (*View, error) {
	m, err := tflite.Parse(file)
	if err != nil {
		return nil, err
	}
	v := &View{File: name, Bytes: m.Size, Digest: digest(file), Description: m.Description, Converted: m.Runtime,
		Subgraphs: len(m.Subgraphs), Appended: m.Appended, Card: m.Card}
	problems := bundle.CheckFile
	if c != nil {
		problems = c.CheckFile
	}
	for _, p := range problems(m) {
		v.Problems = append(v.Problems, p.String())
	}
	if len(v.Problems) > 0 {
		v.Card = nil
		return v, nil
	}
	v.signatures(m)
	v.operators(m)
	v.weights(m, file)
	if m.Card != nil {
		v.Notes = append(v.Notes, m.Card.Notes(m)...)
		v.labels(m, file)
	}
	return v, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// signatures describes every signature; the first is the one that is served.
func (v *View) signatures(m *tflite.Model) {
	keys := []string{""}
	if len(m.Signatures) > 0 {
		keys = nil
		for _, s := range m.Signatures {
			keys = append(keys, s.Key)
		}
	}
	for _, key := range keys {
		s, _ := m.Signature(key)
		x := Signature{Key: s.Key}
		x.Inputs = v.tensors(m, s, s.Inputs)
		x.Outputs = v.tensors(m, s, s.Outputs)
		v.Signatures = append(v.Signatures, x)
	}
}

// tensors describes tensors with the meaning that the metadata gives them.
func (v *View) tensors(m *tflite.Model, s tflite.Signature, names []tflite.Named) []bundle.Tensor {
	var list []bundle.Tensor
	for _, n := range names {
		t := m.Tensor(s, n)
		d := bundle.Tensor{Name: n.Name, DType: cmp.Or(t.Type.OIP(), t.Type.String()), Shape: t.Dims()}
		if q := t.Quant; q != nil && !q.Details {
			d.Quant = &bundle.Quant{Scale: q.Scale, Zero: q.Zero, Axis: int(q.Axis)}
			if len(q.Zero) == 0 {
				d.Quant.Zero = make([]int64, len(q.Scale))
			}
		}
		if c := cardOf(m, n.Tensor); c != nil && c.Content != "" {
			d.Meaning = meaning(c)
		}
		list = append(list, d)
	}
	return list
}

// cardOf finds what the metadata says about a tensor of the main subgraph.
func cardOf(m *tflite.Model, tensor uint32) *tflite.TensorCard {
	if m.Card == nil {
		return nil
	}
	g := &m.Subgraphs[0]
	if i := slices.Index(g.Inputs, int32(tensor)); i >= 0 && i < len(m.Card.Inputs) {
		return &m.Card.Inputs[i]
	}
	if i := slices.Index(g.Outputs, int32(tensor)); i >= 0 && i < len(m.Card.Outputs) {
		return &m.Card.Outputs[i]
	}
	return nil
}

// meaning translates the metadata's words into a contract's.
func meaning(c *tflite.TensorCard) *bundle.Meaning {
	x := &bundle.Meaning{Kind: map[string]string{"feature": "tensor"}[c.Content], Colour: c.Colour}
	x.Kind = cmp.Or(x.Kind, c.Content)
	if len(c.Mean) > 0 && len(c.Std) > 0 && c.Std[0] != 0 && c.Content == "image" {
		x.Range = [2]float64{float64((0 - c.Mean[0]) / c.Std[0]), float64((255 - c.Mean[0]) / c.Std[0])}
	}
	return x
}

func (v *View) operators(m *tflite.Model) {
	counts := map[Operator]int{}
	for i := range m.Subgraphs {
		for _, o := range m.Subgraphs[i].Operators {
			c := m.OpCodes[o.OpCode]
			counts[Operator{Name: c.Name(), Version: c.Version, Custom: c.IsCustom()}]++
		}
	}
	for o, n := range counts {
		o.Count = n
		v.Operators = append(v.Operators, o)
	}
	slices.SortFunc(v.Operators, func(a, b Operator) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
}

// weights counts constant data once, however many tensors share it.
func (v *View) weights(m *tflite.Model, file []byte) {
	v.constants = map[string]int{}
	types, seen := map[string]*Weights{}, map[uint32]bool{}
	for i := range m.Subgraphs {
		for j := range m.Subgraphs[i].Tensors {
			t := &m.Subgraphs[i].Tensors[j]
			b := m.Buffers[t.Buffer]
			if b.Size == 0 {
				continue
			}
			if seen[t.Buffer] {
				continue
			}
			seen[t.Buffer] = true
			v.constants[digest(file[b.Offset:b.Offset+b.Size])]++
			w := types[t.Type.String()]
			if w == nil {
				w = &Weights{Type: t.Type.String()}
				types[w.Type] = w
			}
			n := elements(t)
			w.Tensors, w.Elements, w.Bytes = w.Tensors+1, w.Elements+n, w.Bytes+b.Size
			v.Parameters.Tensors, v.Parameters.Elements, v.Parameters.Bytes = v.Parameters.Tensors+1, v.Parameters.Elements+n, v.Parameters.Bytes+b.Size
		}
	}
	for w := range maps.Values(types) {
		v.Weights = append(v.Weights, *w)
	}
	slices.SortFunc(v.Weights, func(a, b Weights) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Type, b.Type))
	})
}

func elements(t *tflite.Tensor) int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// labels reads the label files that the metadata names for outputs.
func (v *View) labels(m *tflite.Model, file []byte) {
	for i := range m.Subgraphs[0].Outputs {
		for _, f := range m.Card.LabelFiles(i) {
			b, err := tflite.ReadAppended(file, f.Name)
			if err != nil {
				continue // a note says so
			}
			names, err := bundle.ParseLabels(b)
			if err != nil {
				v.Notes = append(v.Notes, err.Error())
				continue
			}
			t := m.Subgraphs[0].Tensors[m.Subgraphs[0].Outputs[i]]
			v.Labels = append(v.Labels, Labels{Output: t.Name, File: f.Name, Names: names})
			if d := t.Dims(); f.Kind == "labels" && len(d) > 0 && d[len(d)-1] > 0 && d[len(d)-1] != len(names) {
				v.Notes = append(v.Notes, mismatch(f.Name, len(names), t.Name, d[len(d)-1]))
			}
		}
	}
}
