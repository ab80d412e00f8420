package pack

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	meanings "github.com/dunlin-edge/dunlin/shared/bundle/meaning"
)

// said is what people write of a tensor: one line of words, or the long form, the
// same words as keys and values.
type said []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *said) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*s = strings.Fields(n.Value)
		return nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) < 2 || n.Content[0].Value != "kind" {
		return fmt.Errorf("line %d: words or a mapping that begins with 'kind:' are wanted", n.Line)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		if seen[key] {
			return fmt.Errorf("line %d: %s is there twice", n.Content[i].Line, key)
		}
		seen[key] = true
		switch {
		case value.Kind == yaml.SequenceNode:
			var list []string
			for _, x := range value.Content {
				list = append(list, x.Value)
			}
			*s = append(*s, key, strings.Join(list, ","))
		case value.Kind != yaml.ScalarNode:
			return fmt.Errorf("line %d: %s wants a value or a list", value.Line, key)
		case value.Value == "true":
			*s = append(*s, key)
		case value.Value == "false":
		case slices.Contains([]string{"kind", "colour", "size", "range", "fit", "filter", "layout", "score", "rate"}, key):
			*s = append(*s, value.Value) // the word says itself what it is
		default:
			*s = append(*s, key, value.Value)
		}
	}
	return nil
}

// meaning is a bundle.Meaning and the size that people wrote beside it.
type meaning struct {
	bundle.Meaning
	width, height int // pixels; 0: not said

	mean, std []float64 // of an image, said instead of a range
	fit       meanings.Fit
	sound     meanings.Audio
	boxes     meanings.Boxes
}

const (
	meaningNext = "write it like 'image rgb 224x224 -1..1 letterbox', 'classes softmax', 'boxes xyxy normalised nms 0.5', 'audio 16kHz window 15600 hop 7800', 'embedding' or 'tensor'; docs/model-yaml.md has every word"
	number      = `[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?`
)

