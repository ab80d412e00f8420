package picture

import (
	"encoding/binary"
	"math"
	"slices"
)

// Ways to resize, and to make a picture fit another shape.
const (
	Nearest   = "nearest"   // the source pixel under the target pixel's centre
	Bilinear  = "bilinear"  // the four around it, by distance; centres at half pixels
	Stretch   = "stretch"   // width and height scale each by itself
	Letterbox = "letterbox" // both scale alike, the rest is filled
	Crop      = "crop"      // both scale alike, the middle is kept
)

// Rule says what tensor a picture becomes: one picture, height by width by channels.
type Rule struct {
	Width, Height int
	Colour        string       // Gray, RGB, BGR
	Planar        bool         // channels by height by width instead
	Resize        string       // Nearest or Bilinear
	Fit           string       // Stretch, Letterbox or Crop
	Fill          byte         // of every channel, beside a letterbox
	Range         [][2]float64 // real values of 0 and 255: one pair for all channels, or one each for red, green and blue
	DType         string       // "FP32", "UINT8", "INT8", "INT16", "INT32"
	Scale         float64      // integer types: real = Scale * (stored - Zero); 0: stored is the real value, rounded
	Zero          int64
}

// Placement says where the source lies in the target, for boxes to be carried back.
type Placement struct {
	X, Y, Width, Height        int // of the target, filled with pixels of the source
	FromX, FromY, FromW, FromH int // of the source, shown there
}

// Source carries a point of the target, in pixels, back to the source.
func (p Placement) Source(x, y float64) (float64, float64) {
	return float64(p.FromX) + (x-float64(p.X))*float64(p.FromW)/float64(p.Width),
		float64(p.FromY) + (y-float64(p.Y))*float64(p.FromH)/float64(p.Height)
}

// integers are the ranges of integer types.
var integers = map[string][2]float64{
	"UINT8": {0, 255}, "INT8": {-128, 127}, "INT16": {-1 << 15, 1<<15 - 1}, "INT32": {-1 << 31, 1<<31 - 1},
}

var widths = map[string]int{"FP32": 4, "UINT8": 1, "INT8": 1, "INT16": 2, "INT32": 4}

// Validate refuses a rule that no tensor can have.
func (r *Rule) Validate() error {
	switch {
	case r.Width < 1 || r.Height < 1 || r.Width > MaxSide || r.Height > MaxSide || int64(r.Width)*int64(r.Height) > MaxTarget:
		return refuse(CodeRule, "a target of %d by %d pixels; 1 by 1 to %d pixels can be made", r.Width, r.Height, MaxTarget)
	case !slices.Contains([]string{Gray, RGB, BGR}, r.Colour):
		return refuse(CodeRule, "colour %.32q; %s, %s and %s are known", r.Colour, Gray, RGB, BGR)
	case r.Resize != Nearest && r.Resize != Bilinear:
		return refuse(CodeRule, "resize %.32q; %s and %s are known", r.Resize, Nearest, Bilinear)
	case r.Fit != Stretch && r.Fit != Letterbox && r.Fit != Crop:
		return refuse(CodeRule, "fit %.32q; %s, %s and %s are known", r.Fit, Stretch, Letterbox, Crop)
	case widths[r.DType] == 0:
		return refuse(CodeRule, "type %.32q; FP32, UINT8, INT8, INT16 and INT32 can be made of a picture", r.DType)
	case len(r.Range) != 1 && len(r.Range) != r.Channels():
		return refuse(CodeRule, "%d ranges for %d channels", len(r.Range), r.Channels())
	case slices.ContainsFunc(r.Range, func(x [2]float64) bool { return !finite(x[0]) || !finite(x[1]) || x[0] == x[1] }):
		return refuse(CodeRule, "range %v", r.Range)
	case !finite(r.Scale) || r.Scale < 0 || r.Zero < -1<<31 || r.Zero >= 1<<31:
		return refuse(CodeRule, "scale %v and zero point %d", r.Scale, r.Zero)
	}
	return nil
}

func finite(v float64) bool { return math.Abs(v) <= math.MaxFloat32 }

// Channels is 1 for gray, else 3.
func (r *Rule) Channels() int {
	if r.Colour == Gray {
		return 1
	}
	return 3
}

// Bytes is the size of the tensor.
func (r *Rule) Bytes() int { return r.Width * r.Height * r.Channels() * widths[r.DType] }

