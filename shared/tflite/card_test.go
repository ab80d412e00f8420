package tflite_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

var card = &Card{
	Name: "digits", Description: "reads a meter", Version: "v1", Author: "someone", Licence: "Apache-2.0", Parser: "1.0.0",
	Inputs:  []TensorCard{{Name: "image", Description: "one digit", Content: "image", Colour: "gray", Mean: []float32{127.5}, Std: []float32{127.5}, Min: []float32{0}, Max: []float32{255}}},
	Outputs: []TensorCard{{Name: "scores", Content: "feature", Files: []File{{Name: "labels.txt", Description: "names", Kind: "labels", Locale: "en"}}}},
}

// withCard is a model with a card, the runtime that it wants, and files behind it.
func withCard(t testing.TB, card []byte, files map[string]string) []byte {
	t.Helper()
	m := tflitetest.Classifier(3)
	m.Buffers = append(m.Buffers, Buffer{}, Buffer{})
	m.Metadata = []Metadata{{Name: "TFLITE_METADATA", Buffer: 1}, {Name: "min_runtime_version", Buffer: 2}}
	b := tflitetest.MarshalData(m, map[int][]byte{1: card, 2: []byte("1.5.0\x00\x00\x00")})
	if files == nil {
		return b
	}
	var out bytes.Buffer
	out.Write(b)
	z := zip.NewWriter(&out)
	z.SetOffset(int64(len(b)))
	for name, text := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCard(t *testing.T) {
	b := withCard(t, tflitetest.MarshalCard(card), map[string]string{"labels.txt": "one\ntwo\nthree\n"})
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(card, m.Card); d != "" {
		t.Error(d)
	}
	if p := Check(m, Policy{}); p != nil {
		t.Error(p)
	}
	if m.Runtime != "1.5.0" || !slices.Equal(m.Appended, []string{"labels.txt"}) || m.Flat >= m.Size {
		t.Errorf("runtime %q, files %q, %d bytes of %d", m.Runtime, m.Appended, m.Flat, m.Size)
	}
	files := m.Card.LabelFiles(0)
	if len(files) != 1 || m.Card.LabelFiles(1) != nil {
		t.Fatalf("label files %v", files)
	}
	if text, err := ReadAppended(b, files[0].Name); err != nil || string(text) != "one\ntwo\nthree\n" {
		t.Errorf("%q, %v", text, err)
	}
	if notes := m.Card.Notes(m); notes != nil {
		t.Errorf("notes %q", notes)
	}
	for _, name := range []string{"other.txt", ""} {
		if _, err := ReadAppended(b, name); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNotes(t *testing.T) {
	for want, spoil := range map[string]func(c *Card){
		"2 inputs of 1":     func(c *Card) { c.Inputs = append(slices.Clone(c.Inputs), c.Inputs[0]) },
		"deviation of 0":    func(c *Card) { c.Inputs = []TensorCard{{Mean: []float32{1}, Std: []float32{0}}} },
		"2 means and 1":     func(c *Card) { c.Inputs = []TensorCard{{Mean: []float32{1, 2}, Std: []float32{1}}} },
		`file "labels.txt"`: func(*Card) {},
	} {
		c := *card
		spoil(&c)
		m, err := Parse(withCard(t, tflitetest.MarshalCard(&c), nil))
		if err != nil {
			t.Fatal(err)
		}
		if notes := m.Card.Notes(m); !strings.Contains(strings.Join(notes, "; "), want) {
			t.Errorf("%s: %q", want, notes)
		}
	}
}

// A file that unpacks into more than is read is refused, however small it is packed.
func TestAppendedBomb(t *testing.T) {
	b := withCard(t, tflitetest.MarshalCard(card), map[string]string{"labels.txt": strings.Repeat("\x00", 1<<24+1)})
	if _, err := ReadAppended(b, "labels.txt"); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "unpacks into more") {
		t.Errorf("got %v", err)
	}
	if len(b) > 1<<18 {
		t.Errorf("the file takes %d bytes itself", len(b))
	}
}

// Damage to a card never makes the reader panic, and leaves the model readable.
func TestDamagedCard(t *testing.T) {
	whole := tflitetest.MarshalCard(card)
	malformed := 0
	for at := range whole {
		for _, x := range []byte{1, 4, 0x80, 0xff} {
			c := slices.Clone(whole)
			c[at] ^= x
			m, err := Parse(withCard(t, c, nil))
			if err != nil {
				t.Fatalf("byte %d ^ %x: %v", at, x, err)
			}
			if p := Check(m, Policy{}); len(p) > 0 {
				malformed++
			} else {
				m.Card.Notes(m)
			}
		}
	}
	if malformed < len(whole) {
		t.Errorf("%d of %d damaged cards were found", malformed, 4*len(whole))
	}
}
