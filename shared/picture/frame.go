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
	if err := f.check(pixels); err != nil {
		return nil, err
	}
	return f.pick(upTo(f.Width), upTo(f.Height)), nil
}

// upTo lists the numbers from 0 to n-1.
func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// row is the number of bytes that a row's pixels take; 0 of an unknown format.
func (f *Frame) row() int {
	switch f.Format {
	case RGB, BGR:
		return 3 * f.Width
	case Gray:
		return f.Width
	case NV12, NV12Full:
		return (f.Width + 1) / 2 * 2
	}
	return 0
}

func (f *Frame) stride() int {
	if f.Stride != 0 {
		return f.Stride
	}
	return f.row()
}

// check refuses a frame whose pixels do not lie within its data.
func (f *Frame) check(pixels int) error {
	if err := fits(f.Width, f.Height, pixels); err != nil {
		return err
	}
	row, stride, rows := f.row(), f.stride(), f.Height
	if row == 0 {
		return refuse(CodeFormat, "a frame of format %.32q; %s, %s, %s, %s and %s are known", f.Format, RGB, BGR, Gray, NV12, NV12Full)
	}
	if f.Format == NV12 || f.Format == NV12Full {
		rows += (f.Height + 1) / 2
	}
	// The last row may end with its pixels.
	if stride < row || stride > MaxFile || int64(stride)*int64(rows-1)+int64(row) > int64(len(f.Data)) {
		return refuse(CodeMalformed, "a frame of %d bytes; %d by %d pixels of %s in rows of %d bytes take %d",
			len(f.Data), f.Width, f.Height, f.Format, stride, int64(stride)*int64(rows-1)+int64(row))
	}
	return nil
}

// pick returns the picture of some columns and rows of a frame that was checked.
func (f *Frame) pick(columns, rows []int) *Picture {
	p := &Picture{len(columns), len(rows), 3, nil}
	if f.Format == Gray {
		p.Channels = 1
	}
	p.Pix = make([]byte, p.Width*p.Height*p.Channels)
	stride := f.stride()
	for i, y := range rows {
		to, from := p.Pix[i*p.Width*p.Channels:(i+1)*p.Width*p.Channels], f.Data[y*stride:]
		switch f.Format {
		case Gray:
			for k, x := range columns {
				to[k] = from[x]
			}
		case RGB:
			for k, x := range columns {
				to[3*k], to[3*k+1], to[3*k+2] = from[3*x], from[3*x+1], from[3*x+2]
			}
		case BGR:
			for k, x := range columns {
				to[3*k], to[3*k+1], to[3*k+2] = from[3*x+2], from[3*x+1], from[3*x]
			}
		case NV12, NV12Full:
			chroma := f.Data[stride*(f.Height+y/2):]
			pickNV12(to, from, chroma, columns, f.Format == NV12Full)
		}
	}
	return p
}

// pickNV12 converts some pixels of a row; a pair of chroma values counts for 2 by 2.
func pickNV12(to, luma, chroma []byte, columns []int, whole bool) {
	for k, x := range columns {
		c := x / 2 * 2
		if whole {
			to[3*k], to[3*k+1], to[3*k+2] = full(luma[x], chroma[c], chroma[c+1])
		} else {
			to[3*k], to[3*k+1], to[3*k+2] = limited(luma[x], chroma[c], chroma[c+1])
		}
	}
}
