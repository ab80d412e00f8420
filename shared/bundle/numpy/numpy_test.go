package numpy

import (
	"archive/zip"
	"bytes"
	"math"
	"testing"
)

// A member never unfolds beyond the limit, whatever its header promises.
func TestReadMember(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("bomb.npy")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(make([]byte, 1<<20))
	w.Close()
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for limit, ok := range map[int64]bool{1 << 20: true, 1<<20 - 1: false, 10: false} {
		if raw, err := readMember(z.File[0], limit); (err == nil) != ok || len(raw) > int(limit) {
			t.Errorf("limit %d: %d bytes, %v", limit, len(raw), err)
		}
	}
}

// TestStride: every datatype is read alike with and without a stride.
func TestStride(t *testing.T) {
	for dtype, size := range dtypes {
		b := make([]byte, 12*size)
		for i := range b {
			b[i] = byte(7 * i)
		}
		all := AppendValues(nil, dtype, b, 1)
		for i, v := range AppendValues(nil, dtype, b, 5) {
			if v != all[5*i] && !math.IsNaN(v) {
				t.Errorf("%s, element %d: %v, want %v", dtype, 5*i, v, all[5*i])
			}
		}
		for i, v := range all {
			if w := element(dtype, b[i*size:]); v != w && !math.IsNaN(w) {
				t.Errorf("%s, element %d: %v, want %v", dtype, i, v, w)
			}
		}
	}
}

// TestWrite: what is written is read as it was, joined and with texts.
func TestWrite(t *testing.T) {
	a := &Array{DType: "FP32", Shape: []int{1, 2}, Data: make([]byte, 8)}
	if err := a.Join(&Array{DType: "FP32", Shape: []int{2, 2}, Data: bytes.Repeat([]byte{1}, 16)}); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Array{{DType: "FP32", Shape: []int{1, 3}}, {DType: "INT8", Shape: []int{1, 2}}, {DType: "FP32", Shape: []int{}}} {
		if a.Join(b) == nil {
			t.Errorf("joined with %+v", b)
		}
	}
	file, err := Write(map[string]*Array{"a": a, "where": Texts([]string{"site=a", "b", ""}), "n": {DType: "INT64", Shape: []int{}, Data: make([]byte, 8)}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil || len(got) != 3 || !bytes.Equal(got["a"].Data, a.Data) || got["a"].Len() != 3 || got["where"].Text(0) != "site=a" || got["where"].Text(1) != "b" || got["where"].Text(2) != "" || len(got["n"].Shape) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := Write(map[string]*Array{"a": {DType: "BF16"}}); err == nil {
		t.Error("numpy has no BF16")
	}
}
