// Package meaning says what the numbers of a tensor stand for: pictures, sounds,
// classes, boxes. It knows shapes and nothing else of tensors, and is pure.
package meaning

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Meaning says what the numbers of a tensor stand for. What is left out was not
// said; only devices that find enough said take pictures and sounds for the tensor,
// or name what it answers.
type Meaning struct {
	Kind   string       `json:"kind"`             // "image", "audio", "classes", "boxes", "embedding", "tensor"
	Colour string       `json:"colour,omitempty"` // image: "gray", "rgb", "bgr"
	Range  [2]float64   `json:"range,omitzero"`   // image: real value of black and white
	Ranges [][2]float64 `json:"ranges,omitempty"` // image: instead of Range, one each for red, green and blue
	Planar bool         `json:"planar,omitempty"` // image: channels by height by width
	Fit    *Fit         `json:"fit,omitempty"`    // image: how a picture of another shape becomes it; nil: stretched, bilinear
	Score  string       `json:"score,omitempty"`  // classes: "softmax", "sigmoid", "logits"
	Audio  *Audio       `json:"audio,omitempty"`
	Boxes  *Boxes       `json:"boxes,omitempty"`
}

// Fit says how a picture is made fit, as docs/pictures.md defines it.
type Fit struct {
	How    string `json:"how,omitempty"`    // "stretch" (default), "letterbox", "crop"
	Filter string `json:"filter,omitempty"` // "bilinear" (default), "nearest"
	Fill   uint8  `json:"fill,omitempty"`   // of every channel, beside a letterbox
}

// Audio says of one channel of sound what a window of it is.
type Audio struct {
	Rate   int `json:"rate"`          // samples a second
	Window int `json:"window"`        // samples, as many as the tensor has elements
	Hop    int `json:"hop,omitempty"` // samples from window to window; 0: Window
}

// Boxes says how a tensor holds boxes: [1, N, 4] beside other outputs, or alone
// [1, N, 4 + classes]. The batch may be left out.
type Boxes struct {
	Layout     string  `json:"layout"`               // of the four numbers: "xyxy", "yxyx" (corners), "xywh" (corner and size), "cxcywh" (centre and size)
	Pixels     bool    `json:"pixels,omitempty"`     // of the model's image; false: 0..1 of its sides
	Columns    bool    `json:"columns,omitempty"`    // a box is a column: [1, 4 + classes, N]
	Objectness bool    `json:"objectness,omitempty"` // alone: a fifth number that scales every class's score
	Scores     string  `json:"scores,omitempty"`     // output [1, N], or [1, N, classes]; empty: behind the four numbers
	Classes    string  `json:"classes,omitempty"`    // output [1, N] of class indices
	Count      string  `json:"count,omitempty"`      // output with how many of the N are boxes
	IoU        float64 `json:"iou,omitempty"`        // of two boxes of a class that overlap more, the lower is dropped; 0: none is
	Least      float64 `json:"least,omitempty"`      // score below which nothing counts
	Max        int     `json:"max,omitempty"`        // boxes that are given at most; 0: 100
}

// Limits.
const (
	MaxBoxes     = 1000 // that a contract may ask for
	DefaultBoxes = 100

	maxRate   = 1 << 20 // samples a second
	maxWindow = 1 << 30 // samples
)

// FitOf is how pictures are made fit, with what is not said filled in.
func (m *Meaning) FitOf() Fit {
	f := Fit{}
	if m.Fit != nil {
		f = *m.Fit
	}
	return Fit{cmp.Or(f.How, "stretch"), cmp.Or(f.Filter, "bilinear"), f.Fill}
}

// Channels is 1 of a gray image, 3 of another, 0 if the colour is not said.
func (m *Meaning) Channels() int {
	switch m.Colour {
	case "":
		return 0
	case "gray":
		return 1
	}
	return 3
}

// ImageSize is the size of the image that a tensor of that shape holds, -1 where it is
// dynamic: [batch, height, width, channels], planar [batch, channels, height, width],
// or [batch, height, width] of gray. ok is false when the shape is another.
func (m *Meaning) ImageSize(shape []int) (width, height int, ok bool) {
	known := func(channels int) bool { return channels == m.Channels() || channels == -1 }
	switch {
	case len(shape) == 4 && m.Planar && known(shape[1]):
		return shape[3], shape[2], true
	case len(shape) == 4 && !m.Planar && known(shape[3]), len(shape) == 3 && m.Channels() == 1:
		return shape[2], shape[1], true
	}
	return 0, 0, false
}

