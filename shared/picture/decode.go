package picture

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
)

// maxScans bounds the passes over a progressive JPEG: each may cost as much as a whole
// picture and take a few bytes only. Encoders make about ten.
const maxScans = 200

// maxPasses bounds the pixels of all scans together: sixteen times the largest picture.
const maxPasses = 16 * MaxPixels

// Measure reads the size of a JPEG or PNG file from its header, so that room for it can
// be had before it is decoded. What it refuses Decode refuses as well.
func Measure(b []byte, pixels int) (width, height int, err error) {
	if len(b) > MaxFile {
		return 0, 0, refuse(CodeSize, "a file of %d bytes; at most %d are taken", len(b), MaxFile)
	}
	f := formatOf(b)
	if f == nil {
		return 0, 0, refuse(CodeFormat, "a file that is neither JPEG nor PNG")
	}
	c, err := f.config(bytes.NewReader(b))
	if err != nil {
		return 0, 0, refuse(CodeMalformed, "the picture's header: %v", err)
	}
	return c.Width, c.Height, fits(c.Width, c.Height, pixels)
}

// Decode reads a JPEG or PNG file. At most pixels are taken, 0: MaxPixels. Orientation,
// colour profiles and transparency are not looked at, as most training code does.
func Decode(b []byte, pixels int) (*Picture, error) {
	width, height, err := Measure(b, pixels)
	if err != nil {
		return nil, err
	}
	f := formatOf(b)
	if n := bytes.Count(b, []byte("\xff\xda")); f.scans && (n > maxScans || int64(n)*int64(width)*int64(height) > maxPasses) {
		return nil, refuse(CodeMalformed, "a JPEG of %d scans of %d by %d pixels; at most %d, and %d pixels in all together, are taken", n, width, height, maxScans, maxPasses)
	}
	m, err := f.decode(bytes.NewReader(b))
	if err != nil {
		return nil, refuse(CodeMalformed, "the picture: %v", err)
	}
	return convert(m, pixels)
}

// format is a kind of file.
type format struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	scans  bool // it may hold a picture in many passes
}

// formatOf knows a file by its first bytes; nil: it is none of ours.
func formatOf(b []byte) *format {
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return &format{jpeg.DecodeConfig, jpeg.Decode, true}
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return &format{png.DecodeConfig, png.Decode, false}
	}
	return nil
}

// IsFile tells whether bytes begin as a JPEG or PNG file does.
func IsFile(b []byte) bool { return formatOf(b) != nil }

// convert copies what the decoders return. Of 16 bits the upper 8 count.
func convert(m image.Image, pixels int) (*Picture, error) {
	channels := 3
	switch m.(type) {
	case *image.Gray, *image.Gray16:
		channels = 1
	case *image.CMYK:
		return nil, refuse(CodeColour, "a CMYK picture; gray, RGB and YCbCr are taken")
	}
	size := m.Bounds()
	p, err := newPicture(size.Dx(), size.Dy(), channels, pixels)
	if err != nil {
		return nil, err
	}
	for y := range p.Height {
		if err := convertRow(p.Pix[y*p.Width*channels:(y+1)*p.Width*channels], m, size.Min.X, size.Min.Y+y); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// convertRow copies the pixels from (left, y) on.
func convertRow(row []byte, m image.Image, left, y int) error {
	switch m := m.(type) {
	case *image.Gray:
		copy(row, m.Pix[m.PixOffset(left, y):])
	case *image.Gray16:
		take(row, m.Pix[m.PixOffset(left, y):], 1, 2, 2)
	case *image.YCbCr:
		for i := 0; i < len(row); i += 3 {
			c := m.COffset(left+i/3, y)
			row[i], row[i+1], row[i+2] = full(m.Y[m.YOffset(left+i/3, y)], m.Cb[c], m.Cr[c])
		}
	case *image.RGBA: // opaque, or it would be NRGBA
		take(row, m.Pix[m.PixOffset(left, y):], 3, 4, 1)
	case *image.NRGBA:
		take(row, m.Pix[m.PixOffset(left, y):], 3, 4, 1)
	case *image.RGBA64:
		take(row, m.Pix[m.PixOffset(left, y):], 3, 8, 2)
	case *image.NRGBA64:
		take(row, m.Pix[m.PixOffset(left, y):], 3, 8, 2)
	case *image.Paletted:
		return indexed(row, m, m.PixOffset(left, y))
	default:
		return refuse(CodeColour, "a picture of a colour model without a rule")
	}
	return nil
}

// take copies the first channels of every pixel of the given bytes, and of every
// channel its first byte.
func take(row, pix []byte, channels, pixel, channel int) {
	for i := range row {
		row[i] = pix[i/channels*pixel+i%channels*channel]
	}
}

// indexed looks pixels up. An index without a colour is a fault of the file.
func indexed(row []byte, m *image.Paletted, at int) error {
	for i := 0; i < len(row); i += 3 {
		index := int(m.Pix[at+i/3])
		if index >= len(m.Palette) {
			return refuse(CodeMalformed, "the picture: colour %d of %d", index, len(m.Palette))
		}
		row[i], row[i+1], row[i+2] = plain(m.Palette[index])
	}
	return nil
}
