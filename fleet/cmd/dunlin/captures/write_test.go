package captures

import (
	"bytes"
	"encoding/binary"
	"image/color"
	"image/png"
	"math"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestPictures(t *testing.T) {
	image := func(colour string, black, white float64) *bundle.Meaning {
		return &bundle.Meaning{Kind: "image", Colour: colour, Range: [2]float64{black, white}}
	}
	grey := func(v uint8) color.NRGBA { return color.NRGBA{v, v, v, 255} }
	f32 := func(vs ...float32) []byte { return packed(vs) }
	for name, tt := range map[string]struct {
		t     bundle.Tensor
		shape []int
		b     []byte
		want  []color.NRGBA
	}{
		"grey 0..1":        {bundle.Tensor{DType: "FP32", Shape: []int{1, 1, 3, 1}, Meaning: image("gray", 0, 1)}, []int{1, 1, 3, 1}, f32(0, 0.5, 2), []color.NRGBA{grey(0), grey(128), grey(255)}},
		"rgb -1..1":        {bundle.Tensor{DType: "FP32", Shape: []int{1, 1, 1, 3}, Meaning: image("rgb", -1, 1)}, []int{1, 1, 1, 3}, f32(-1, 0, 1), []color.NRGBA{{0, 128, 255, 255}}},
		"ranges":           {bundle.Tensor{DType: "FP32", Shape: []int{1, 1, 1, 3}, Meaning: &bundle.Meaning{Kind: "image", Colour: "bgr", Ranges: [][2]float64{{-1, 1}, {0, 1}, {-2, 2}}}}, []int{1, 1, 1, 3}, f32(2, 0.5, -1), []color.NRGBA{{0, 128, 255, 255}}},
		"planar":           {bundle.Tensor{DType: "UINT8", Shape: []int{1, 3, 1, 2}, Meaning: &bundle.Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{0, 255}, Planar: true}}, []int{1, 3, 1, 2}, []byte{1, 2, 3, 4, 5, 6}, []color.NRGBA{{1, 3, 5, 255}, {2, 4, 6, 255}}},
		"bgr bytes":        {bundle.Tensor{DType: "UINT8", Shape: []int{1, 2, 3}, Meaning: image("bgr", 0, 255)}, []int{1, 2, 3}, []byte{1, 2, 3, 4, 5, 6}, []color.NRGBA{{3, 2, 1, 255}, {6, 5, 4, 255}}},
		"quantized":        {bundle.Tensor{DType: "INT8", Shape: []int{1, 1, 2, 1}, Quant: &bundle.Quant{Scale: []float32{1.0 / 255}, Zero: []int64{-128}}, Meaning: image("gray", 0, 1)}, []int{1, 1, 2, 1}, []byte{0x80, 0x7f}, []color.NRGBA{grey(0), grey(255)}},
		"inverted":         {bundle.Tensor{DType: "UINT8", Shape: []int{1, 2}, Meaning: image("gray", 255, 0)}, []int{1, 2}, []byte{0, 255}, []color.NRGBA{grey(255), grey(0)}},
		"without channels": {bundle.Tensor{DType: "UINT8", Shape: []int{1, 1, 2}, Meaning: image("gray", 0, 255)}, []int{1, 1, 2}, []byte{7, 9}, []color.NRGBA{grey(7), grey(9)}},
	} {
		write, ok := picture(&tt.t, tt.shape)
		if !ok {
			t.Errorf("%s: is no picture", name)
			continue
		}
		var out bytes.Buffer
		if err := write(&out, &tt.t, tt.shape, tt.b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := png.Decode(&out)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range tt.want {
			if got := color.NRGBAModel.Convert(m.At(i%m.Bounds().Dx(), i/m.Bounds().Dx())); got != want {
				t.Errorf("%s: pixel %d is %v, want %v", name, i, got, want)
			}
		}
		if err := write(&out, &tt.t, tt.shape, tt.b[1:]); err == nil {
			t.Errorf("%s: a byte less is a picture", name)
		}
	}
	for name, tt := range map[string]struct {
		meaning *bundle.Meaning
		shape   []int
	}{"no meaning": {nil, []int{1, 8, 8, 1}}, "a sound": {&bundle.Meaning{Kind: "audio"}, []int{1, 8, 8, 1}}, "four colours": {image("rgb", 0, 1), []int{1, 8, 8, 4}}, "two pictures": {image("rgb", 0, 1), []int{2, 8, 8, 3}}, "no sides": {image("rgb", 0, 1), nil}, "endless": {image("gray", 0, 1), []int{1 << 40, 1}}} {
		if _, ok := picture(&bundle.Tensor{DType: "UINT8", Meaning: tt.meaning}, tt.shape); ok {
			t.Errorf("%s: is a picture", name)
		}
	}
}

func packed(vs []float32) (out []byte) {
	for _, v := range vs {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

// TestNPY is read by the reader that bundles are made with.
func TestNPY(t *testing.T) {
	for _, shape := range [][]int{{2, 3}, {6}, {1, 1, 1, 1, 1, 6}} {
		var out bytes.Buffer
		data := packed([]float32{0, 1, 2, 3, 4, 5})
		if err := npy(&out, &bundle.Tensor{DType: "FP32"}, shape, data); err != nil {
			t.Fatal(err)
		}
		a, err := bundle.ReadNPY(out.Bytes())
		if err != nil || a.DType != "FP32" || len(a.Shape) != len(shape) || !bytes.Equal(a.Data, data) {
			t.Errorf("%v: %+v %v", shape, a, err)
		}
	}
	if err := npy(&bytes.Buffer{}, &bundle.Tensor{DType: "BYTES"}, nil, nil); err == nil {
		t.Error("words are no .npy")
	}
}

func TestSafeNames(t *testing.T) {
	for in, want := range map[string]string{"7": "7", "twenty two": "twenty_two", "../../etc/passwd": "______etc_passwd", "": "_", ".": "_", "a\x00b": "a_b", "größe": "größe", "CON": "CON"} {
		if got := safe(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if n := len(safe(string(bytes.Repeat([]byte("é"), 300)))); n > 100 {
		t.Errorf("%d bytes", n)
	}
}

func TestHours(t *testing.T) {
	for in, want := range map[string]int{"12h": 12, "7d": 168, "": 0, "7": 0, "-1d": 0, "1w": 0, "0h": 0} {
		if got, err := hours(in); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d %v", in, got, err)
		}
	}
}
