package pack

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	meanings "github.com/dunlin-edge/dunlin/shared/bundle/meaning"
)

func TestMeaning(t *testing.T) {
	type sized struct {
		bundle.Meaning
		width, height int
	}
	of := func(m bundle.Meaning) sized { return sized{Meaning: m} }
	boxes := func(b meanings.Boxes) sized { return of(bundle.Meaning{Kind: "boxes", Boxes: &b}) }
	for text, want := range map[string]sized{
		"image gray 8x6 0..1":    {bundle.Meaning{Kind: "image", Colour: "gray", Range: [2]float64{0, 1}}, 8, 6},
		"image -1..1 rgb":        {bundle.Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{-1, 1}}, 0, 0},
		"image bgr 0..255 10x10": {bundle.Meaning{Kind: "image", Colour: "bgr", Range: [2]float64{0, 255}}, 10, 10},
		"image rgb 224x200 -1..1 letterbox fill 114 nearest": {bundle.Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{-1, 1}, Fit: &meanings.Fit{How: "letterbox", Filter: "nearest", Fill: 114}}, 224, 200},
		"image rgb nchw mean 0.5 std 0.25":                   of(bundle.Meaning{Kind: "image", Colour: "rgb", Planar: true, Range: [2]float64{-2, 2}}),
		"image rgb crop mean 0,0.5,1 std 0.5":                of(bundle.Meaning{Kind: "image", Colour: "rgb", Fit: &meanings.Fit{How: "crop"}, Ranges: [][2]float64{{0, 2}, {-1, 1}, {-2, 0}}}),
		"image rgb 0..1,-1..1,0..1e-3":                       of(bundle.Meaning{Kind: "image", Colour: "rgb", Ranges: [][2]float64{{0, 1}, {-1, 1}, {0, 0.001}}}),
		"classes sigmoid":                                    of(bundle.Meaning{Kind: "classes", Score: "sigmoid"}),
		" embedding ":                                        of(bundle.Meaning{Kind: "embedding"}),
		"boxes":                                              of(bundle.Meaning{Kind: "boxes"}),
		"boxes xyxy normalised nms 0.5":                      boxes(meanings.Boxes{Layout: "xyxy", IoU: 0.5}),
		"boxes cxcywh pixels columns objectness least 0.25 max 20 nms 0.45": boxes(meanings.Boxes{Layout: "cxcywh", Pixels: true, Columns: true, Objectness: true, Least: 0.25, Max: 20, IoU: 0.45}),
		"boxes yxyx scores s classes c count Call:0":                        boxes(meanings.Boxes{Layout: "yxyx", Scores: "s", Classes: "c", Count: "Call:0"}),
		"audio":                             of(bundle.Meaning{Kind: "audio"}),
		"audio 16kHz window 15600 hop 7800": of(bundle.Meaning{Kind: "audio", Audio: &meanings.Audio{Rate: 16000, Window: 15600, Hop: 7800}}),
		"audio window 10 22.05kHz":          of(bundle.Meaning{Kind: "audio", Audio: &meanings.Audio{Rate: 22050, Window: 10}}),
		"image gray -0.5..0.5 3x":           {},
		"image gray 0..0":                   {},
		"image gray rgb 0..1":               {},
		"image gray 0..1 letterbox crop":    {},
		"image gray 0..1 fill":              {},
		"image gray 0..1 fill 256":          {},
		"image gray 0..1 mean 1 std 1":      {},
		"image rgb mean 1,1":                {},
		"image rgb mean 1":                  {},
		"image gray 0x8 0..1":               {},
		"audio 16kHz":                       {},
		"audio window 100":                  {},
		"audio 0Hz window 100":              {},
		"audio 16kHz window 0":              {},
		"boxes nms 0.5":                     {},
		"boxes xyxy xywh":                   {},
		"boxes xyxy nms -1":                 {},
		"boxes xyxy max 1.5":                {},
		"classes":                           {},
		"classes gray":                      {},
		"tensor softmax":                    {},
		"":                                  {},
	} {
		m, err := parseMeaning("input", strings.Fields(text))
		if want.Kind == "" {
			if code(err) != "pack.meaning" {
				t.Errorf("%q: %+v, %v", text, m, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, sized{m.Meaning, m.width, m.height}, cmp.AllowUnexported(sized{})); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

// TestMeaningLong reads the long form as the same words.
func TestMeaningLong(t *testing.T) {
	for long, short := range map[string]string{
		"{kind: image, colour: rgb, size: 224x224, range: -1..1, fit: letterbox, filter: nearest, fill: 114}": "image rgb 224x224 -1..1 letterbox nearest fill 114",
		"{kind: image, colour: bgr, layout: nchw, mean: [0, 0.5, 1], std: 2}":                                 "image bgr nchw mean 0,0.5,1 std 2",
		"{kind: audio, rate: 16kHz, window: 15600, hop: 7800}":                                                "audio 16kHz window 15600 hop 7800",
		"{kind: classes, score: logits}":                                                                      "classes logits",
		"kind: boxes\nlayout: cxcywh\ncolumns: true\npixels: false\nnms: 0.5\nscores: \"with blank\"":         "boxes cxcywh columns nms 0.5 scores with blank",
		"image gray 0..1": "image gray 0..1",
	} {
		var s said
		if err := yaml.Unmarshal([]byte(long), &s); err != nil {
			t.Errorf("%s: %v", long, err)
		}
		if have := strings.Join(s, " "); have != short {
			t.Errorf("%s: %q, want %q", long, have, short)
		}
		if _, err := parseMeaning("input", s); err != nil {
			t.Errorf("%s: %v", long, err)
		}
	}
	for _, bad := range []string{"[image]", "{colour: rgb, kind: image}", "{kind: image, colour: {a: b}}", "{}", "{kind: boxes, nms: 1, nms: 0}"} {
		var s said
		if err := yaml.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s: %q", bad, s)
		}
	}
}

// TestMeaningText reads back what a meaning is shown as.
func TestMeaningText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flag := rapid.Bool()
		number := rapid.Float64Range(0, 1)
		m := bundle.Meaning{Kind: rapid.SampledFrom([]string{"image", "audio", "boxes", "classes", "embedding", "tensor"}).Draw(t, "kind")}
		switch m.Kind {
		case "classes":
			m.Score = rapid.SampledFrom([]string{"softmax", "sigmoid", "logits"}).Draw(t, "score")
		case "audio":
			m.Audio = &meanings.Audio{Rate: rapid.IntRange(1, 96000).Draw(t, "rate"), Window: rapid.IntRange(1, 1e6).Draw(t, "window"), Hop: rapid.IntRange(0, 9).Draw(t, "hop")}
		case "boxes":
			m.Boxes = &meanings.Boxes{
				Layout: rapid.SampledFrom([]string{"xyxy", "xywh", "cxcywh", "yxyx"}).Draw(t, "layout"), Pixels: flag.Draw(t, "pixels"), Columns: flag.Draw(t, "columns"),
				Scores: rapid.SampledFrom([]string{"", "s", "a:0"}).Draw(t, "scores"), IoU: number.Draw(t, "iou"), Least: number.Draw(t, "least"), Max: rapid.IntRange(0, 1000).Draw(t, "max"),
			}
		case "image":
			m.Colour = rapid.SampledFrom([]string{"rgb", "bgr"}).Draw(t, "colour")
			m.Planar = flag.Draw(t, "planar")
			low := number.Draw(t, "low")
			m.Range = [2]float64{-low, low + 1}
			if flag.Draw(t, "ranges") {
				m.Ranges, m.Range = [][2]float64{m.Range, {0, 1}, m.Range}, [2]float64{}
			}
			if flag.Draw(t, "fit") {
				m.Fit = &meanings.Fit{How: rapid.SampledFrom([]string{"letterbox", "crop"}).Draw(t, "how"), Fill: rapid.Uint8().Draw(t, "fill")}
			}
		}
		back, err := parseMeaning("input", strings.Fields(m.String()))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, back.Meaning); d != "" {
			t.Errorf("%s\n%s", m.String(), d)
		}
	})
}
