// Package named is between what people have and what tensors hold, as a contract's
// meanings say: pictures and sounds become inputs, outputs become classes and boxes
// with names. It is pure; what it reads is foreign, bounded, and makes it no panic.
package named

import (
	"cmp"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

// DefaultTop is how many classes of an output are named when nobody says it.
const DefaultTop = 5

// Size of a picture, in pixels.
type Size struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Shown is a picture and where it lies in the model's image.
type Shown struct {
	Size
	At picture.Placement
}

// ContentType is what the front calls a file that it takes as a whole; empty: none.
func ContentType(b []byte) string {
	switch {
	case IsWAV(b):
		return "audio/wav"
	case picture.IsFile(b):
		return http.DetectContentType(b)
	}
	return ""
}

// Class is what one row of an output of classes says, the highest scores first.
type Class struct {
	Output string  `json:"output"`
	Row    int     `json:"row,omitempty"` // of a batch
	Label  string  `json:"label"`         // the index when the bundle has no labels
	Index  int     `json:"index"`
	Score  float32 `json:"score"` // real value, as the model gives it
}

// Box is one thing that was found, the highest scores first.
type Box struct {
	Output string     `json:"output"`
	Label  string     `json:"label"`
	Index  int        `json:"index"`
	Score  float32    `json:"score"`
	Box    [4]float32 `json:"box"` // left, top, right, bottom: pixels of Picture, to 1/100, or without it as the model has them
}

// Results are outputs by name. A model without classes or boxes has none of them; one
// that found none has an empty list.
type Results struct {
	Picture *Size   `json:"picture,omitempty"` // whose pixels the boxes count
	Classes []Class `json:"classes,omitzero"`
	Boxes   []Box   `json:"boxes,omitzero"`
}

// Options of Name.
type Options struct {
	Top    int      // classes of each row, 0: DefaultTop
	Labels []string // by index
	Shown  *Shown   // what the request's picture was; nil: it was a tensor
}

// Check refuses a contract that names nothing.
func Check(c *bundle.Contract) error {
	for i := range c.Outputs {
		if m := c.Outputs[i].Meaning; m != nil && (m.Boxes != nil || m.Kind == "classes" && !part(c, c.Outputs[i].Name)) {
			return nil
		}
	}
	return errors.New("the contract says of no output that it holds classes, or how it holds boxes: only tensors can be given")
}

// Name says what outputs, in the contract's order, mean.
func Name(c *bundle.Contract, outputs [][]byte, o Options) (*Results, error) {
	if err := Check(c); err != nil {
		return nil, err
	}
	if len(outputs) != len(c.Outputs) {
		return nil, errors.New("there are not as many outputs as the contract has")
	}
	r := &Results{}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		switch m := t.Meaning; {
		case m == nil:
		case m.Boxes != nil:
			if err := r.addBoxes(c, i, outputs, &o); err != nil {
				return nil, err
			}
		case m.Kind == "classes" && !part(c, t.Name):
			r.addClasses(t, outputs[i], &o)
		}
	}
	return r, nil
}

// part tells whether an output belongs to one of boxes.
func part(c *bundle.Contract, name string) bool {
	return slices.ContainsFunc(c.Outputs, func(t bundle.Tensor) bool {
		return t.Meaning != nil && t.Meaning.Boxes != nil && slices.Contains([]string{t.Meaning.Boxes.Scores, t.Meaning.Boxes.Classes, t.Meaning.Boxes.Count}, name)
	})
}

// addClasses names the highest of each row. What is not a finite number has no place
// among them.
func (r *Results) addClasses(t *bundle.Tensor, b []byte, o *Options) {
	r.Classes = append([]Class{}, r.Classes...)
	values := real(t, b)
	width := len(values)
	if n := len(t.Shape); n > 0 && t.Shape[n-1] > 0 {
		width = t.Shape[n-1]
	}
	for row := 0; width > 0 && (row+1)*width <= len(values); row++ {
		scores := values[row*width : (row+1)*width]
		for _, k := range highest(scores, cmp.Or(o.Top, DefaultTop)) {
			r.Classes = append(r.Classes, Class{t.Name, row, label(o.Labels, k), k, float32(scores[k])})
		}
	}
}

// highest are the indices of the highest finite values, the highest first, equal ones
// in their order.
func highest(values []float64, most int) []int {
	var list []int
	for i, v := range values {
		if finite(v) {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return cmp.Compare(values[b], values[a]) })
	return list[:min(max(most, 0), len(list))]
}

// finite tells whether an answer can hold a number.
func finite(v float64) bool { return math.Abs(v) <= math.MaxFloat32 }

func label(labels []string, index int) string {
	if index >= 0 && index < len(labels) {
		return labels[index]
	}
	return strconv.Itoa(index)
}

// real are the real values of a tensor's bytes.
func real(t *bundle.Tensor, b []byte) []float64 {
	return t.Quant.Real(bundle.Values(t.DType, b), t.Shape)
}
