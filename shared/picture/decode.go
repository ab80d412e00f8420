package picture

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
)

// maxScans bounds the passes over a progressive JPEG: each may cost as much as a whole
// picture and take a few bytes only. Encoders make about ten.
const maxScans = 200

// Decode reads a JPEG or PNG file. At most pixels are taken, 0: MaxPixels. Orientation,
// colour profiles and transparency are not looked at, as most training code does.
func Decode(b []byte, pixels int) (*Picture, error) {
	if len(b) > MaxFile {
		return nil, refuse(CodeSize, "a file of %d bytes; at most %d are taken", len(b), MaxFile)
	}
	var config func() (image.Config, error)
	var decode func() (image.Image, error)
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		if n := bytes.Count(b, []byte("\xff\xda")); n > maxScans {
			return nil, refuse(CodeMalformed, "a JPEG of %d scans; at most %d are taken", n, maxScans)
		}
		config = func() (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) }
		decode = func() (image.Image, error) { return jpeg.Decode(bytes.NewReader(b)) }
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		config = func() (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) }
		decode = func() (image.Image, error) { return png.Decode(bytes.NewReader(b)) }
	default:
		return nil, refuse(CodeFormat, "a file that is neither JPEG nor PNG")
	}
	c, err := config()
	if err != nil {
		return nil, refuse(CodeMalformed, "the picture's header: %v", err)
	}
	if err := fits(c.Width, c.Height, pixels); err != nil {
		return nil, err
	}
	m, err := decode()
	if err != nil {
		return nil, refuse(CodeMalformed, "the picture: %v", err)
	}
	return convert(m, pixels)
}

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
