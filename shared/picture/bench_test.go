package picture_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"testing"

	. "github.com/dunlin-edge/dunlin/shared/picture"
)

// Each benchmark makes the input of a model of 224 by 224 pixels from 1920 by 1080.
var small = Rule{Width: 224, Height: 224, Colour: RGB, Resize: Bilinear, Fit: Letterbox, Range: [][2]float64{{0, 1}}, DType: "FP32"}

func benchmark(b *testing.B, tensor func(dst []byte) error) {
	dst := make([]byte, small.Bytes())
	b.ReportAllocs()
	for b.Loop() {
		if err := tensor(dst); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkFrame(b *testing.B, f *Frame) {
	benchmark(b, func(dst []byte) error {
		_, err := small.Frame(dst, f)
		return err
	})
}

func BenchmarkNV12(b *testing.B) {
	benchmarkFrame(b, &Frame{NV12, 1920, 1080, 0, make([]byte, 1920*1080*3/2)})
}

func BenchmarkRGB(b *testing.B) {
	benchmarkFrame(b, &Frame{RGB, 1920, 1080, 0, make([]byte, 1920*1080*3)})
}

func BenchmarkJPEG(b *testing.B) {
	m := image.NewGray(image.Rect(0, 0, 1920, 1080))
	r := rand.New(rand.NewPCG(1, 2))
	for i := range m.Pix {
		m.Pix[i] = byte(i/97 + r.IntN(16))
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, m, nil); err != nil {
		b.Fatal(err)
	}
	benchmark(b, func(dst []byte) error {
		p, err := Decode(file.Bytes(), 0)
		if err != nil {
			return err
		}
		_, err = small.Tensor(dst, p)
		return err
	})
}