// Validate checks a meaning against its own tensor's shape. The error says what was
// wanted.
func (m *Meaning) Validate(shape []int) error {
	if !slices.Contains([]string{"image", "audio", "classes", "boxes", "embedding", "tensor"}, m.Kind) {
		return fmt.Errorf("meaning %.32q", m.Kind)
	}
	if !slices.Contains([]string{"", "softmax", "sigmoid", "logits"}, m.Score) {
		return fmt.Errorf("score %.32q", m.Score)
	}
	if m.Kind != "image" && (m.Ranges != nil || m.Planar || m.Fit != nil) || m.Kind != "audio" && m.Audio != nil || m.Kind != "boxes" && m.Boxes != nil {
		return fmt.Errorf("what is said belongs to another meaning than %s", m.Kind)
	}
	if err := m.validateImage(shape); err != nil {
		return err
	}
	return m.validateAudio(shape)
}

func (m *Meaning) validateImage(shape []int) error {
	if !slices.Contains([]string{"", "gray", "rgb", "bgr"}, m.Colour) {
		return fmt.Errorf("colour %.32q", m.Colour)
	}
	if !finite(m.Range[0]) || !finite(m.Range[1]) {
		return fmt.Errorf("range %v", m.Range)
	}
	if m.Ranges != nil && (len(m.Ranges) != 3 || m.Channels() != 3 || m.Range != [2]float64{}) {
		return errors.New("ranges are three, for red, green and blue, and there is no other range")
	}
	for _, r := range m.Ranges {
		if !finite(r[0]) || !finite(r[1]) || r[0] == r[1] {
			return fmt.Errorf("range %v", r)
		}
	}
	if f := m.FitOf(); !slices.Contains([]string{"stretch", "letterbox", "crop"}, f.How) || f.Filter != "bilinear" && f.Filter != "nearest" {
		return fmt.Errorf("fit %.32q, filter %.32q; stretch, letterbox or crop and bilinear or nearest are known", f.How, f.Filter)
	}
	if m.Kind != "image" || m.Colour == "" || len(shape) < 3 { // one that is flattened shows no sides
		return nil
	}
	if _, _, ok := m.ImageSize(shape); !ok {
		return fmt.Errorf("an image %s wants the shape %s, it is %v", m.Colour, m.imageShape(), shape)
	}
	return nil
}

// imageShape is the shape that an image has, for people.
func (m *Meaning) imageShape() string {
	switch {
	case m.Planar:
		return fmt.Sprintf("[batch %d height width]", m.Channels())
	case m.Colour == "gray":
		return "[batch height width 1] or [batch height width]"
	}
	return fmt.Sprintf("[batch height width %d]", m.Channels())
}

func (m *Meaning) validateAudio(shape []int) error {
	a := m.Audio
	if a == nil {
		return nil
	}
	if a.Rate < 1 || a.Rate > maxRate || a.Window < 1 || a.Window > maxWindow || a.Hop < 0 || a.Hop > a.Window {
		return fmt.Errorf("audio of %d Hz, window %d, hop %d: a rate, a window and a hop of at most the window are wanted", a.Rate, a.Window, a.Hop)
	}
	n, free := 1, false
	for _, d := range shape {
		n, free = n*max(d, 1), free || d < 0
	}
	if n != a.Window && !(free && a.Window%n == 0) {
		return fmt.Errorf("a window of %d samples does not fit a tensor of %d elements, %v", a.Window, n, shape)
	}
	return nil
}

// Validate checks boxes in an output of that name and shape against the others;
// shapeOf says the shape of an output, and whether there is one.
func (b *Boxes) Validate(name string, shape []int, shapeOf func(output string) ([]int, bool)) error {
	if !slices.Contains([]string{"xyxy", "yxyx", "xywh", "cxcywh"}, b.Layout) {
		return fmt.Errorf("boxes %.32q; xyxy, yxyx, xywh and cxcywh are known", b.Layout)
	}
	if !(b.IoU >= 0 && b.IoU <= 1) || !finite(b.Least) || b.Max < 0 || b.Max > MaxBoxes {
		return fmt.Errorf("boxes with an overlap of %v, a least score of %v, at most %d", b.IoU, b.Least, b.Max)
	}
	n, numbers, ok := b.Size(shape)
	switch {
	case b.Scores == "" && (b.Classes != "" || b.Count != ""), b.Scores != "" && b.Objectness:
		return errors.New("outputs with classes and a count belong to one with scores, which has no objectness")
	case b.Scores != "" && (!ok || numbers != 4 && numbers != -1):
		return fmt.Errorf("boxes with scores in %.64q want the shape %s, it is %v", b.Scores, b.shape("4"), shape)
	case b.Scores == "" && (!ok || numbers != -1 && numbers < b.Front()+1):
		return fmt.Errorf("boxes with scores behind them want the shape %s, it is %v", b.shape(fmt.Sprint(b.Front(), "+classes")), shape)
	}
	for _, o := range [][2]string{{"scores", b.Scores}, {"classes", b.Classes}, {"count", b.Count}} {
		if o[1] == "" {
			continue
		}
		other, ok := shapeOf(o[1])
		if !ok || o[1] == name {
			return fmt.Errorf("the %s of its boxes are in %.64q, which is no other output", o[0], o[1])
		}
		if !besides(o[0], other, n, b.Classes != "") {
			return fmt.Errorf("the %s of its %d boxes are in %s, whose shape is %v", o[0], n, o[1], other)
		}
	}
	return nil
}

