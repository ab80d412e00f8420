package bundle

import (
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle/meaning"
)

// TestMeanings checks meanings against tensors: what fits, and what is said of what
// does not.
func TestMeanings(t *testing.T) {
	rgb := func(change func(m *Meaning)) *Meaning {
		m := &Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{-1, 1}}
		change(m)
		return m
	}
	as := func(*Meaning) {}
	three := [][2]float64{{0, 1}, {-1, 1}, {0, 2}}
	for _, c := range []struct {
		name  string
		m     *Meaning
		shape []int
		says  string // empty: valid
	}{
		{"rgb", rgb(as), []int{1, 8, 6, 3}, ""},
		{"any size", rgb(as), []int{-1, -1, -1, 3}, ""},
		{"rgb of one channel", rgb(as), []int{1, 8, 6, 1}, "an image rgb wants the shape [batch height width 3], it is [1 8 6 1]"},
		{"rgb without channels", rgb(as), []int{1, 8, 6}, "wants the shape"},
		{"flattened", rgb(as), []int{1, 144}, ""},
		{"planar", rgb(func(m *Meaning) { m.Planar = true }), []int{1, 3, 8, 6}, ""},
		{"planar of rows", rgb(func(m *Meaning) { m.Planar = true }), []int{1, 8, 6, 3}, "[batch 3 height width]"},
		{"gray without channels", &Meaning{Kind: "image", Colour: "gray"}, []int{1, 8, 6}, ""},
		{"gray of three", &Meaning{Kind: "image", Colour: "gray"}, []int{1, 8, 6, 3}, "an image gray wants"},
		{"colour", rgb(func(m *Meaning) { m.Colour = "pink" }), []int{1, 8, 6, 3}, `colour "pink"`},
		{"letterbox", rgb(func(m *Meaning) { m.Fit = &meaning.Fit{How: "letterbox", Filter: "nearest", Fill: 114} }), []int{1, 8, 6, 3}, ""},
		{"fit", rgb(func(m *Meaning) { m.Fit = &meaning.Fit{How: "squeeze"} }), []int{1, 8, 6, 3}, `fit "squeeze"`},
		{"filter", rgb(func(m *Meaning) { m.Fit = &meaning.Fit{Filter: "cubic"} }), []int{1, 8, 6, 3}, `filter "cubic"`},
		{"two ranges", rgb(func(m *Meaning) { m.Ranges = three }), []int{1, 8, 6, 3}, "there is no other range"},
		{"ranges", &Meaning{Kind: "image", Colour: "bgr", Ranges: three}, []int{1, 8, 6, 3}, ""},
		{"ranges of gray", &Meaning{Kind: "image", Colour: "gray", Ranges: three}, []int{1, 8, 6, 1}, "ranges are three"},
		{"no range at all", &Meaning{Kind: "image", Colour: "rgb", Ranges: [][2]float64{{0, 1}, {1, 1}, {0, 1}}}, []int{1, 8, 6, 3}, "range [1 1]"},
		{"fit of classes", &Meaning{Kind: "classes", Fit: &meaning.Fit{}}, []int{1, 3}, "belongs to another meaning than classes"},
		{"audio", &Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 15600, Hop: 7800}}, []int{1, 15600}, ""},
		{"audio of any length", &Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 15600, Hop: 0}}, []int{-1}, ""},
		{"audio, other window", &Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 16000, Hop: 0}}, []int{15600}, "a window of 16000 samples does not fit a tensor of 15600 elements"},
		{"audio, hop", &Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 15600, Hop: 15601}}, []int{15600}, "a hop of at most the window"},
		{"audio, rate", &Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 0, Window: 15600, Hop: 0}}, []int{15600}, "audio of 0 Hz"},
		{"audio only named", &Meaning{Kind: "audio"}, []int{15600}, ""},
		{"boxes go in", &Meaning{Kind: "boxes", Boxes: &meaning.Boxes{Layout: "xyxy"}}, []int{1, 9, 5}, "only outputs hold boxes"},
		{"kind", &Meaning{Kind: "smell"}, []int{1}, `meaning "smell"`},
		{"score", &Meaning{Kind: "classes", Score: "odds"}, []int{1}, `score "odds"`},
	} {
		x := sample()
		x.Inputs[0].Shape, x.Inputs[0].Meaning = c.shape, c.m
		err := x.Validate()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// TestBoxes checks outputs that belong to each other.
func TestBoxes(t *testing.T) {
	post := meaning.Boxes{Layout: "yxyx", Scores: "scores", Classes: "classes", Count: "count"}
	with := func(change func(b *meaning.Boxes)) meaning.Boxes { b := post; change(&b); return b }
	four := map[string][]int{"boxes": {1, 10, 4}, "scores": {1, 10}, "classes": {1, 10}, "count": {1}}
	but := func(name string, shape ...int) map[string][]int {
		m := map[string][]int{}
		for k, v := range four {
			m[k] = v
		}
		m[name] = shape
		return m
	}
	for _, c := range []struct {
		name   string
		b      meaning.Boxes
		shapes map[string][]int
		says   string
	}{
		{"four outputs", post, four, ""},
		{"four outputs of any size", post, map[string][]int{"boxes": {-1, -1, -1}, "scores": {-1, -1}, "classes": {-1, -1}, "count": {}}, ""},
		{"scores by class", meaning.Boxes{Layout: "cxcywh", Scores: "scores"}, but("scores", 1, 10, 80), ""},
		{"one class", meaning.Boxes{Layout: "xyxy", Scores: "scores"}, four, ""},
		{"alone", meaning.Boxes{Layout: "cxcywh", IoU: 0.5, Least: 0.25, Max: 300}, map[string][]int{"boxes": {1, 8400, 84}}, ""},
		{"alone in columns", meaning.Boxes{Layout: "xywh", Columns: true}, map[string][]int{"boxes": {1, 84, 8400}}, ""},
		{"layout", with(func(b *meaning.Boxes) { b.Layout = "xxyy" }), four, `boxes "xxyy"`},
		{"five numbers", post, but("boxes", 1, 10, 5), "want the shape [1 N 4], it is [1 10 5]"},
		{"alone without classes", meaning.Boxes{Layout: "xyxy"}, map[string][]int{"boxes": {1, 10, 4}}, "want the shape [1 N 4+classes]"},
		{"alone, objectness only", meaning.Boxes{Layout: "xyxy", Objectness: true}, map[string][]int{"boxes": {1, 10, 5}}, "want the shape [1 N 5+classes]"},
		{"alone, flat", meaning.Boxes{Layout: "xyxy", Columns: true}, map[string][]int{"boxes": {85}}, "want the shape [1 4+classes N]"},
		{"no such output", with(func(b *meaning.Boxes) { b.Scores = "odds" }), four, `the scores of its boxes are in "odds", which is no other output`},
		{"itself", with(func(b *meaning.Boxes) { b.Classes = "boxes" }), four, "which is no other output"},
		{"fewer scores", post, but("scores", 1, 9), "the scores of its 10 boxes are in scores, whose shape is [1 9]"},
		{"count of many", post, but("count", 1, 10), "whose shape is [1 10]"},
		{"classes alone", meaning.Boxes{Layout: "xyxy", Classes: "classes"}, four, "belong to one with scores"},
		{"overlap", with(func(b *meaning.Boxes) { b.IoU = 1.5 }), four, "an overlap of 1.5"},
		{"too many", with(func(b *meaning.Boxes) { b.Max = meaning.MaxBoxes + 1 }), four, "at most 1001"},
	} {
		x := sample()
		x.Golden, x.Watch, x.Reference, x.Labels = nil, nil, nil, ""
		x.Outputs = nil
		for _, name := range []string{"boxes", "scores", "classes", "count"} {
			if shape, ok := c.shapes[name]; ok {
				x.Outputs = append(x.Outputs, Tensor{Name: name, DType: "FP32", Shape: shape})
			}
		}
		x.Outputs[0].Meaning = &Meaning{Kind: "boxes", Boxes: &c.b}
		err := x.Validate()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// TestBoxLabels compares labels with the classes that boxes have.
func TestBoxLabels(t *testing.T) {
	c := &Contract{Labels: "labels.txt", Outputs: []Tensor{{Name: "boxes", Shape: []int{1, 5, 100}, Meaning: &Meaning{Kind: "boxes", Boxes: &meaning.Boxes{Layout: "xyxy"}}}}}
	if err := c.CheckLabels([]byte("a\nb\n")); err == nil || !strings.Contains(err.Error(), "96 classes") {
		t.Error(err)
	}
	c.Outputs[0].Meaning.Boxes.Columns = true
	if err := c.CheckLabels([]byte("a\n")); err != nil {
		t.Error(err)
	}
	c.Outputs[0].Meaning.Boxes.Scores = "scores"
	c.Outputs = append(c.Outputs, Tensor{Name: "scores", Shape: []int{1, 100, 3}})
	if err := c.CheckLabels([]byte("a\nb\n")); err == nil || !strings.Contains(err.Error(), "3 classes") {
		t.Error(err)
	}
}
