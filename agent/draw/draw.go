// Package draw shows people on a picture what a model found in it.
package draw

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/picture"
)

// Box is a thing that was found, in the picture's pixels.
type Box struct {
	Left, Top, Right, Bottom float32
	Label                    string
	Class                    int // things of one class have one colour
}

// colours of classes, by turns: far apart for most eyes.
var colours = []color.RGBA{
	{230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255}, {240, 228, 66, 255},
	{0, 114, 178, 255}, {213, 94, 0, 255}, {204, 121, 167, 255}, {255, 255, 255, 255},
}

var black = color.RGBA{0, 0, 0, 255}

// smallest is the longer side that a drawing has at least, in pixels: a smaller picture
// is enlarged by a whole number.
const smallest = 256

// Picture draws boxes and a caption on a JPEG or PNG file and returns a file of the
// kind that name ends with: .png, .jpg or .jpeg.
func Picture(name string, file []byte, boxes []Box, caption string) ([]byte, error) {
	encode := map[string]func(*bytes.Buffer, image.Image) error{
		".png":  func(b *bytes.Buffer, m image.Image) error { return png.Encode(b, m) },
		".jpg":  func(b *bytes.Buffer, m image.Image) error { return jpeg.Encode(b, m, &jpeg.Options{Quality: 90}) },
		".jpeg": func(b *bytes.Buffer, m image.Image) error { return jpeg.Encode(b, m, &jpeg.Options{Quality: 90}) },
	}[strings.ToLower(filepath.Ext(name))]
	if encode == nil {
		return nil, fmt.Errorf("%s: a name that ends with .png or .jpg is wanted", name)
	}
	p, err := picture.Decode(file, 0)
	if err != nil {
		return nil, err
	}
	c := newCanvas(p)
	for i := len(boxes) - 1; i >= 0; i-- { // the first ones on top
		c.box(boxes[i])
	}
	if caption != "" {
		c.label(0, c.Rect.Dy()-c.height(), caption, colours[len(colours)-1])
	}
	var b bytes.Buffer
	err = encode(&b, c.RGBA)
	return b.Bytes(), err
}

// canvas is a picture that is drawn on.
type canvas struct {
	*image.RGBA
	enlarged int // pixels of it for one of the picture
	line     int // width of lines and of a letter's dot
}

func newCanvas(p *picture.Picture) *canvas {
	k := max((smallest+max(p.Width, p.Height)-1)/max(p.Width, p.Height), 1)
	c := &canvas{image.NewRGBA(image.Rect(0, 0, k*p.Width, k*p.Height)), k, 0}
	c.line = max(min(c.Rect.Dx(), c.Rect.Dy())/200, 2)
	for y := range c.Rect.Dy() {
		for x := range c.Rect.Dx() {
			pix := p.Pix[(y/k*p.Width+x/k)*p.Channels:]
			v := color.RGBA{pix[0], pix[0], pix[0], 255}
			if p.Channels == 3 {
				v.G, v.B = pix[1], pix[2]
			}
			c.SetRGBA(x, y, v)
		}
	}
	return c
}

// fill paints from (left, top) up to but without (right, bottom), as far as it is on
// the canvas.
func (c *canvas) fill(left, top, right, bottom int, v color.RGBA) {
	r := image.Rect(left, top, right, bottom).Intersect(c.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c.SetRGBA(x, y, v)
		}
	}
}

// box draws a frame, and its label above it, or inside where there is no room.
func (c *canvas) box(b Box) {
	at := func(v float32) int { return int(v * float32(c.enlarged)) }
	left, top, right, bottom := at(b.Left), at(b.Top), at(b.Right), at(b.Bottom)
	v := colours[max(b.Class, 0)%len(colours)]
	c.fill(left, top, right, top+c.line, v)
	c.fill(left, bottom-c.line, right, bottom, v)
	c.fill(left, top, left+c.line, bottom, v)
	c.fill(right-c.line, top, right, bottom, v)
	y := top - c.height()
	if y < 0 {
		y = top
	}
	c.label(left, y, b.Label, v)
}

// height of a line of text with its edge.
func (c *canvas) height() int { return (rows + 2) * c.line }

// label writes black on a plate of that colour, in capitals, further left where it would
// end beyond the edge.
func (c *canvas) label(left, top int, text string, v color.RGBA) {
	var letters [][]string
	width := c.line
	for _, r := range strings.ToUpper(text) {
		glyph := strings.Fields(glyphOf(r))
		letters = append(letters, glyph)
		width += (len(glyph[0]) + 1) * c.line
	}
	left = max(min(left, c.Rect.Dx()-width), 0)
	c.fill(left, top, left+width, top+c.height(), v)
	x := left + c.line
	for _, glyph := range letters {
		for row, dots := range glyph {
			for column, dot := range dots {
				if dot == '#' {
					c.fill(x+column*c.line, top+(row+1)*c.line, x+(column+1)*c.line, top+(row+2)*c.line, black)
				}
			}
		}
		x += (len(glyph[0]) + 1) * c.line
	}
}
