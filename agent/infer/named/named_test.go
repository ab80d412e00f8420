package named

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/meaning"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

func TestClasses(t *testing.T) {
	classes := &bundle.Meaning{Kind: "classes", Score: "logits"}
	c := &bundle.Contract{Outputs: []bundle.Tensor{
		{Name: "vector", DType: "FP32", Shape: []int{1, 3}, Meaning: &bundle.Meaning{Kind: "embedding"}},
		{Name: "scores", DType: "FP32", Shape: []int{-1, 3}, Meaning: classes},
		{Name: "small", DType: "UINT8", Shape: []int{2}, Meaning: classes, Quant: &bundle.Quant{Scale: []float32{0.5}, Zero: []int64{2}}},
	}}
	out := [][]byte{floats(9, 9, 9), floats(1, math.NaN(), 2, 5, 5, math.Inf(1)), {4, 0}}
	r, err := Name(c, out, Options{Top: 2, Labels: []string{"zero", "one"}})
	want := &Results{Classes: []Class{
		{"scores", 0, "2", 2, 2}, {"scores", 0, "zero", 0, 1}, {"scores", 1, "zero", 0, 5}, {"scores", 1, "one", 1, 5},
		{"small", 0, "zero", 0, 1}, {"small", 0, "one", 1, -1},
	}}
	if d := cmp.Diff(want, r); d != "" || err != nil {
		t.Error(d, err)
	}
	if r, err := Name(c, out, Options{Top: 1}); err != nil || len(r.Classes) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Name(c, out[:2], Options{}); err == nil {
		t.Error("an output is missing")
	}
	c.Outputs = c.Outputs[:1]
	if _, err := Name(c, out[:1], Options{}); err == nil || !strings.Contains(err.Error(), "only tensors") {
		t.Error(err)
	}
}

// TestRule says what a contract must say of an image for pictures to be taken.
func TestRule(t *testing.T) {
	image := func(change func(t *bundle.Tensor)) *bundle.Tensor {
		x := &bundle.Tensor{DType: "UINT8", Shape: []int{-1, 6, 8, 3}, Meaning: &bundle.Meaning{Kind: "image", Colour: "bgr", Range: [2]float64{0, 1}, Fit: &meaning.Fit{How: "crop", Fill: 7}},
			Quant: &bundle.Quant{Scale: []float32{0.5}, Zero: []int64{3}}}
		change(x)
		return x
	}
	r, err := Rule(image(func(*bundle.Tensor) {}))
	want := &picture.Rule{Width: 8, Height: 6, Colour: "bgr", Resize: "bilinear", Fit: "crop", Fill: 7, Range: [][2]float64{{0, 1}}, DType: "UINT8", Scale: 0.5, Zero: 3}
	if d := cmp.Diff(want, r); d != "" || err != nil {
		t.Error(d, err)
	}
	for says, change := range map[string]func(t *bundle.Tensor){
		"does not say that it is an image": func(t *bundle.Tensor) { t.Meaning = nil },
		"it is an image: UINT8":            func(t *bundle.Tensor) { t.Meaning = &bundle.Meaning{Kind: "tensor"} },
		"colours and range":                func(t *bundle.Tensor) { t.Meaning.Range = [2]float64{} },
		"has no size":                      func(t *bundle.Tensor) { t.Shape[1] = -1 },
		"of shape [1 48]":                  func(t *bundle.Tensor) { t.Shape = []int{1, 48} },
		"4 images at a time":               func(t *bundle.Tensor) { t.Shape[0] = 4 },
		"of 2 scales":                      func(t *bundle.Tensor) { t.Quant = &bundle.Quant{Scale: []float32{1, 1}, Zero: []int64{0, 0}} },
		"type \"FP16\"":                    func(t *bundle.Tensor) { t.DType, t.Quant = "FP16", nil },
	} {
		if _, err := Rule(image(change)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// TestShape fills what a tensor's shape leaves open.
func TestShape(t *testing.T) {
	image, planar := &bundle.Meaning{Kind: "image", Colour: "rgb"}, &bundle.Meaning{Kind: "image", Colour: "rgb", Planar: true}
	audio := &bundle.Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 1, Window: 12}}
	for _, c := range []struct {
		m           *bundle.Meaning
		shape, want []int
	}{
		{image, []int{-1, 6, 8, -1}, []int{1, 6, 8, 3}},
		{planar, []int{1, -1, 6, 8}, []int{1, 3, 6, 8}},
		{&bundle.Meaning{Kind: "image", Colour: "gray"}, []int{-1, 6, 8}, []int{1, 6, 8}},
		{audio, []int{-1}, []int{12}},
		{audio, []int{-1, -1}, []int{1, 12}},
		{audio, []int{-1, 3}, []int{4, 3}},
		{audio, []int{1, 12, 1}, []int{1, 12, 1}},
	} {
		if d := cmp.Diff(c.want, Shape(&bundle.Tensor{Shape: c.shape, Meaning: c.m})); d != "" {
			t.Errorf("%v: %s", c.shape, d)
		}
	}
}

// wav is a file of 16-bit samples with a chunk that nobody knows.
func wav(rate, channels, bits uint16, samples ...int16) []byte {
	b := []byte("RIFF\x00\x00\x00\x00WAVEjunk\x03\x00\x00\x00abc\x00fmt \x10\x00\x00\x00\x01\x00")
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, uint32(rate))
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, bits)
	b = binary.LittleEndian.AppendUint32(append(b, "data"...), uint32(2*len(samples)))
	for _, s := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(s))
	}
	return b
}

