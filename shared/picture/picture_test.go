package picture_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"os"
	"slices"
	"strings"
	"testing"

	. "github.com/dunlin-edge/dunlin/shared/picture"
)

// vectors is what testdata/vectors.py computed from the formulas of docs/pictures.md.
var vectors struct {
	Tensors []struct {
		Width, Height, Channels int
		Pix, Want               []byte
		Rule                    Rule
	}
	Frames []struct {
		Format                string
		Width, Height, Stride int
		Data, Want            []byte
	}
	PNGs []struct {
		Name          string
		File, Want    []byte
		Width, Height int
	}
	JPEG struct {
		Width, Height         int
		Y, Cb, Cr, Want, Gray []byte
	}
}

func TestMain(m *testing.M) {
	b, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(b, &vectors)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestTensors(t *testing.T) {
	if len(vectors.Tensors) < 50 {
		t.Fatalf("%d vectors", len(vectors.Tensors))
	}
	for i, v := range vectors.Tensors {
		dst := make([]byte, v.Rule.Bytes())
		at, err := v.Rule.Tensor(dst, &Picture{v.Width, v.Height, v.Channels, v.Pix})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst, v.Want) {
			t.Errorf("vector %d, %+v, %+v:\n% x, want\n% x", i, v.Rule, at, dst, v.Want)
		}
	}
}

func TestFrames(t *testing.T) {
	for _, v := range vectors.Frames {
		f := Frame{v.Format, v.Width, v.Height, v.Stride, v.Data}
		p, err := f.Picture(0)
		if err != nil {
			t.Fatalf("%s %d by %d: %v", v.Format, v.Width, v.Height, err)
		}
		if !bytes.Equal(p.Pix, v.Want) {
			t.Errorf("%s %d by %d: % x, want % x", v.Format, v.Width, v.Height, p.Pix, v.Want)
		}
		r := Rule{Width: 4, Height: 3, Colour: BGR, Resize: Bilinear, Fit: Letterbox, Fill: 9, Range: [][2]float64{{0, 255}}, DType: "UINT8"}
		whole, direct := make([]byte, r.Bytes()), make([]byte, r.Bytes())
		if _, err := r.Tensor(whole, p); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Frame(direct, &f); err != nil || !bytes.Equal(whole, direct) {
			t.Errorf("%s %d by %d: directly % x, by way of a picture % x, %v", v.Format, v.Width, v.Height, direct, whole, err)
		}
		f.Data = f.Data[:len(f.Data)-1]
		if _, err := f.Picture(0); code(err) != CodeMalformed {
			t.Errorf("%s, one byte less: %v", v.Format, err)
		}
	}
}

func TestPNG(t *testing.T) {
	for _, v := range vectors.PNGs {
		p, err := Decode(v.File, 0)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if p.Width != v.Width || p.Height != v.Height || !bytes.Equal(p.Pix, v.Want) {
			t.Errorf("%s: % x, want % x", v.Name, p.Pix, v.Want)
		}
	}
}

// TestJPEG: flat blocks survive a JPEG of quality 100, so that what comes out is known.
func TestJPEG(t *testing.T) {
	v := vectors.JPEG
	r := image.Rect(0, 0, v.Width, v.Height)
	for name, c := range map[string]struct {
		m    image.Image
		want []byte
	}{
		"colour": {&image.YCbCr{Y: v.Y, Cb: v.Cb, Cr: v.Cr, YStride: v.Width, CStride: v.Width / 2, SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: r}, v.Want},
		"gray":   {&image.Gray{Pix: v.Gray, Stride: v.Width, Rect: r}, v.Gray},
	} {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, c.m, &jpeg.Options{Quality: 100}); err != nil {
			t.Fatal(err)
		}
		p, err := Decode(b.Bytes(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Pix, c.want) {
			i := 0
			for p.Pix[i] == c.want[i] {
				i++
			}
			t.Errorf("%s: byte %d is %d, want %d", name, i, p.Pix[i], c.want[i])
		}
	}
}

