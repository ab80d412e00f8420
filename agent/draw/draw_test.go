package draw

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

// file is a black picture.
func file(t testing.TB, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPicture(t *testing.T) {
	out, err := Picture("out.PNG", file(t, 300, 200), []Box{{50, 40, 150, 120, "cat 0.9", 1}}, "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(out))
	if err != nil || m.Bounds().Dx() != 300 || m.Bounds().Dy() != 200 {
		t.Fatal(m.Bounds(), err)
	}
	for _, c := range []struct {
		x, y int
		want color.RGBA
	}{
		{50, 40, colours[1]}, {149, 119, colours[1]}, {50, 80, colours[1]}, {149, 80, colours[1]}, // its four sides
		{51, 39, colours[1]}, // the label's plate
		{100, 80, black}, {49, 80, black}, {150, 80, black}, {200, 150, black},
	} {
		if have := color.RGBAModel.Convert(m.At(c.x, c.y)); have != c.want {
			t.Errorf("%d, %d: %v, want %v", c.x, c.y, have, c.want)
		}
	}
}

// TestEdge moves a label to where it can be read.
func TestEdge(t *testing.T) {
	out, err := Picture("out.png", file(t, 300, 200), []Box{{290, 100, 300, 110, "person", 0}}, "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if have := color.RGBAModel.Convert(m.At(260, 87)); have != colours[0] {
		t.Errorf("%v left of the box", have)
	}
}

// TestSmall enlarges a small picture and captions it.
func TestSmall(t *testing.T) {
	out, err := Picture("out.jpg", file(t, 8, 4), []Box{{-1e30, -5, 1e30, 9, strings.Repeat("long ", 99), -3}}, "7 0.98")
	if err != nil {
		t.Fatal(err)
	}
	m, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil || m.Bounds().Dx() != 256 || m.Bounds().Dy() != 128 {
		t.Fatal(m.Bounds(), err)
	}
}

func TestRefused(t *testing.T) {
	if _, err := Picture("out.gif", file(t, 8, 4), nil, ""); err == nil || !strings.Contains(err.Error(), ".png") {
		t.Error(err)
	}
	if _, err := Picture("out.png", []byte("x"), nil, ""); err == nil {
		t.Error("no picture was drawn on")
	}
}

// TestGlyphs: every letter has its rows, of one width, and something to see.
func TestGlyphs(t *testing.T) {
	for r, g := range glyphs {
		list := strings.Fields(g)
		if len(list) != rows || r != ' ' && !strings.Contains(g, "#") {
			t.Errorf("%q: %q", r, g)
		}
		for _, row := range list {
			if len(row) != len(list[0]) || strings.Trim(row, "#.") != "" {
				t.Errorf("%q: row %q", r, row)
			}
		}
	}
}