func TestSound(t *testing.T) {
	sound := func(dtype string, q *bundle.Quant) *bundle.Tensor {
		return &bundle.Tensor{DType: dtype, Shape: []int{1, 3}, Quant: q, Meaning: &bundle.Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 3}}}
	}
	three := wav(16000, 1, 16, -32768, 0, 16384)
	for _, c := range []struct {
		t    *bundle.Tensor
		want []byte
	}{
		{sound("FP32", nil), floats(-1, 0, 0.5)},
		{sound("INT16", nil), []byte{0, 0x80, 0, 0, 0, 0x40}},
		{sound("INT8", &bundle.Quant{Scale: []float32{1. / 128}, Zero: []int64{2}}), []byte{0x82, 2, 66}},
		{sound("INT16", &bundle.Quant{Scale: []float32{1. / 4}, Zero: []int64{1}}), []byte{0xfd, 0xff, 1, 0, 3, 0}},
	} {
		if b, err := Sound(c.t, three, -1); err != nil || !bytes.Equal(b, c.want) {
			t.Errorf("%s: % x, %v; want % x", c.t.DType, b, err, c.want)
		}
	}
	five := wav(16000, 1, 16, 1, -32768, 0, 16384, 2)
	if b, err := Sound(sound("FP32", nil), five, 1); err != nil || !bytes.Equal(b, floats(-1, 0, 0.5)) {
		t.Errorf("from 1: % x, %v", b, err)
	}
	for says, c := range map[string]struct {
		b    []byte
		from int
	}{
		"5 samples, 3 are wanted":   {five, -1},
		"from sample 3 on 3 are":    {five, 3},
		"from sample 1000000000 on": {five, 1e9},
		"2 samples, 3 are wanted":   {wav(16000, 1, 16, 1, 2), -1},
		"8000 samples a second":     {wav(8000, 1, 16, 1, 2, 3), -1},
		"2 channels":                {wav(16000, 2, 16, 1, 2, 3), -1},
		"8 bits":                    {wav(16000, 1, 8, 1, 2, 3), -1},
		"no WAV":                    {[]byte("RIFF"), -1},
		"without samples":           {wav(16000, 1, 16)[:50], -1},
		"0 samples, 3 are wanted":   {wav(16000, 1, 16), -1},
		"format is cut short":       {append([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x02\x00\x00\x00"), 1, 0), -1},
		"a WAV without samples":     {[]byte("RIFF\x00\x00\x00\x00WAVEdata\x02\x00\x00\x00ab"), -1},
	} {
		if _, err := Sound(sound("FP32", nil), c.b, c.from); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if _, err := Sound(sound("UINT8", nil), three, -1); err == nil {
		t.Error("UINT8")
	}
	if _, err := Sound(&bundle.Tensor{Meaning: &bundle.Meaning{Kind: "audio"}}, three, -1); err == nil {
		t.Error("no window")
	}
}

// FuzzSound: no file makes a tensor of another size.
func FuzzSound(f *testing.F) {
	f.Add(wav(16000, 1, 16, 1, 2, 3), -1)
	f.Add(wav(16000, 1, 16, 1, 2, 3, 4), 1)
	x := &bundle.Tensor{DType: "FP32", Shape: []int{3}, Meaning: &bundle.Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 3}}}
	f.Fuzz(func(t *testing.T, b []byte, from int) {
		if out, err := Sound(x, b, from); err == nil && len(out) != 12 {
			t.Fatal(len(out))
		}
	})
}
