package picture

// Formats of raw frames.
const (
	RGB      = "rgb"       // three bytes a pixel
	BGR      = "bgr"       // the same, blue first
	Gray     = "gray"      // one byte a pixel
	NV12     = "nv12"      // a plane of Y, then one of Cb and Cr by turns for every 2 by 2 pixels; limited range
	NV12Full = "nv12-full" // the same in full range
)

// Frame is a raw picture, as a camera gives it. Data may be memory that others write
// meanwhile: then pixels are wrong, nothing else.
type Frame struct {
	Format        string
	Width, Height int
	Stride        int // bytes from row to row, of both planes; 0: rows without gaps
	Data          []byte
}

// Picture copies a frame's pixels. At most pixels are taken, 0: MaxPixels.
func (f *Frame) Picture(pixels int) (*Picture, error) {
	if err := fits(f.Width, f.Height, pixels); err != nil {
		return nil, err
	}
	row := map[string]int{RGB: 3 * f.Width, BGR: 3 * f.Width, Gray: f.Width, NV12: (f.Width + 1) / 2 * 2, NV12Full: (f.Width + 1) / 2 * 2}[f.Format]
	if row == 0 {
		return nil, refuse(CodeFormat, "a frame of format %.32q; %s, %s, %s, %s and %s are known", f.Format, RGB, BGR, Gray, NV12, NV12Full)
	}
	stride := f.Stride
	if stride == 0 {
		stride = row
	}
	rows := f.Height
	if f.Format == NV12 || f.Format == NV12Full {
		rows += (f.Height + 1) / 2
	}
	// The last row may end with its pixels.
	if stride < row || stride > MaxFile || int64(stride)*int64(rows-1)+int64(row) > int64(len(f.Data)) {
		return nil, refuse(CodeMalformed, "a frame of %d bytes; %d by %d pixels of %s in rows of %d bytes take %d",
			len(f.Data), f.Width, f.Height, f.Format, stride, int64(stride)*int64(rows-1)+int64(row))
	}
	channels := 3
	if f.Format == Gray {
		channels = 1
	}
	p, err := newPicture(f.Width, f.Height, channels, pixels)
	if err != nil {
		return nil, err
	}
	switch f.Format {
	case NV12:
		f.planes(p, stride, limited)
	case NV12Full:
		f.planes(p, stride, full)
	default:
		for y := range f.Height {
			copy(p.Pix[y*row:(y+1)*row], f.Data[y*stride:])
		}
	}
	if f.Format == BGR {
		for i := 0; i < len(p.Pix); i += 3 {
			p.Pix[i], p.Pix[i+2] = p.Pix[i+2], p.Pix[i]
		}
	}
	return p, nil
}

// planes converts NV12; every 2 by 2 pixels share one colour.
func (f *Frame) planes(p *Picture, stride int, convert func(y, cb, cr byte) (r, g, b byte)) {
	chroma := f.Data[stride*f.Height:]
	for y := range f.Height {
		for x := range f.Width {
			c := y/2*stride + x/2*2
			at := 3 * (y*f.Width + x)
			p.Pix[at], p.Pix[at+1], p.Pix[at+2] = convert(f.Data[y*stride+x], chroma[c], chroma[c+1])
		}
	}
}
