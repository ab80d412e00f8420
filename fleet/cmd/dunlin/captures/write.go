package captures

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet/web"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// maxSide bounds a picture, in pixels.
const maxSide = 16384

// sides are height, width and colours of [1,h,w,c], [h,w,c] or [1,h,w] as pictures
// have them; zeros otherwise.
func sides(shape []int) (height, width, colours int) {
	s := shape
	if len(s) == 4 && s[0] == 1 {
		s = s[1:]
	}
	switch {
	case len(s) == 3 && (s[2] == 1 || s[2] == 3):
		height, width, colours = s[0], s[1], s[2]
	case len(s) == 3 && s[0] == 1:
		height, width, colours = s[1], s[2], 1
	case len(s) == 2:
		height, width, colours = s[0], s[1], 1
	}
	if height < 1 || width < 1 || height > maxSide || width > maxSide {
		return 0, 0, 0
	}
	return height, width, colours
}

// format says how an input is written, and the ending of its file's name.
func format(t *bundle.Tensor, in *web.CapturedInputView) (writer, string) {
	as := func(w io.Writer, _ *bundle.Tensor, _ []int, b []byte) error { _, err := w.Write(b); return err }
	switch in.Encoding {
	case "jpeg":
		return as, ".jpg"
	case "png":
		return as, ".png"
	}
	if write, ok := picture(t, in.Shape); ok {
		return write, ".png"
	}
	return npy, ".npy"
}

type writer func(w io.Writer, t *bundle.Tensor, shape []int, b []byte) error

// picture tells whether a tensor is a picture as its contract says, and writes it as
// PNG.
func picture(t *bundle.Tensor, shape []int) (writer, bool) {
	if t.Meaning == nil || t.Meaning.Kind != "image" {
		return nil, false
	}
	_, _, colours := sides(lying(t, shape))
	return writePNG, colours > 0
}

// lying is the shape as [h,w,c] where the contract says that colours lie one behind
// the other.
func lying(t *bundle.Tensor, shape []int) []int {
	n := len(shape)
	if !t.Meaning.Planar || n < 3 {
		return shape
	}
	return append(slices.Clone(shape[:n-3]), shape[n-2], shape[n-1], shape[n-3])
}

func writePNG(w io.Writer, t *bundle.Tensor, shape []int, b []byte) error {
	height, width, colours := sides(lying(t, shape))
	if len(b) != height*width*colours*bundle.DTypeSize(t.DType) {
		return fmt.Errorf("%d bytes are no picture of %v", len(b), shape)
	}
	values := t.Quant.Real(bundle.Values(t.DType, b), t.Shape)
	bgr := t.Meaning.Colour == "bgr"
	// level is a colour, 0 red, of a pixel.
	level := func(pixel, colour int) uint8 {
		span, channel := t.Meaning.Range, colour
		if n := len(t.Meaning.Ranges); n > 0 {
			span = t.Meaning.Ranges[colour%n]
		}
		if bgr && colours == 3 {
			channel = 2 - colour
		}
		at := pixel*colours + channel
		if t.Meaning.Planar {
			at = channel*width*height + pixel
		}
		black, white := span[0], span[1]
		if white == black {
			white = black + 1
		}
		v := (values[at] - black) / (white - black) * 255
		if !(v > 0) { // also what is not a number
			return 0
		}
		return uint8(min(v+0.5, 255))
	}
	if colours == 1 {
		m := image.NewGray(image.Rect(0, 0, width, height))
		for i := range m.Pix {
			m.Pix[i] = level(i, 0)
		}
		return png.Encode(w, m)
	}
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range height * width {
		m.SetNRGBA(i%width, i/width, color.NRGBA{level(i, 0), level(i, 1), level(i, 2), 255})
	}
	return png.Encode(w, m)
}

// descr is how NumPy names the types of tensors, little endian.
var descr = map[string]string{
	"BOOL": "|b1", "UINT8": "|u1", "INT8": "|i1", "UINT16": "<u2", "INT16": "<i2", "UINT32": "<u4", "INT32": "<i4",
	"UINT64": "<u8", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}

// npy writes a tensor as NumPy's .npy, format 1.0.
func npy(w io.Writer, t *bundle.Tensor, shape []int, b []byte) error {
	kind := descr[t.DType]
	if kind == "" {
		return fmt.Errorf("a tensor of %s has no .npy", t.DType)
	}
	var sides strings.Builder
	for _, d := range shape {
		fmt.Fprintf(&sides, "%d, ", d)
	}
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", kind, strings.TrimSuffix(sides.String(), " "))
	const before, align = 10, 64
	head += strings.Repeat(" ", align-(before+len(head)+1)%align) + "\n"
	out := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), byte(len(head)>>8))
	_, err := w.Write(append(append(out, head...), b...))
	return err
}
