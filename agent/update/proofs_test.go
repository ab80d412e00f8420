package update

import (
	"slices"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestProofs: what a pair showed is told, says how it is served, also after a
// restart, and is forgotten with the pair.
func TestProofs(t *testing.T) {
	d := newDevice(t)
	d.refuse["1.1.0"] = &Refusal{"prove.golden", "wrong answers"}
	d.run(func() {
		d.wish("1.0.0", 1)
		if s := d.until("1.0.0", good("1.0.0")); s.Active.Proof == nil || s.Active.Proof.Kernels != "builtin" {
			t.Errorf("active: %+v", s.Active.Proof)
		}
		d.wish("1.1.0", 1)
		s := d.until("the refusal", refused("1.1.0"))
		if p := s.Candidate.Proof; p == nil || p.Held != 3 || s.Active.Proof == nil {
			t.Errorf("refused: %+v, active %+v", p, s.Active.Proof)
		}
	})
	d.open()
	d.run(func() {
		d.until("1.0.0 again", func(Status) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.serving == "1.0.0"
		})
		d.mu.Lock()
		if d.served == nil || d.served.Kernels != "builtin" || d.served.Threads != 2 {
			t.Errorf("served after a restart as %+v", d.served)
		}
		d.mu.Unlock()
		d.wish("1.2.0", 1)
		d.until("1.2.0", good("1.2.0"))
	})
	all, _, err := d.e.proofs.Get("m")
	if err != nil || len(all.List) != 2 {
		t.Errorf("%+v %v", all, err)
	}
}

// TestShadowIsAStep: a candidate whose contract asks for it is shadowed once it is
// proven; one that answers otherwise never serves.
func TestShadowIsAStep(t *testing.T) {
	d := newDevice(t)
	d.shadows = map[string]*bundle.Shade{"1.1.0": {Requests: 200, Agreed: 200}, "1.2.0": {Requests: 200, Agreed: 100}}
	d.run(func() {
		d.wish("1.0.0", 1)
		d.until("1.0.0", good("1.0.0"))
		d.wish("1.1.0", 1)
		if s := d.until("1.1.0", good("1.1.0")); s.Active.Proof.Shadow == nil || s.Active.Proof.Shadow.Agreed != 200 || s.Active.Proof.Held != 8 {
			t.Errorf("%+v", s.Active.Proof)
		}
		d.wish("1.2.0", 1)
		s := d.until("the refusal", refused("1.2.0"))
		if s.Candidate.Code != "prove.shadow" || s.Candidate.Proof.Shadow.Agreed != 100 || !s.Candidate.Proven {
			t.Errorf("%+v %+v", s.Candidate, s.Candidate.Proof)
		}
		d.serves("1.1.0")
	})
	if !slices.Equal(d.shaded, []string{"1.1.0", "1.2.0"}) {
		t.Errorf("shadowed: %v", d.shaded)
	}
}
