package captures

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"

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

type writer func(w io.Writer, t *bundle.Tensor, shape []int, b []byte) error

// picture tells whether a tensor is a picture as its contract says, and writes it as
// PNG.
func picture(t *bundle.Tensor, shape []int) (writer, bool) {
	if _, _, c := sides(shape); t.Meaning == nil || t.Meaning.Kind != "image" || c == 0 {
		return nil, false
	}
	return writePNG, true
}

func writePNG(w io.Writer, t *bundle.Tensor, shape []int, b []byte) error {
	height, width, colours := sides(shape)
	if len(b) != height*width*colours*bundle.DTypeSize(t.DType) {
		return fmt.Errorf("%d bytes are no picture of %v", len(b), shape)
	}
	values := t.Quant.Real(bundle.Values(t.DType, b), t.Shape)
	black, white := t.Meaning.Range[0], t.Meaning.Range[1]
	if white == black {
		white = black + 1
	}
	level := func(i int) uint8 {
		v := (values[i] - black) / (white - black) * 255
		if !(v > 0) { // also what is not a number
			return 0
		}
		return uint8(min(v+0.5, 255))
	}
	if colours == 1 {
		m := image.NewGray(image.Rect(0, 0, width, height))
		for i := range m.Pix {
			m.Pix[i] = level(i)
		}
		return png.Encode(w, m)
	}
	red, blue := 0, 2
	if t.Meaning.Colour == "bgr" {
		red, blue = 2, 0
	}
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range height * width {
		m.SetNRGBA(i%width, i/width, color.NRGBA{level(3*i + red), level(3*i + 1), level(3*i + blue), 255})
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