var (
	meaningSize  = regexp.MustCompile(`^([0-9]{1,5})x([0-9]{1,5})$`)
	meaningRange = regexp.MustCompile(`^(` + number + `)\.\.(` + number + `)$`)
	meaningRate  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(k?)[hH]z$`)
)

// parseMeaning reads what a tensor stands for: its kind, then in any order the words
// that belong to it, some of which take a value behind them.
func parseMeaning(key string, words []string) (*meaning, error) {
	text := strings.Join(words, " ")
	wrong := func(why string) error {
		return refuse("pack.meaning", meaningNext, "%s, %s: %q is not understood: %s", SpecName, key, text, why)
	}
	if len(words) == 0 {
		return nil, wrong("it is empty")
	}
	m := &meaning{}
	m.Kind = words[0]
	known, ok := vocabulary[m.Kind]
	if !ok {
		return nil, wrong("no meaning begins with " + words[0])
	}
	for i := 1; i < len(words); i++ {
		takes := known[words[i]]
		switch {
		case takes == nil:
			if !m.bare(words[i]) {
				return nil, wrong(fmt.Sprintf("%q", words[i]))
			}
		case i+1 == len(words):
			return nil, wrong(words[i] + " wants a value")
		case !takes(m, words[i+1]):
			return nil, wrong(words[i] + " " + words[i+1])
		default:
			i++
		}
	}
	if why := m.finish(); why != "" {
		return nil, wrong(why)
	}
	return m, nil
}

// vocabulary has the words with a value that each kind knows; a false answer says
// that the value is wrong.
var vocabulary = map[string]map[string]func(m *meaning, value string) bool{
	"image": {
		"fill": func(m *meaning, v string) bool {
			n, err := strconv.ParseUint(v, 10, 8)
			m.fit.Fill = uint8(n)
			return err == nil
		},
		"mean": func(m *meaning, v string) (ok bool) { m.mean, ok = numbers(v); return ok },
		"std":  func(m *meaning, v string) (ok bool) { m.std, ok = numbers(v); return ok },
	},
	"audio": {
		"window": func(m *meaning, v string) bool { return whole(&m.sound.Window, v) },
		"hop":    func(m *meaning, v string) bool { return whole(&m.sound.Hop, v) },
	},
	"boxes": {
		"nms":     func(m *meaning, v string) bool { return real(&m.boxes.IoU, v) },
		"least":   func(m *meaning, v string) bool { return real(&m.boxes.Least, v) },
		"max":     func(m *meaning, v string) bool { return whole(&m.boxes.Max, v) },
		"scores":  func(m *meaning, v string) bool { m.boxes.Scores = v; return true },
		"classes": func(m *meaning, v string) bool { m.boxes.Classes = v; return true },
		"count":   func(m *meaning, v string) bool { m.boxes.Count = v; return true },
	},
	"classes": {}, "embedding": {}, "tensor": {},
}

func whole(to *int, text string) bool {
	n, err := strconv.Atoi(text)
	*to = n
	return err == nil && n > 0
}

func real(to *float64, text string) bool {
	var err error
	*to, err = strconv.ParseFloat(text, 64)
	return err == nil && *to >= 0
}

// numbers reads one number for all channels, or three with commas between.
func numbers(text string) (list []float64, ok bool) {
	for _, s := range strings.Split(text, ",") {
		n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, false
		}
		list = append(list, n)
	}
	return list, len(list) == 1 || len(list) == 3
}

// bare takes a word without a value.
func (m *meaning) bare(w string) bool {
	one := func(to *string, words ...string) bool {
		if !slices.Contains(words, w) || *to != "" {
			return false
		}
		*to = w
		return true
	}
	switch m.Kind {
	case "classes":
		return one(&m.Score, "softmax", "sigmoid", "logits")
	case "image":
		return one(&m.Colour, "gray", "rgb", "bgr") || one(&m.fit.How, "stretch", "letterbox", "crop") || one(&m.fit.Filter, "bilinear", "nearest") || m.image(w)
	case "audio":
		s := meaningRate.FindStringSubmatch(w)
		if s == nil {
			return false
		}
		rate, err := strconv.ParseFloat(s[1], 64)
		if s[2] != "" {
			rate *= 1000
		}
		m.sound.Rate = int(rate)
		return err == nil && rate == math.Trunc(rate) && rate > 0
	case "boxes":
		flags := map[string]*bool{"pixels": &m.boxes.Pixels, "columns": &m.boxes.Columns, "objectness": &m.boxes.Objectness}
		if flag := flags[w]; flag != nil {
			*flag = true
			return true
		}
		return w == "normalised" || one(&m.boxes.Layout, "xyxy", "yxyx", "xywh", "cxcywh")
	}
	return false
}

// image takes a size, a range, or the order of an image's numbers.
func (m *meaning) image(w string) bool {
	switch w {
	case "planar", "nchw":
		m.Planar = true
		return true
	case "nhwc":
		return !m.Planar
	}
	if s := meaningSize.FindStringSubmatch(w); s != nil {
		m.width, _ = strconv.Atoi(s[1])
		m.height, _ = strconv.Atoi(s[2])
		return m.width > 0 && m.height > 0
	}
	var list [][2]float64
	for _, part := range strings.Split(w, ",") {
		s := meaningRange.FindStringSubmatch(part)
		if s == nil {
			return false
		}
		low, _ := strconv.ParseFloat(s[1], 64)
		high, _ := strconv.ParseFloat(s[2], 64)
		list = append(list, [2]float64{low, high})
	}
	if len(list) == 1 {
		m.Range = list[0]
		return true
	}
	m.Ranges = list
	return len(list) == 3
}

// finish puts together what was said, and says what is missing.
func (m *meaning) finish() string {
	switch m.Kind {
	case "classes":
		if m.Score == "" {
			return "softmax, sigmoid or logits is missing"
		}
	case "audio":
		if m.sound == (meanings.Audio{}) {
			return ""
		}
		if m.Audio = &m.sound; m.sound.Rate == 0 || m.sound.Window == 0 {
			return "a rate and a window are wanted"
		}
	case "boxes":
		if m.boxes == (meanings.Boxes{}) {
			return ""
		}
		if m.Boxes = &m.boxes; m.boxes.Layout == "" {
			return "xyxy, yxyx, xywh or cxcywh is missing"
		}
	case "image":
		return m.finishImage()
	}
	return ""
}

func (m *meaning) finishImage() string {
	if m.fit != (meanings.Fit{}) {
		m.Fit = &m.fit
	}
	if m.mean != nil || m.std != nil {
		if m.mean == nil || m.std == nil || m.Range != [2]float64{} || m.Ranges != nil {
			return "mean and std belong together and take the place of a range"
		}
		m.scaled()
	}
	switch {
	case m.Colour == "":
		return "gray, rgb or bgr is missing"
	case m.Ranges == nil && m.Range[0] == m.Range[1]:
		return "the real values of black and white are missing"
	}
	return ""
}

// scaled turns mean and std of pixels in 0..1 into what black and white become.
func (m *meaning) scaled() {
	for i := range max(len(m.mean), len(m.std)) {
		mean, std := m.mean[i%len(m.mean)], m.std[i%len(m.std)]
		m.Ranges = append(m.Ranges, [2]float64{(0 - mean) / std, (1 - mean) / std})
	}
	if len(m.Ranges) == 1 {
		m.Range, m.Ranges = m.Ranges[0], nil
	}
}

// claims compares an image's size and colours with the shape that the file gives. It
// returns the shape that people's words claim.
func (m *meaning) claims(shape []int) (claimed []int, ok bool) {
	if m.Kind != "image" {
		return shape, true
	}
	claimed = slices.Clone(shape)
	width, height, ok := m.ImageSize(shape)
	if !ok {
		return claimed, false
	}
	if m.width != 0 {
		at := 1
		if m.Planar {
			at = 2
		}
		claimed[at], claimed[at+1] = m.height, m.width
		ok = (height == m.height || height == -1) && (width == m.width || width == -1)
	}
	return claimed, ok
}
