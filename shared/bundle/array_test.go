package bundle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle/numpy"
)

// npy writes one array as numpy does.
func npy(descr, shape string, data []byte) []byte {
	return npyVersion(1, fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape), data)
}

func npyVersion(version byte, header string, data []byte) []byte {
	b := []byte("\x93NUMPY" + string(version) + "\x00")
	n := len(header) + 1
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, header+"\n"...), data...)
}

func npz(arrays map[string][]byte, deflate bool) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(arrays)) {
		h := &zip.FileHeader{Name: name + ".npy"}
		if deflate {
			h.Method = zip.Deflate
		}
		f, _ := w.CreateHeader(h)
		f.Write(arrays[name])
	}
	w.Close()
	return b.Bytes()
}

func TestReadNPY(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		file   []byte
		want   Array
		values []float64
	}{
		"float32":     {npy("<f4", "2, 1", float32s(1.5, -2)), Array{DType: "FP32", Shape: []int{2, 1}}, []float64{1.5, -2}},
		"float64":     {npy("<f8", "1,", le.AppendUint64(nil, math.Float64bits(math.Pi))), Array{DType: "FP64", Shape: []int{1}}, []float64{math.Pi}},
		"float16":     {npy("<f2", "5,", []byte{0, 0x3c, 0, 0xc0, 1, 0, 0, 0x7c, 1, 0x7c}), Array{DType: "FP16", Shape: []int{5}}, []float64{1, -2, math.Ldexp(1, -24), math.Inf(1), math.NaN()}},
		"uint8":       {npy("|u1", "3,", []byte{0, 1, 255}), Array{DType: "UINT8", Shape: []int{3}}, []float64{0, 1, 255}},
		"int8":        {npy("|i1", "2,", []byte{127, 128}), Array{DType: "INT8", Shape: []int{2}}, []float64{127, -128}},
		"int32":       {npy("<i4", "1,", []byte{255, 255, 255, 255}), Array{DType: "INT32", Shape: []int{1}}, []float64{-1}},
		"int64":       {npy("<i8", "1,", le.AppendUint64(nil, 1<<40)), Array{DType: "INT64", Shape: []int{1}}, []float64{1 << 40}},
		"bool":        {npy("|b1", "2,", []byte{0, 1}), Array{DType: "BOOL", Shape: []int{2}}, []float64{0, 1}},
		"scalar":      {npy("<f4", "", float32s(7)), Array{DType: "FP32", Shape: []int{}}, []float64{7}},
		"empty":       {npy("<f4", "0, 4", nil), Array{DType: "FP32", Shape: []int{0, 4}}, []float64{}},
		"version 2.0": {npyVersion(2, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", float32s(1)), Array{DType: "FP32", Shape: []int{1}}, []float64{1}},
	} {
		a, err := ReadNPY(c.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.DType != c.want.DType || !slices.Equal(a.Shape, c.want.Shape) {
			t.Errorf("%s: %s %v", name, a.DType, a.Shape)
		}
		if got := Values(a.DType, a.Data); fmt.Sprint(got) != fmt.Sprint(c.values) {
			t.Errorf("%s: %v, want %v", name, got, c.values)
		}
	}
}

func TestReadNPYRefuses(t *testing.T) {
	good := npy("<f4", "2,", float32s(1, 2))
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"magic":          append([]byte("x"), good...),
		"version 3":      append([]byte("\x93NUMPY\x03\x00"), good[8:]...),
		"header cut off": good[:20],
		"data cut off":   good[:len(good)-1],
		"data too long":  append(slices.Clone(good), 0),
		"header of 4 GB": append([]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"), good...),
		"big endian":     npy(">f4", "2,", float32s(1, 2)),
		"objects":        npy("|O", "2,", float32s(1, 2)),
		"Fortran order":  npyVersion(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", float32s(1, 2)),
		"negative":       npy("<f4", "-2,", float32s(1, 2)),
		"overflowing":    npy("<f4", "4294967296, 4294967296", nil),
		"immense":        npy("<f4", "1073741824, 1073741824, 1073741824", nil),
		"rank 9":         npy("<f4", "1, 1, 1, 1, 1, 1, 1, 1, 1", float32s(1)),
	} {
		if _, err := ReadNPY(b); Code(err) != CodeArrayMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadNPZ(t *testing.T) {
	one := npy("<f4", "2,", float32s(1, 2))
	for _, deflate := range []bool{false, true} {
		arrays, err := ReadNPZ(npz(map[string][]byte{"a": one, "b": npy("|u1", "1,", []byte{9})}, deflate))
		if err != nil || len(arrays) != 2 || arrays["b"].Data[0] != 9 {
			t.Errorf("deflate %v: %v, %v", deflate, arrays, err)
		}
	}
	many := map[string][]byte{}
	for i := range numpy.MaxArrays + 1 {
		many[fmt.Sprint(i)] = one
	}
	altered := npz(map[string][]byte{"a": one}, false)
	altered[bytes.Index(altered, float32s(1, 2))] ^= 1
	for name, b := range map[string][]byte{
		"no zip": []byte("x"), "too many": npz(many, false), "checksum": altered,
		"not an array": npz(map[string][]byte{"a": []byte("text")}, false),
	} {
		if _, err := ReadNPZ(b); Code(err) != CodeArrayMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadGolden(t *testing.T) {
	data := float32s(1, 2, 3, 4, 5, 6)
	ok := npy("<f4", "2, 3", data)
	for name, c := range map[string]struct {
		arrays map[string][]byte
		want   string
	}{
		"as they should be": {map[string][]byte{"image": ok, "scores": ok, "more": npy("<f8", "0,", nil)}, ""},
		"an input is gone":  {map[string][]byte{"scores": ok}, CodeGoldenInvalid},
		"an output is gone": {map[string][]byte{"image": ok}, CodeGoldenInvalid},
		"another type":      {map[string][]byte{"image": ok, "scores": npy("<i4", "2, 3", data)}, CodeGoldenInvalid},
		"another shape":     {map[string][]byte{"image": ok, "scores": npy("<f4", "2, 3, 1", data)}, CodeGoldenInvalid},
		"another count":     {map[string][]byte{"image": ok, "scores": npy("<f4", "3, 2", data)}, CodeGoldenInvalid},
		"a scalar":          {map[string][]byte{"image": ok, "scores": npy("<f4", "", data[:4])}, CodeGoldenInvalid},
	} {
		cases, err := LoadGolden(sample(), npz(c.arrays, true))
		if Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if got := Values("FP32", cases.Inputs["image"].Row(1)); !slices.Equal(got, []float64{4, 5, 6}) || cases.N != 2 {
				t.Errorf("second case: %v of %d", got, cases.N)
			}
		}
	}
}

func TestReal(t *testing.T) {
	one := &Quant{Scale: []float32{0.5}, Zero: []int64{-1}}
	if d := cmp.Diff([]float64{1, 0.5}, one.Real([]float64{1, 0}, []int{2})); d != "" {
		t.Error(d)
	}
	axis := &Quant{Scale: []float32{1, 10}, Zero: []int64{0, 1}, Axis: 0}
	if d := cmp.Diff([]float64{1, 2, 20, 30}, axis.Real([]float64{1, 2, 3, 4}, []int{2, 2})); d != "" {
		t.Error(d)
	}
	last := &Quant{Scale: []float32{1, 10}, Zero: []int64{0, 0}, Axis: 1}
	if d := cmp.Diff([]float64{1, 20, 3, 40}, last.Real([]float64{1, 2, 3, 4}, []int{2, 2})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]float64{3}, (*Quant)(nil).Real([]float64{3}, nil)); d != "" {
		t.Error(d)
	}
}

func FuzzReadNPZ(f *testing.F) {
	f.Add(sampleFiles()["golden.npz"])
	f.Add(npz(map[string][]byte{"a": npy("|u1", "3,", []byte{1, 2, 3})}, false))
	f.Add(npz(map[string][]byte{"a": npy("<U2", "2,", utf32("ab", "c"))}, false))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		arrays, err := ReadNPZ(b)
		if err != nil {
			return
		}
		for _, a := range arrays {
			for i := range min(a.Len(), 4) {
				Values(a.DType, a.Row(i))
				if a.DType == Text {
					_ = a.Text(i)
				}
			}
		}
	})
}
