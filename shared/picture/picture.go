// Package picture turns photos and camera frames into a model's input tensor by the
// formulas of docs/pictures.md, bit for bit on every machine: all arithmetic on pixels
// is on integers, and real values come from one table of 256 entries. Publisher and
// device use the same code, so that a golden case means the same on both.
//
// Input is foreign: sizes are read from headers and bounded before anything is
// allocated for pixels, and nothing makes the package panic. It keeps no state and may
// be used by many goroutines.
package picture

import "fmt"

// Limits on one picture. A picture of MaxPixels takes up to 20 bytes a pixel while it
// is decoded.
const (
	MaxPixels = 1 << 24 // of a source
	MaxSide   = 1 << 16 // pixels of a source's or target's side
	MaxFile   = 64 << 20
	MaxTarget = 1 << 24 // pixels of a target
)

// Picture is 8 bits a channel, rows from the top without gaps.
type Picture struct {
	Width, Height int
	Channels      int // 1: gray; 3: red, green, blue
	Pix           []byte
}

// Error is a refusal. Code is for programs, Message says what was wanted.
type Error struct {
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Codes of refusals.
const (
	CodeFormat    = "picture.format"    // neither JPEG nor PNG, or an unknown frame format
	CodeMalformed = "picture.malformed" // does not decode, or lengths disagree
	CodeSize      = "picture.size"      // larger than the limits, or empty
	CodeColour    = "picture.colour"    // a colour model that has no rule here: CMYK
	CodeRule      = "picture.rule"      // a target that no tensor can have
)

func refuse(code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// newPicture allocates a picture within the limits.
func newPicture(width, height, channels, pixels int) (*Picture, error) {
	if err := fits(width, height, pixels); err != nil {
		return nil, err
	}
	return &Picture{width, height, channels, make([]byte, width*height*channels)}, nil
}

// fits refuses a size beyond the limits; pixels 0 stands for MaxPixels.
func fits(width, height, pixels int) error {
	if pixels <= 0 || pixels > MaxPixels {
		pixels = MaxPixels
	}
	if width < 1 || height < 1 || width > MaxSide || height > MaxSide || int64(width)*int64(height) > int64(pixels) {
		return refuse(CodeSize, "a picture of %d by %d pixels; 1 by 1 to %d pixels are taken", width, height, pixels)
	}
	return nil
}

// pick returns the picture of some columns and rows.
func (p *Picture) pick(columns, rows []int) *Picture {
	n := p.Channels
	q := &Picture{len(columns), len(rows), n, make([]byte, len(columns)*len(rows)*n)}
	for i, y := range rows {
		to, from := q.Pix[i*q.Width*n:], p.Pix[y*p.Width*n:]
		for k, x := range columns {
			copy(to[k*n:(k+1)*n], from[x*n:])
		}
	}
	return q
}

// gray returns the luma of a colour. That of three equal values is that value.
func gray(r, g, b byte) byte {
	return byte((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
}

func clamp(v int32) byte {
	return byte(min(max(v, 0), 255))
}

// full converts BT.601 of full range, which JPEG uses.
func full(y, cb, cr byte) (r, g, b byte) {
	l, u, v := int32(y)*65793, int32(cb)-128, int32(cr)-128
	return clamp((l + 91881*v) >> 16), clamp((l - 22554*u - 46802*v) >> 16), clamp((l + 116130*u) >> 16)
}

// limited converts BT.601 of limited range (16 to 235), which cameras use.
func limited(y, cb, cr byte) (r, g, b byte) {
	l, u, v := 298*(int32(y)-16)+128, int32(cb)-128, int32(cr)-128
	return clamp((l + 409*v) >> 8), clamp((l - 100*u - 208*v) >> 8), clamp((l + 516*u) >> 8)
}
