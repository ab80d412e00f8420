package named

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/meaning"
)

// maxCandidates bounds the boxes that are compared with each other; the highest are.
const maxCandidates = 10_000

// candidate is one box of a tensor: left, top, right, bottom.
type candidate struct {
	box   [4]float64
	class int
	score float64
}

// addBoxes names the boxes of output i: read, those of a low score and of no area left
// out, those that overlap a higher one of their class left out, carried to the pixels
// of the picture and cut at its edges.
func (r *Results) addBoxes(c *bundle.Contract, i int, outputs [][]byte, o *Options) error {
	t := &c.Outputs[i]
	b := t.Meaning.Boxes
	image, shown := imageOf(c), o.Shown
	scale := Size{1, 1}
	if image != nil {
		scale = *image
		if shown == nil {
			shown = whole(*image)
		}
		r.Picture = &shown.Size
	}
	found, err := read(c, i, outputs)
	if err != nil {
		return err
	}
	if !b.Pixels {
		for k := range found {
			x := &found[k].box
			*x = [4]float64{x[0] * float64(scale.Width), x[1] * float64(scale.Height), x[2] * float64(scale.Width), x[3] * float64(scale.Height)}
		}
	}
	r.Boxes = append([]Box{}, r.Boxes...)
	for _, f := range suppress(choose(found, b.Least), b.IoU, cmp.Or(b.Max, meaning.DefaultBoxes)) {
		if box, ok := carry(f.box, image, shown); ok {
			r.Boxes = append(r.Boxes, Box{t.Name, label(o.Labels, f.class), f.class, float32(f.score), box})
		}
	}
	return nil
}

// carry takes a box from the image's pixels to the picture's. A box that shows nothing
// of the picture, but of the edge beside it, is none.
func carry(box [4]float64, image *Size, shown *Shown) ([4]float32, bool) {
	if image == nil {
		return [4]float32{float32(box[0]), float32(box[1]), float32(box[2]), float32(box[3])}, true
	}
	x0, y0 := shown.At.Source(box[0], box[1])
	x1, y1 := shown.At.Source(box[2], box[3])
	pixel := func(v float64, most int) float32 {
		return float32(math.Round(100*min(max(v, 0), float64(most))) / 100)
	}
	out := [4]float32{pixel(x0, shown.Width), pixel(y0, shown.Height), pixel(x1, shown.Width), pixel(y1, shown.Height)}
	return out, out[0] < out[2] && out[1] < out[3]
}

// columns are the numbers of boxes as a tensor holds them.
type columns struct {
	values     []float64
	n, numbers int
	turned     bool // a box is a column
}

func (c *columns) at(box, number int) float64 {
	if c.turned {
		return c.values[number*c.n+box]
	}
	return c.values[box*c.numbers+number]
}

// layOut finds out how many boxes of how many numbers an output holds.
func layOut(t *bundle.Tensor, b *meaning.Boxes, values []float64) (*columns, error) {
	n, numbers, ok := b.Size(t.Shape)
	if ok && numbers < 0 && b.Scores != "" {
		numbers = 4
	}
	switch {
	case ok && n < 0 && numbers > 0:
		n = len(values) / numbers
	case ok && numbers < 0 && n > 0:
		numbers = len(values) / n
	}
	least := 4
	if b.Scores == "" {
		least = b.Front() + 1
	}
	if !ok || n < 0 || numbers < least || len(values) < n*numbers {
		return nil, fmt.Errorf("output %q of %d numbers and shape %v does not say how many boxes it holds", t.Name, len(values), t.Shape)
	}
	return &columns{values, n, numbers, b.Columns}, nil
}

