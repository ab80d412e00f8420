package numpy

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Write makes an .npz file; equal arrays make equal bytes.
func Write(arrays map[string]*Array) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(arrays)) {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Deflate})
		if err != nil {
			return nil, err
		}
		header, err := arrays[name].header()
		if err != nil {
			return nil, fmt.Errorf("array %.64q: %w", name, err)
		}
		f.Write(header) // what goes wrong comes back from Close
		f.Write(arrays[name].Data)
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// header is that of version 1.0.
func (a *Array) header() ([]byte, error) {
	descr := ""
	for numpy, dtype := range npyTypes {
		if dtype == a.DType {
			descr = numpy
		}
	}
	switch {
	case a.DType == Text && a.wide:
		descr = fmt.Sprintf("<U%d", a.width)
	case a.DType == Text:
		descr = fmt.Sprintf("|S%d", a.width)
	case descr == "":
		return nil, fmt.Errorf("numpy has no %s", a.DType)
	}
	var dims strings.Builder
	for _, d := range a.Shape {
		fmt.Fprintf(&dims, "%d, ", d)
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n", descr, strings.TrimSuffix(dims.String(), " "))
	return append(binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(text))), text...), nil
}

// Texts is a list of texts, the longest of which has 1 to 999 bytes.
func Texts(list []string) *Array {
	a := &Array{DType: Text, Shape: []int{len(list)}}
	for _, s := range list {
		a.width = max(a.width, len(s))
	}
	a.Data = make([]byte, len(list)*a.width)
	for i, s := range list {
		copy(a.Data[i*a.width:], s)
	}
	return a
}

// Join appends the rows of b, which has the same datatype and rows of the same shape.
func (a *Array) Join(b *Array) error {
	if a.DType != b.DType || a.width != b.width || a.wide != b.wide || len(a.Shape) == 0 || len(b.Shape) == 0 || !slices.Equal(a.Shape[1:], b.Shape[1:]) {
		return fmt.Errorf("rows of %s %v cannot follow rows of %s %v", b.DType, b.Shape, a.DType, a.Shape)
	}
	a.Data = slices.Concat(a.Data, b.Data)
	a.Shape = slices.Concat([]int{a.Shape[0] + b.Shape[0]}, a.Shape[1:])
	return nil
}
