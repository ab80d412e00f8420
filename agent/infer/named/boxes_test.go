package named

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/meaning"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

func floats(list ...float64) []byte {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
	}
	return b
}

// detector is a contract whose first output holds boxes; its image has 100 by 50
// pixels.
func detector(b meaning.Boxes, shapes map[string][]int) *bundle.Contract {
	c := &bundle.Contract{Inputs: []bundle.Tensor{{Name: "image", DType: "FP32", Shape: []int{1, 50, 100, 3}, Meaning: &bundle.Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{0, 1}}}}}
	for _, name := range []string{"boxes", "scores", "classes", "count"} {
		if shape, ok := shapes[name]; ok {
			c.Outputs = append(c.Outputs, bundle.Tensor{Name: name, DType: "FP32", Shape: shape})
		}
	}
	c.Outputs[0].Meaning = &bundle.Meaning{Kind: "boxes", Boxes: &b}
	return c
}

// TestLayouts reads the same two boxes from every way to hold them.
func TestLayouts(t *testing.T) {
	want := []Box{
		{"boxes", "cat", 1, 0.75, [4]float32{10, 5, 30, 25}},
		{"boxes", "dog", 0, 0.5, [4]float32{50, 10, 90, 40}},
	}
	four := map[string][]int{"boxes": {1, 3, 4}, "scores": {1, 3}, "classes": {1, 3}, "count": {1}}
	pixels := func(b meaning.Boxes) meaning.Boxes { b.Pixels = true; return b }
	for _, c := range []struct {
		name    string
		b       meaning.Boxes
		shapes  map[string][]int
		outputs [][]byte
	}{
		{"four outputs, a third that does not count", meaning.Boxes{Layout: "yxyx", Scores: "scores", Classes: "classes", Count: "count"}, four, [][]byte{
			floats(0.2, 0.5, 0.8, 0.9, 0.1, 0.1, 0.5, 0.3, 0, 0, 1, 1), floats(0.5, 0.75, 0.9), floats(0, 1, 1), floats(2)}},
		{"four outputs of any size", meaning.Boxes{Layout: "yxyx", Scores: "scores", Classes: "classes", Count: "count"},
			map[string][]int{"boxes": {-1, -1, -1}, "scores": {-1, -1}, "classes": {-1, -1}, "count": {}}, [][]byte{
				floats(0.2, 0.5, 0.8, 0.9, 0.1, 0.1, 0.5, 0.3, 0, 0, 1, 1), floats(0.5, 0.75, 0.9), floats(0, 1, 1), floats(2)}},
		{"scores by class", pixels(meaning.Boxes{Layout: "xyxy", Scores: "scores"}), map[string][]int{"boxes": {1, 2, 4}, "scores": {1, 2, 2}}, [][]byte{
			floats(50, 10, 90, 40, 10, 5, 30, 25), floats(0.5, 0.25, 0, 0.75)}},
		{"alone, corner and size", pixels(meaning.Boxes{Layout: "xywh"}), map[string][]int{"boxes": {1, 2, 6}}, [][]byte{
			floats(50, 10, 40, 30, 0.5, 0.25, 10, 5, 20, 20, 0, 0.75)}},
		{"alone, in columns", meaning.Boxes{Layout: "cxcywh", Columns: true}, map[string][]int{"boxes": {1, 6, 2}}, [][]byte{
			floats(0.7, 0.2, 0.5, 0.3, 0.4, 0.2, 0.6, 0.4, 0.5, 0, 0.25, 0.75)}},
		{"alone, scaled by objectness", pixels(meaning.Boxes{Layout: "xyxy", Objectness: true}), map[string][]int{"boxes": {1, -1, 7}}, [][]byte{
			floats(50, 10, 90, 40, 0.5, 1, 0.5, 10, 5, 30, 25, 1, 0, 0.75)}},
		{"what is no box is left out", pixels(meaning.Boxes{Layout: "xyxy", Least: 0.4}), map[string][]int{"boxes": {1, 7, 6}}, [][]byte{floats(
			50, 10, 90, 40, 0.5, 0.25,
			50, 10, 50, 40, 0.9, 0, // no area
			math.NaN(), 10, 50, 40, 0.9, 0,
			50, 10, math.Inf(1), 40, 0.9, 0,
			0, 0, 10, 10, 0.3, 0.39, // too low
			0, 0, 10, 10, math.NaN(), math.NaN(),
			10, 5, 30, 25, 0, 0.75)}},
		{"the lower of two that overlap", pixels(meaning.Boxes{Layout: "xyxy", IoU: 0.5}), map[string][]int{"boxes": {1, 3, 6}}, [][]byte{
			floats(50, 10, 90, 40, 0.5, 0, 10, 5, 30, 25, 0, 0.75, 11, 5, 30, 25, 0, 0.7)}},
		{"the highest two", pixels(meaning.Boxes{Layout: "xyxy", Max: 2}), map[string][]int{"boxes": {1, 3, 6}}, [][]byte{
			floats(50, 10, 90, 40, 0.5, 0, 10, 5, 30, 25, 0, 0.75, 11, 5, 30, 25, 0, 0.4)}},
	} {
		r, err := Name(detector(c.b, c.shapes), c.outputs, Options{Labels: []string{"dog", "cat"}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(&Results{Picture: &Size{100, 50}, Boxes: want}, r); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// TestCarried takes boxes back to a picture that was made fit in each way.
func TestCarried(t *testing.T) {
	c := detector(meaning.Boxes{Layout: "xyxy", Pixels: true}, map[string][]int{"boxes": {1, 1, 5}})
	for _, x := range []struct {
		fit           string
		width, height int
		in            []byte
		want          []Box
	}{
		{"stretch", 200, 200, floats(10, 5, 30, 25, 1), []Box{{"boxes", "0", 0, 1, [4]float32{20, 20, 60, 100}}}},
		{"letterbox", 200, 50, floats(10, 15, 30, 25, 1), []Box{{"boxes", "0", 0, 1, [4]float32{20, 6, 60, 26}}}}, // 12 rows above, 13 below
		{"letterbox", 200, 50, floats(10, 0, 30, 25, 1), []Box{{"boxes", "0", 0, 1, [4]float32{20, 0, 60, 26}}}},  // cut at the picture's edge
		{"letterbox", 200, 50, floats(10, 0, 30, 10, 1), []Box{}},                                                 // nothing of the picture
		{"crop", 400, 50, floats(0, 0, 100, 50, 1), []Box{{"boxes", "0", 0, 1, [4]float32{150, 0, 250, 50}}}},
	} {
		t.Run(x.fit, func(t *testing.T) {
			c.Inputs[0].Meaning.Fit = &meaning.Fit{How: x.fit}
			rule, err := Rule(&c.Inputs[0])
			if err != nil {
				t.Fatal(err)
			}
			at, err := rule.Tensor(make([]byte, rule.Bytes()), &picture.Picture{Width: x.width, Height: x.height, Channels: 1, Pix: make([]byte, x.width*x.height)})
			if err != nil {
				t.Fatal(err)
			}
			size := Size{x.width, x.height}
			r, err := Name(c, [][]byte{x.in}, Options{Shown: &Shown{size, at}})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&Results{Picture: &size, Boxes: x.want}, r); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestSuppressed compares with the plain rule: of every pair that overlaps too much,
// the lower goes, if the higher has not gone itself.
func TestSuppressed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		iou := rapid.SampledFrom([]float64{0, 0.1, 0.5, 1}).Draw(t, "iou")
		most := rapid.IntRange(1, 30).Draw(t, "most")
		var list []candidate
		for range n {
			x, y := rapid.IntRange(0, 9).Draw(t, "x"), rapid.IntRange(0, 9).Draw(t, "y")
			w, h := rapid.IntRange(1, 9).Draw(t, "w"), rapid.IntRange(1, 9).Draw(t, "h")
			list = append(list, candidate{[4]float64{float64(x), float64(y), float64(x + w), float64(y + h)}, rapid.IntRange(0, 1).Draw(t, "class"), float64(rapid.IntRange(0, 5).Draw(t, "score"))})
		}
		have := suppress(choose(slices.Clone(list), 1), iou, most)
		want := plainly(list, 1, iou, most)
		if len(have) != len(want) {
			t.Fatalf("%d boxes, want %d", len(have), len(want))
		}
		for i := range have {
			if have[i] != want[i] {
				t.Fatalf("box %d: %v, want %v", i, have[i], want[i])
			}
		}
	})
}

// TestManyBoxes: only the highest ten thousand are compared.
func TestManyBoxes(t *testing.T) {
	var list []float64
	for range 10_000 {
		list = append(list, 10, 10, 20, 20, 0.9)
	}
	list = append(list, 60, 10, 70, 20, 0.1)
	r, err := Name(detector(meaning.Boxes{Layout: "xyxy", Pixels: true, IoU: 0.5}, map[string][]int{"boxes": {1, -1, 5}}), [][]byte{floats(list...)}, Options{})
	if err != nil || len(r.Boxes) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// plainly does what choose and suppress do, by counting cells of whole boxes.
func plainly(list []candidate, least, iou float64, most int) []candidate {
	var order []int
	for score := 5.0; score >= least; score-- {
		for i, c := range list {
			if c.score == score {
				order = append(order, i)
			}
		}
	}
	cells := func(c candidate) map[[2]float64]bool {
		m := map[[2]float64]bool{}
		for x := c.box[0]; x < c.box[2]; x++ {
			for y := c.box[1]; y < c.box[3]; y++ {
				m[[2]float64{x, y}] = true
			}
		}
		return m
	}
	gone := map[int]bool{}
	for k, i := range order {
		for _, j := range order[k+1:] {
			both, all := 0.0, cells(list[i])
			for cell := range cells(list[j]) {
				if all[cell] {
					both++
				}
				all[cell] = true
			}
			if !gone[i] && iou > 0 && list[i].class == list[j].class && both/float64(len(all)) > iou {
				gone[j] = true
			}
		}
	}
	var out []candidate
	for _, i := range order {
		if !gone[i] && len(out) < most {
			out = append(out, list[i])
		}
	}
	return out
}

// TestLayoutsAgree writes random boxes in every layout and reads the same.
func TestLayoutsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.IntRange(0, 64)
		x, y, w, h := v.Draw(t, "x"), v.Draw(t, "y"), 2*v.Draw(t, "w"), 2*v.Draw(t, "h") // halves are exact
		want := [4]float64{float64(x), float64(y), float64(x + w), float64(y + h)}
		for layout, in := range map[string][4]int{"xyxy": {x, y, x + w, y + h}, "yxyx": {y, x, y + h, x + w}, "xywh": {x, y, w, h}, "cxcywh": {x + w/2, y + h/2, w, h}} {
			if have := corners(layout, [4]float64{float64(in[0]), float64(in[1]), float64(in[2]), float64(in[3])}); have != want {
				t.Fatalf("%s: %v, want %v", layout, have, want)
			}
		}
	})
}

// FuzzBoxes: whatever a model answers, the results are finite, inside the picture,
// sorted and no more than asked for.
func FuzzBoxes(f *testing.F) {
	f.Add(floats(50, 10, 90, 40, 0.5, 0.25, 10, 5, 30, 25, 0, 0.75), uint8(0), uint8(2), true, false)
	f.Add(floats(math.NaN(), math.Inf(1), -3e38, 3e38, 3e38, 1), uint8(3), uint8(0), false, true)
	f.Add([]byte{1, 2, 3}, uint8(1), uint8(9), true, true)
	f.Fuzz(func(t *testing.T, b []byte, layout, most uint8, columns, alone bool) {
		boxes := meaning.Boxes{Layout: []string{"xyxy", "yxyx", "xywh", "cxcywh"}[layout%4], Columns: columns, IoU: 0.5, Max: int(most)}
		shapes := map[string][]int{"boxes": {1, -1, 6}}
		if columns {
			shapes["boxes"] = []int{1, 6, -1}
		}
		outputs := [][]byte{b}
		if !alone {
			boxes.Scores, boxes.Classes, boxes.Count = "scores", "classes", "count"
			shapes = map[string][]int{"boxes": {-1, -1}, "scores": {-1}, "classes": {-1}, "count": {}}
			outputs = [][]byte{b, b[len(b)/3:], b[len(b)/2:], b[len(b)*2/3:]}
		}
		r, err := Name(detector(boxes, shapes), outputs, Options{})
		if err != nil {
			return
		}
		if most > 0 && len(r.Boxes) > int(most) || len(r.Boxes) > meaning.DefaultBoxes && most == 0 {
			t.Fatalf("%d boxes", len(r.Boxes))
		}
		for i, x := range r.Boxes {
			in := x.Box[0] >= 0 && x.Box[1] >= 0 && x.Box[2] <= 100 && x.Box[3] <= 50 && x.Box[0] < x.Box[2] && x.Box[1] < x.Box[3]
			if !in || !finite(float64(x.Score)) || i > 0 && x.Score > r.Boxes[i-1].Score {
				t.Fatalf("%+v", r.Boxes)
			}
		}
	})
}

// BenchmarkBoxes is a detector's 8,400 boxes of 80 classes.
func BenchmarkBoxes(b *testing.B) {
	values := make([]float64, 84*8400)
	for i := range values {
		values[i] = float64(i*7919%1000) / 2000
	}
	out := [][]byte{floats(values...)}
	c := detector(meaning.Boxes{Layout: "cxcywh", Columns: true, IoU: 0.5, Least: 0.25}, map[string][]int{"boxes": {1, 84, 8400}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Name(c, out, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