// Size takes the number of boxes and of each one's numbers from a shape, -1 where it
// is dynamic.
func (b *Boxes) Size(shape []int) (n, numbers int, ok bool) {
	shape = WithoutBatch(shape, 2)
	if len(shape) != 2 {
		return 0, 0, false
	}
	if b.Columns {
		return shape[1], shape[0], true
	}
	return shape[0], shape[1], true
}

// Front is how many numbers of a box stand before its classes' scores.
func (b *Boxes) Front() int {
	if b.Objectness {
		return 5
	}
	return 4
}

// shape is what people are told that boxes of so many numbers have.
func (b *Boxes) shape(numbers string) string {
	if b.Columns {
		return "[1 " + numbers + " N]"
	}
	return "[1 N " + numbers + "]"
}

// besides tells whether an output's shape goes with n boxes.
func besides(key string, shape []int, n int, classes bool) bool {
	same := func(d int) bool { return d == n || d == -1 || n == -1 }
	switch {
	case key == "count":
		return len(WithoutBatch(shape, 0)) == 0
	case key == "scores" && !classes && byClass(shape):
		return same(WithoutBatch(shape, 2)[0])
	}
	s := WithoutBatch(shape, 1)
	return len(s) == 1 && same(s[0])
}

// byClass tells whether the scores of boxes have a class dimension behind the boxes'.
func byClass(shape []int) bool { return len(shape) == 3 || len(shape) == 2 && shape[0] > 1 }

// WithoutBatch takes leading dimensions of 1 or any size off a shape until it has
// rank dimensions.
func WithoutBatch(shape []int, rank int) []int {
	for len(shape) > rank && (shape[0] == 1 || shape[0] == -1) {
		shape = shape[1:]
	}
	return shape
}

// ClassCount is how many classes boxes of that shape tell apart by it or by the shape of
// their scores, which is nil without such an output; 0 if neither says it.
func (b *Boxes) ClassCount(shape, scores []int) int {
	if b.Scores == "" {
		_, numbers, _ := b.Size(shape)
		return max(numbers-b.Front(), 0)
	}
	if b.Classes == "" && byClass(scores) {
		return max(scores[len(scores)-1], 0)
	}
	return 0
}

// String writes a meaning as model.yaml has it, without an image's size.
func (m *Meaning) String() string {
	words := []string{m.Kind}
	add := func(format string, when bool, args ...any) {
		if when {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add("%s", m.Colour != "", m.Colour)
	add("%s", m.Score != "", m.Score)
	add("%v..%v", m.Range != [2]float64{}, m.Range[0], m.Range[1])
	if len(m.Ranges) == 3 {
		r := m.Ranges
		add("%v..%v,%v..%v,%v..%v", true, r[0][0], r[0][1], r[1][0], r[1][1], r[2][0], r[2][1])
	}
	add("planar", m.Planar)
	if f := m.FitOf(); m.Fit != nil {
		add("%s", f.How != "stretch", f.How)
		add("%s", f.Filter != "bilinear", f.Filter)
		add("fill %d", f.Fill != 0, f.Fill)
	}
	if a := m.Audio; a != nil {
		add("%dHz window %d", true, a.Rate, a.Window)
		add("hop %d", a.Hop != 0, a.Hop)
	}
	if b := m.Boxes; b != nil {
		add("%s", true, b.Layout)
		add("pixels", b.Pixels)
		add("normalised", !b.Pixels)
		add("columns", b.Columns)
		add("objectness", b.Objectness)
		add("scores %s", b.Scores != "", b.Scores)
		add("classes %s", b.Classes != "", b.Classes)
		add("count %s", b.Count != "", b.Count)
		add("nms %v", b.IoU != 0, b.IoU)
		add("least %v", b.Least != 0, b.Least)
		add("max %d", b.Max != 0, b.Max)
	}
	return strings.Join(words, " ")
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
