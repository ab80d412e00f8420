package frame

import (
	"encoding/hex"
	"testing"
)

func TestGoldenBytes(t *testing.T) {
	m := Message{Kind: Done, Frame: 1, Sequence: 0x0102030405060708, Micros: 1500, Status: -3}
	const want = "0500000001000000" + "0807060504030201" + "dc05000000000000" + "fdffffff00000000"
	if got := hex.EncodeToString(m.Encode()); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	back, rest, err := Decode(append(m.Encode(), "text"...))
	if err != nil || back != m || string(rest) != "text" {
		t.Fatalf("%+v %q %v", back, rest, err)
	}
}

func TestLayoutKeepsTensorsApart(t *testing.T) {
	m := &Model{Inputs: []Tensor{{Name: "a", Bytes: 5000, Room: 5000}, {Name: "b", Bytes: 4, Room: 4}}, Outputs: []Tensor{{Name: "c", Bytes: 40, Room: 4096}}}
	l, err := NewLayout(m)
	if err != nil {
		t.Fatal(err)
	}
	mem := make([]byte, l.Bytes)
	mark := byte(1)
	for f := range Frames {
		in, out := l.Split(mem, f)
		for _, b := range append(in, out...) {
			for i := range b {
				if b[i] != 0 {
					t.Fatal("two tensors share memory")
				}
				b[i] = mark
			}
			mark++
		}
	}
	if _, err := NewLayout(&Model{Inputs: []Tensor{{Bytes: 10, Room: 4}}}); err == nil {
		t.Fatal("a tensor with less room than bytes was laid out")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Message{Kind: Run}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, _, err := Decode(b); err == nil && m.Kind == 0 {
			t.Fatal("a message without a kind")
		}
	})
}