// TestPhoto pins how a JPEG with detail is decoded, which the standard library does:
// if a new version of it decodes otherwise, golden cases made of files change their
// meaning, and that must be noticed.
func TestPhoto(t *testing.T) {
	b, err := os.ReadFile("testdata/photo.jpg")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	const want = "f9dc4489960f7010b6df4e4721dcecde70349bd9d257bd68460a412d298ab9bd"
	if sum := fmt.Sprintf("%x", sha256.Sum256(p.Pix)); p.Width != 61 || p.Height != 43 || sum != want {
		t.Errorf("%d by %d, %s, want %s", p.Width, p.Height, sum, want)
	}
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestPlacement(t *testing.T) {
	r := Rule{Width: 100, Height: 50, Colour: Gray, Resize: Bilinear, Range: [][2]float64{{0, 1}}, DType: "UINT8"}
	dst := make([]byte, r.Bytes())
	for fit, want := range map[string]Placement{
		Stretch:   {0, 0, 100, 50, 0, 0, 40, 40},
		Letterbox: {25, 0, 50, 50, 0, 0, 40, 40},
		Crop:      {0, 0, 100, 50, 0, 10, 40, 20},
	} {
		r.Fit = fit
		at, err := r.Tensor(dst, &Picture{40, 40, 1, make([]byte, 1600)})
		if err != nil || at != want {
			t.Errorf("%s: %+v, %v", fit, at, err)
		}
		if x, y := at.Source(50, 25); x != 20 || y != 20 {
			t.Errorf("%s: the middle is carried to %v, %v", fit, x, y)
		}
	}
}

func TestRules(t *testing.T) {
	whole := Rule{Width: 2, Height: 2, Colour: RGB, Resize: Nearest, Fit: Stretch, Range: [][2]float64{{0, 1}}, DType: "FP32"}
	if err := whole.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(r *Rule){
		"no width":   func(r *Rule) { r.Width = 0 },
		"too high":   func(r *Rule) { r.Height = MaxSide + 1 },
		"too large":  func(r *Rule) { r.Width, r.Height = MaxSide, MaxSide },
		"colour":     func(r *Rule) { r.Colour = "hsv" },
		"resize":     func(r *Rule) { r.Resize = "" },
		"fit":        func(r *Rule) { r.Fit = "" },
		"type":       func(r *Rule) { r.DType = "BOOL" },
		"flat range": func(r *Rule) { r.Range = [][2]float64{{1, 1}} },
		"no range":   func(r *Rule) { r.Range = nil },
		"two ranges": func(r *Rule) { r.Range = [][2]float64{{0, 1}, {0, 1}} },
		"not finite": func(r *Rule) { r.Range = [][2]float64{{0, 1e300}} },
		"scale":      func(r *Rule) { r.Scale = -1 },
		"zero point": func(r *Rule) { r.Zero = 1 << 40 },
	} {
		r := whole
		spoil(&r)
		if err := r.Validate(); code(err) != CodeRule {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, p := range map[string]*Picture{
		"short":    {2, 2, 3, make([]byte, 11)},
		"channels": {2, 2, 2, make([]byte, 8)},
	} {
		if _, err := whole.Tensor(make([]byte, whole.Bytes()), p); code(err) != CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := whole.Tensor(nil, &Picture{2, 2, 3, make([]byte, 12)}); code(err) != CodeRule {
		t.Errorf("no room: %v", err)
	}
}

// Hostile headers and lengths are refused before pixels are allocated.
func TestHostile(t *testing.T) {
	png, jpg := vectors.PNGs[0].File, flatJPEG(t)
	huge := slices.Clone(png)
	copy(huge[16:], "\x00\x00\xff\xff\x00\x00\xff\xff")
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	scans := append(slices.Clone(jpg), bytes.Repeat([]byte("\xff\xda"), 300)...)
	at := bytes.Index(jpg, []byte("\xff\xc0")) + 5 // the size in the frame's header
	passes := append(slices.Clone(jpg), bytes.Repeat([]byte("\xff\xda"), 16)...)
	copy(passes[at:], "\x10\x00\x10\x00")
	if _, err := Decode(passes, 0); code(err) != CodeMalformed || !strings.Contains(err.Error(), "17 scans of 4096 by 4096") {
		t.Errorf("many scans of a large picture: %v", err)
	}
	for name, c := range map[string]struct {
		file   []byte
		pixels int
		code   string
	}{
		"nothing":            {nil, 0, CodeFormat},
		"a text":             {[]byte("hello"), 0, CodeFormat},
		"a start only":       {[]byte("\xff\xd8\xff"), 0, CodeMalformed},
		"a signature only":   {png[:8], 0, CodeMalformed},
		"cut":                {png[:len(png)/2], 0, CodeMalformed},
		"JPEG cut":           {jpg[:len(jpg)/2], 0, CodeMalformed},
		"huge":               {huge, 0, CodeSize},
		"more than allowed":  {png, 19, CodeSize},
		"JPEG, more":         {jpg, 255, CodeSize},
		"scans without end":  {scans, 0, CodeMalformed},
		"larger than a file": {append([]byte("\xff\xd8\xff"), make([]byte, MaxFile)...), 0, CodeSize},
	} {
		if _, err := Decode(c.file, c.pixels); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]Frame{
		"format":   {"yuv9", 2, 2, 0, make([]byte, 99)},
		"negative": {RGB, -2, 2, 0, make([]byte, 99)},
		"empty":    {RGB, 0, 0, 0, nil},
		"stride":   {RGB, 2, 2, 5, make([]byte, 99)},
		"far":      {RGB, 2, 2, 1 << 62, make([]byte, 99)},
		"backward": {RGB, 2, 2, -6, make([]byte, 99)},
		"large":    {Gray, MaxSide, MaxSide, 0, make([]byte, 99)},
	} {
		if _, err := f.Picture(0); code(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flatJPEG(t testing.TB) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 16, 16)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzDecode: whatever comes, a picture within the limits or a refusal with a code.
func FuzzDecode(f *testing.F) {
	for _, v := range vectors.PNGs {
		f.Add(v.File)
	}
	f.Add(flatJPEG(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b, 1<<16)
		if err != nil {
			if code(err) == "" {
				t.Errorf("no code: %v", err)
			}
			return
		}
		if p.Width*p.Height > 1<<16 || len(p.Pix) != p.Width*p.Height*p.Channels {
			t.Errorf("%d by %d, %d bytes", p.Width, p.Height, len(p.Pix))
		}
	})
}

// FuzzTensor: any frame by any rule fills the tensor or is refused.
func FuzzTensor(f *testing.F) {
	f.Add(byte(3), 4, 4, 0, 8, 8, byte(5), 0.0, 1.0, make([]byte, 64))
	formats, colours := []string{RGB, BGR, Gray, NV12, NV12Full, ""}, []string{RGB, BGR, Gray, ""}
	fits, types := []string{Stretch, Letterbox, Crop, ""}, []string{"FP32", "UINT8", "INT8", "INT16", "INT32", ""}
	f.Fuzz(func(t *testing.T, format byte, w, h, stride, tw, th int, choice byte, black, white float64, b []byte) {
		frame := Frame{formats[int(format)%len(formats)], w, h, stride, b}
		p, err := frame.Picture(1 << 16)
		if err != nil {
			return
		}
		r := Rule{Width: tw, Height: th, Colour: colours[int(choice)%4], Planar: choice&4 != 0, Resize: []string{Nearest, Bilinear}[choice>>3&1],
			Fit: fits[choice>>4&3], Fill: choice, Range: [][2]float64{{black, white}}, DType: types[int(choice)%len(types)], Scale: white, Zero: int64(stride)}
		if r.Validate() != nil || tw*th > 1<<16 {
			return
		}
		whole, direct := make([]byte, r.Bytes()), make([]byte, r.Bytes())
		if at, err := r.Tensor(whole, p); err != nil || at.Width < 1 || at.Height < 1 {
			t.Errorf("%+v: %+v, %v", r, at, err)
		}
		if _, err := r.Frame(direct, &frame); err != nil || !bytes.Equal(whole, direct) {
			t.Errorf("%+v: a frame becomes something else than its picture, %v", r, err)
		}
	})
}
