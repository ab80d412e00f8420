package pack

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// meaning is a bundle.Meaning and the size that people wrote beside it.
type meaning struct {
	bundle.Meaning
	width, height int // pixels; 0: not said
}

const (
	meaningNext = "write it like 'image gray 8x8 0..1', 'image rgb 224x224 -1..1', 'classes softmax', 'boxes', 'audio', 'embedding' or 'tensor'"
	number      = `[+-]?[0-9]+(?:\.[0-9]+)?`
)

var (
	meaningSize  = regexp.MustCompile(`^([0-9]{1,5})x([0-9]{1,5})$`)
	meaningRange = regexp.MustCompile(`^(` + number + `)\.\.(` + number + `)$`)
)

// words that may follow each kind.
var meaningWords = map[string][]string{
	"image": {"gray", "rgb", "bgr"}, "classes": {"softmax", "sigmoid", "logits"},
	"audio": nil, "boxes": nil, "embedding": nil, "tensor": nil,
}

// parseMeaning reads what a tensor stands for: its kind, then in any order a
// colour, WIDTHxHEIGHT and LOW..HIGH for an image, or the score of classes.
func parseMeaning(key, text string) (*meaning, error) {
	words := strings.Fields(text)
	wrong := func() error {
		return refuse("pack.meaning", meaningNext, "%s, %s: %q is not understood", SpecName, key, text)
	}
	if len(words) == 0 {
		return nil, wrong()
	}
	m := &meaning{}
	m.Kind = words[0]
	allowed, ok := meaningWords[m.Kind]
	if !ok {
		return nil, wrong()
	}
	for _, w := range words[1:] {
		if !m.word(w, allowed) {
			return nil, wrong()
		}
	}
	if m.Kind == "image" && (m.Colour == "" || m.Range[0] == m.Range[1]) || m.Kind == "classes" && m.Score == "" {
		return nil, wrong()
	}
	return m, nil
}

func (m *meaning) word(w string, allowed []string) bool {
	for _, a := range allowed {
		if w == a && m.Kind == "image" {
			m.Colour = w
			return true
		}
		if w == a {
			m.Score = w
			return true
		}
	}
	if m.Kind != "image" {
		return false
	}
	if s := meaningSize.FindStringSubmatch(w); s != nil {
		m.width, _ = strconv.Atoi(s[1])
		m.height, _ = strconv.Atoi(s[2])
		return m.width > 0 && m.height > 0
	}
	if s := meaningRange.FindStringSubmatch(w); s != nil {
		m.Range[0], _ = strconv.ParseFloat(s[1], 64)
		m.Range[1], _ = strconv.ParseFloat(s[2], 64)
		return true
	}
	return false
}

// fit compares an image's size and colours with the shape that the file gives:
// [batch, height, width, channels], or without channels. It returns the shape
// that people's words claim.
func (m *meaning) fit(shape []int) (claimed []int, ok bool) {
	if m.Kind != "image" {
		return shape, true
	}
	claimed = append([]int(nil), shape...)
	channels := 1
	if m.Colour != "gray" {
		channels = 3
	}
	switch {
	case len(shape) == 4 && (shape[3] == channels || shape[3] == -1):
	case len(shape) == 3 && channels == 1:
	default:
		return claimed, false
	}
	if m.width != 0 {
		claimed[1], claimed[2] = m.height, m.width
	}
	ok = (shape[1] == claimed[1] || shape[1] == -1) && (shape[2] == claimed[2] || shape[2] == -1)
	return claimed, ok
}
