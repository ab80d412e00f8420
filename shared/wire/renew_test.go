package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

func TestRenewRequestCheck(t *testing.T) {
	good := RenewRequest{Device: "meter-1", Certificate: make([]byte, 32), PublicKey: make([]byte, 91), Old: make([]byte, 72), New: make([]byte, 72)}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*RenewRequest){
		"no device":          func(r *RenewRequest) { r.Device = "" },
		"a path":             func(r *RenewRequest) { r.Device = "../meter" },
		"no certificate":     func(r *RenewRequest) { r.Certificate = nil },
		"a long certificate": func(r *RenewRequest) { r.Certificate = make([]byte, 33) },
		"no key":             func(r *RenewRequest) { r.PublicKey = nil },
		"a long key":         func(r *RenewRequest) { r.PublicKey = make([]byte, 513) },
		"a long signature":   func(r *RenewRequest) { r.Old = make([]byte, 257) },
		"another long one":   func(r *RenewRequest) { r.New = make([]byte, 257) },
	} {
		r := good
		spoil(&r)
		if r.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// No two requests have one proof, and none is the proof of an enrolment.
func TestRenewProof(t *testing.T) {
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	proofs := [][]byte{
		RenewProof("meter-1", a, b), RenewProof("meter-1", b, a), RenewProof("meter-11", a, b), RenewProof("meter-1", a, a),
		EnrolProof("meter-1", slices.Concat(a, b)),
	}
	for i, p := range proofs {
		for j, q := range proofs {
			if i != j && bytes.Equal(p, q) {
				t.Errorf("%d and %d are one proof", i, j)
			}
		}
	}
}

// FuzzRenewRequest takes any body.
func FuzzRenewRequest(f *testing.F) {
	f.Add([]byte(`{"device":"meter-1","certificate":"AAAA","public_key":"AAAA","old":"AA==","new":"AA=="}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r RenewRequest
		if json.Unmarshal(b, &r) != nil || r.Check() != nil {
			return
		}
		if len(RenewProof(r.Device, r.Certificate, r.PublicKey)) > 1024 {
			t.Error("a long proof")
		}
	})
}
