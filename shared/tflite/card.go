package tflite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// cardName is the name of the metadata entry that holds a card, a FlatBuffer of its
// own; runtimeName that of the one with the oldest runtime.
const (
	cardName    = "TFLITE_METADATA"
	cardID      = "M001"
	runtimeName = "min_runtime_version"
	maxCard     = 1 << 22 // bytes
	maxCardList = 1 << 12 // entries of any list of a card
)

// Card is what a model's author wrote into it about its meaning. It is shown and
// compared with the contract, never relied on.
type Card struct {
	Name        string
	Description string
	Version     string
	Author      string
	Licence     string
	Parser      string // oldest reader of cards that will do
	Inputs      []TensorCard
	Outputs     []TensorCard
	Files       []File // that belong to the model as a whole
}

// TensorCard is what a card says about one input or output, in their order.
type TensorCard struct {
	Name        string
	Description string
	Dimensions  []string  // names
	Content     string    // "feature", "image", "boxes", "audio"; empty: not said
	Colour      string    // image: "rgb", "gray"; empty: not said
	Layout      string    // boxes: "boundaries", "upper-left", "center"; empty: not said
	Pixels      bool      // boxes: coordinates are pixels, not shares of the picture
	Rate        uint32    // audio: samples a second
	Mean, Std   []float32 // normalised = (x - mean) / std, one of each for all channels or one per channel
	Min, Max    []float32 // of the values, as for Mean
	Files       []File
}

// File is a file in the ZIP behind the model.
type File struct {
	Name        string
	Description string
	Kind        string // "labels" of the positions along an axis, "value-labels" of the values, "vocabulary", …
	Locale      string
}

// readMetadata reads what the metadata entries say that this package knows. A fault
// of theirs is no fault of the model's: Check reports it.
func (m *Model) readMetadata(b []byte) {
	for _, md := range m.Metadata {
		data := m.data(b, md.Buffer)
		switch {
		case md.Name == runtimeName && len(data) <= 64:
			m.Runtime = strings.TrimRight(string(data), "\x00")
		case md.Name == cardName && m.Card == nil && data != nil:
			card, err := parseCard(data)
			if err != nil {
				m.Faults = append(m.Faults, Problem{"metadata.malformed", "metadata " + quote(md.Name), err.Error()})
			}
			m.Card = card
		}
	}
}

// data returns the bytes of a buffer; nil if there is none of that index.
func (m *Model) data(b []byte, buffer uint32) []byte {
	if int64(buffer) >= int64(len(m.Buffers)) {
		return nil
	}
	x := m.Buffers[buffer]
	return b[x.Offset : x.Offset+x.Size]
}

func parseCard(b []byte) (*Card, error) {
	if len(b) < 8 || string(b[4:8]) != cardID {
		return nil, errors.New("no identifier " + cardID)
	}
	if len(b) > maxCard {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), maxCard)
	}
	r := newReader(b)
	root := r.table(r.follow(0))
	c := &Card{Name: root.string(0), Description: root.string(1), Version: root.string(2), Author: root.string(4),
		Licence: root.string(5), Parser: root.string(7), Files: readFiles(root, 6)}
	// The card of a subgraph is the first's: the main one.
	if list := root.tables(3, maxCardList); len(list) > 0 {
		g := list[0]
		c.Inputs, c.Outputs = readTensorCards(g, 2), readTensorCards(g, 3)
		c.Files = append(c.Files, readFiles(g, 4)...)
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}

func readTensorCards(t table, field int) []TensorCard {
	var list []TensorCard
	for _, c := range t.tables(field, maxCardList) {
		if !t.r.spend(256) {
			break
		}
		list = append(list, readTensorCard(c))
	}
	return list
}

func readTensorCard(t table) TensorCard {
	c := TensorCard{Name: t.string(0), Description: t.string(1), Dimensions: t.strings(2), Files: readFiles(t, 6)}
	if content, ok := t.child(3); ok {
		if p, ok := content.child(1); ok {
			c.readContent(content.uint8(0), p)
		}
	}
	for _, unit := range t.tables(4, maxCardList) {
		if options, ok := unit.child(1); ok && unit.uint8(0) == 1 {
			c.Mean, c.Std = options.floats(0), options.floats(1)
		}
	}
	if stats, ok := t.child(5); ok {
		c.Max, c.Min = stats.floats(0), stats.floats(1)
	}
	return c
}

// readContent reads what a tensor's values mean; kinds are the numbers of the
// schema's union.
func (c *TensorCard) readContent(kind uint8, p table) {
	switch kind {
	case 1:
		c.Content = "feature"
	case 2:
		c.Content, c.Colour = "image", word(p.uint8(0), "", "rgb", "gray")
	case 3:
		c.Content, c.Layout = "boxes", word(p.uint8(1), "", "boundaries", "upper-left", "center")
		c.Pixels = p.uint8(2) == 1
	case 4:
		c.Content, c.Rate = "audio", p.uint32(0)
	}
}

func readFiles(t table, field int) []File {
	var list []File
	for _, c := range t.tables(field, maxCardList) {
		if !t.r.spend(64) {
			break
		}
		kind := word(c.uint8(2), "", "description", "labels", "value-labels", "calibration", "vocabulary", "index")
		list = append(list, File{Name: c.string(0), Description: c.string(1), Kind: kind, Locale: c.string(3)})
	}
	return list
}

// word returns the name of a number; that of 0 stands for those without a name.
func word(n uint8, names ...string) string {
	if int(n) >= len(names) {
		return names[0]
	}
	return names[n]
}

// Notes says where a card does not fit its model. The runtime does not care, but
// people who rely on the card will.
func (c *Card) Notes(m *Model) []string {
	var notes []string
	g := &m.Subgraphs[0]
	for _, side := range []struct {
		what    string
		cards   []TensorCard
		tensors []int32
	}{{"input", c.Inputs, g.Inputs}, {"output", c.Outputs, g.Outputs}} {
		if len(side.cards) > 0 && len(side.cards) != len(side.tensors) {
			notes = append(notes, fmt.Sprintf("the metadata describes %d %ss of %d", len(side.cards), side.what, len(side.tensors)))
			continue
		}
		for i, t := range side.cards {
			if len(t.Mean) != len(t.Std) || slices.Contains(t.Std, 0) {
				notes = append(notes, fmt.Sprintf("%s %d: normalised by %d means and %d deviations, or by a deviation of 0", side.what, i, len(t.Mean), len(t.Std)))
			}
			notes = append(notes, missing(t.Files, m.Appended)...)
		}
	}
	return append(notes, missing(c.Files, m.Appended)...)
}

func missing(files []File, appended []string) []string {
	var notes []string
	for _, f := range files {
		if !slices.Contains(appended, f.Name) {
			notes = append(notes, "the metadata names the file "+quote(f.Name)+", which is not in the ZIP behind the model")
		}
	}
	return notes
}

// LabelFiles returns the files with labels of an output, those of the model as a
// whole included; nil if the card names none.
func (c *Card) LabelFiles(output int) []File {
	var list []File
	if output < len(c.Outputs) {
		list = slices.Clone(c.Outputs[output].Files)
	}
	return slices.DeleteFunc(append(list, c.Files...), func(f File) bool { return f.Kind != "labels" && f.Kind != "value-labels" })
}
