package named

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

// Rule is how a picture becomes a tensor by its meaning. The error says what of it a
// contract does not say.
func Rule(t *bundle.Tensor) (*picture.Rule, error) {
	m := t.Meaning
	if m == nil || m.Kind != "image" {
		return nil, fmt.Errorf("the contract does not say that it is an image: %s %v is wanted", t.DType, t.Shape)
	}
	width, height, ok := m.ImageSize(t.Shape)
	switch {
	case m.Colour == "" || m.Ranges == nil && m.Range[0] == m.Range[1]:
		return nil, fmt.Errorf("the contract does not say the image's colours and range: %s %v is wanted", t.DType, t.Shape)
	case !ok || width < 0 || height < 0:
		return nil, fmt.Errorf("an image of shape %v has no size that a picture could be made fit for", t.Shape)
	case t.Shape[0] != 1 && t.Shape[0] != -1:
		return nil, fmt.Errorf("the model takes %d images at a time: one picture does not do", t.Shape[0])
	}
	fit := m.FitOf()
	r := &picture.Rule{
		Width: width, Height: height, Colour: m.Colour, Planar: m.Planar, Resize: fit.Filter, Fit: fit.How, Fill: fit.Fill,
		Range: m.Ranges, DType: t.DType,
	}
	if r.Range == nil {
		r.Range = [][2]float64{m.Range}
	}
	if q := t.Quant; q != nil {
		if len(q.Scale) != 1 {
			return nil, fmt.Errorf("a picture does not become a tensor of %d scales", len(q.Scale))
		}
		r.Scale, r.Zero = float64(q.Scale[0]), q.Zero[0]
	}
	return r, r.Validate()
}

// imageOf is the size of the contract's first image, nil if it has none of a size.
func imageOf(c *bundle.Contract) *Size {
	for i := range c.Inputs {
		t := &c.Inputs[i]
		if t.Meaning == nil || t.Meaning.Kind != "image" {
			continue
		}
		if width, height, ok := t.Meaning.ImageSize(t.Shape); ok && width > 0 && height > 0 {
			return &Size{width, height}
		}
	}
	return nil
}

// whole shows a picture of the image's own size.
func whole(s Size) *Shown {
	return &Shown{s, picture.Placement{Width: s.Width, Height: s.Height, FromW: s.Width, FromH: s.Height}}
}

// Shape is the shape of a tensor that a picture or a sound became: any batch is one, any
// channels are as many as the colour has, any length is that of the window.
func Shape(t *bundle.Tensor) []int {
	shape := slices.Clone(t.Shape)
	for i, d := range shape {
		shape[i] = cmp.Or(max(d, 0), 1)
	}
	switch m := t.Meaning; {
	case m.Audio != nil:
		n := 1
		for _, d := range shape {
			n *= d
		}
		for i := len(shape) - 1; i >= 0 && n != m.Audio.Window; i-- {
			if t.Shape[i] < 0 {
				shape[i] = m.Audio.Window / n
				break
			}
		}
	case len(shape) == 4 && m.Planar:
		shape[1] = m.Channels()
	case len(shape) == 4:
		shape[3] = m.Channels()
	}
	return shape
}