// read takes the boxes out of their outputs, as their layout has them.
func read(c *bundle.Contract, i int, outputs [][]byte) ([]candidate, error) {
	t := &c.Outputs[i]
	b := t.Meaning.Boxes
	boxes, err := layOut(t, b, real(t, outputs[i]))
	if err != nil {
		return nil, err
	}
	of := func(name string) []float64 {
		for k := range c.Outputs {
			if c.Outputs[k].Name == name {
				return real(&c.Outputs[k], outputs[k])
			}
		}
		return nil
	}
	n := boxes.n
	if b.Count != "" {
		n = 0
		if count := of(b.Count); len(count) > 0 && count[0] > 0 {
			n = int(min(count[0], float64(boxes.n)))
		}
	}
	judge := boxes.judge(b)
	if b.Scores != "" {
		judge = beside(of(b.Scores), of(b.Classes), b.Classes != "", boxes.n)
	}
	list := make([]candidate, 0, n)
	for k := range n {
		class, score := judge(k)
		box := corners(b.Layout, [4]float64{boxes.at(k, 0), boxes.at(k, 1), boxes.at(k, 2), boxes.at(k, 3)})
		list = append(list, candidate{box, class, score})
	}
	return list, nil
}

// judge says the class and score of each box whose scores stand behind it. Without any
// score the class is -1. It goes through the numbers as they lie in memory.
func (c *columns) judge(b *meaning.Boxes) func(box int) (int, float64) {
	front := b.Front()
	classes, scores := slices.Repeat([]int{-1}, c.n), make([]float64, c.n)
	look := func(box, class int, v float64) {
		if v > scores[box] || classes[box] < 0 && !math.IsNaN(v) {
			classes[box], scores[box] = class, v
		}
	}
	if c.turned {
		for class := range c.numbers - front {
			for box, v := range c.values[(front+class)*c.n:][:c.n] {
				look(box, class, v)
			}
		}
	} else {
		for box := range c.n {
			for class, v := range c.values[box*c.numbers:][front:c.numbers] {
				look(box, class, v)
			}
		}
	}
	return func(box int) (int, float64) {
		if b.Objectness {
			return classes[box], scores[box] * c.at(box, 4)
		}
		return classes[box], scores[box]
	}
}

// beside says the class and score of one of n boxes from other outputs.
func beside(scores, classes []float64, named bool, n int) func(box int) (int, float64) {
	width := max(len(scores)/max(n, 1), 1)
	if named {
		width = 1
	}
	return func(box int) (int, float64) {
		if (box+1)*width > len(scores) {
			return -1, 0
		}
		best := highest(scores[box*width:(box+1)*width], 1)
		switch {
		case len(best) == 0, named && box >= len(classes):
			return -1, 0
		case !named:
			return best[0], scores[box*width+best[0]]
		case !(classes[box] >= 0 && classes[box] < 1<<20):
			return -1, 0
		}
		return int(math.Round(classes[box])), scores[box]
	}
}

// corners is left, top, right, bottom of what a layout holds.
func corners(layout string, v [4]float64) [4]float64 {
	switch layout {
	case "yxyx":
		return [4]float64{v[1], v[0], v[3], v[2]}
	case "xywh":
		return [4]float64{v[0], v[1], v[0] + v[2], v[1] + v[3]}
	case "cxcywh":
		return [4]float64{v[0] - v[2]/2, v[1] - v[3]/2, v[0] + v[2]/2, v[1] + v[3]/2}
	}
	return v
}

// choose leaves out what is no box or scores too low, and sorts: the highest first,
// equal ones in their order.
func choose(list []candidate, least float64) []candidate {
	list = slices.DeleteFunc(list, func(c candidate) bool {
		sound := c.class >= 0 && finite(c.score) && c.score >= least && c.box[0] < c.box[2] && c.box[1] < c.box[3]
		for _, v := range c.box {
			sound = sound && finite(v)
		}
		return !sound
	})
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	return list[:min(len(list), maxCandidates)]
}

// suppress keeps, the highest first, each box that overlaps no kept one of its class
// by more than iou; 0: all. At most that many are kept.
func suppress(list []candidate, iou float64, most int) []candidate {
	var kept []candidate
	for _, c := range list {
		if len(kept) == most {
			break
		}
		if iou == 0 || !slices.ContainsFunc(kept, func(k candidate) bool { return k.class == c.class && overlap(k.box, c.box) > iou }) {
			kept = append(kept, c)
		}
	}
	return kept
}

// overlap is the area of what two boxes share over that of both together.
func overlap(a, b [4]float64) float64 {
	width, height := min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
	if width <= 0 || height <= 0 {
		return 0
	}
	shared := width * height
	return shared / ((a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1]) - shared)
}