// Tensor writes what a picture becomes into dst, which must have the size of the tensor.
func (r *Rule) Tensor(dst []byte, p *Picture) (Placement, error) {
	if err := fits(p.Width, p.Height, 0); err != nil {
		return Placement{}, err
	}
	if len(p.Pix) != p.Width*p.Height*p.Channels || p.Channels != 1 && p.Channels != 3 {
		return Placement{}, refuse(CodeMalformed, "%d bytes for %d by %d pixels of %d channels", len(p.Pix), p.Width, p.Height, p.Channels)
	}
	return r.tensor(dst, p.Width, p.Height, p.pick)
}

// Frame does the same with a frame, of which it converts only the pixels that count.
func (r *Rule) Frame(dst []byte, f *Frame) (Placement, error) {
	if err := f.check(0); err != nil {
		return Placement{}, err
	}
	return r.tensor(dst, f.Width, f.Height, f.pick)
}

func (r *Rule) tensor(dst []byte, width, height int, pick func(columns, rows []int) *Picture) (Placement, error) {
	if err := r.Validate(); err != nil {
		return Placement{}, err
	}
	if len(dst) != r.Bytes() {
		return Placement{}, refuse(CodeRule, "room for %d bytes, the tensor has %d", len(dst), r.Bytes())
	}
	at := r.place(width, height)
	columns, rows := spans(r.Resize, at.Width, at.FromX, at.FromW), spans(r.Resize, at.Height, at.FromY, at.FromH)
	p := pick(used(columns), used(rows))
	r.encode(dst, r.mix(r.colour(p), at, columns, rows))
	return at, nil
}

// colour returns the picture with the rule's number of channels, red first.
func (r *Rule) colour(p *Picture) *Picture {
	want := r.Channels()
	if p.Channels == want {
		return p
	}
	q := &Picture{p.Width, p.Height, want, make([]byte, p.Width*p.Height*want)}
	for i := range p.Width * p.Height {
		if want == 1 {
			q.Pix[i] = gray(p.Pix[3*i], p.Pix[3*i+1], p.Pix[3*i+2])
			continue
		}
		q.Pix[3*i], q.Pix[3*i+1], q.Pix[3*i+2] = p.Pix[i], p.Pix[i], p.Pix[i]
	}
	return q
}

// place says which part of a source of that size goes where.
func (r *Rule) place(width, height int) Placement {
	p := Placement{Width: r.Width, Height: r.Height, FromW: width, FromH: height}
	wide := int64(width)*int64(r.Height) >= int64(height)*int64(r.Width) // at least as wide as the target
	switch {
	case r.Fit == Letterbox && wide:
		p.Height = ratio(height, r.Width, width, r.Height)
		p.Y = (r.Height - p.Height) / 2
	case r.Fit == Letterbox:
		p.Width = ratio(width, r.Height, height, r.Width)
		p.X = (r.Width - p.Width) / 2
	case r.Fit == Crop && wide:
		p.FromW = ratio(height, r.Width, r.Height, width)
		p.FromX = (width - p.FromW) / 2
	case r.Fit == Crop:
		p.FromH = ratio(width, r.Height, r.Width, height)
		p.FromY = (height - p.FromH) / 2
	}
	return p
}

// ratio is a*b/c, rounded half up, from 1 to most.
func ratio(a, b, c, most int) int {
	return min(max(int((2*int64(a)*int64(b)+int64(c))/(2*int64(c))), 1), most)
}

// encode writes pixels as numbers, from a table of what each of 256 values becomes.
func (r *Rule) encode(dst, pix []byte) {
	width, channels, area := widths[r.DType], r.Channels(), r.Width*r.Height
	tables := make([][256][4]byte, len(r.Range))
	for k := range tables {
		for v := range 256 {
			tables[k][v] = r.number(v, r.Range[k])
		}
	}
	for i, v := range pix {
		channel := i % channels
		table := &tables[min(channel, len(tables)-1)]
		if r.Colour == BGR {
			channel = 2 - channel
		}
		at := i - i%channels + channel
		if r.Planar {
			at = channel*area + i/channels
		}
		copy(dst[at*width:(at+1)*width], table[v][:])
	}
}

// number is the stored form of a pixel value, little endian.
func (r *Rule) number(v int, between [2]float64) (b [4]byte) {
	// The product is rounded before the sum on every machine: a quotient lies between.
	x := between[0] + float64(v)*(between[1]-between[0])/255
	limits, integer := integers[r.DType]
	if !integer {
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(float32(x)))
		return b
	}
	if r.Scale != 0 {
		x /= r.Scale
	}
	x = math.Copysign(math.Floor(math.Abs(x)+0.5), x) + float64(r.Zero)
	binary.LittleEndian.PutUint32(b[:], uint32(int32(int64(min(max(x, limits[0]), limits[1])))))
	return b
}
