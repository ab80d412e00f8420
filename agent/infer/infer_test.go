package infer_test

import (
	"errors"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
)

func TestMain(m *testing.M) { infertest.Main(m) }

// TestProve puts every release of the digit reader before the proof. The last
// three pass it: what is wrong with them shows later, or to nobody.
func TestProve(t *testing.T) {
	for release, code := range map[string]string{
		"1.0.0": "", "1.1.0": "", "1.1.1": "",
		"wrong": "prove.golden", "crash": "prove.crash", "shape": "prove.shape", "slow": "prove.latency",
		"late": "", "shifted": "", "creep": "",
	} {
		t.Run(release, func(t *testing.T) {
			s, _ := infertest.Server(t)
			p, err := s.Prove(t.Context(), infertest.Digits(t, release))
			t.Logf("%+v %v", p, err)
			var r *infer.Refusal
			if err != nil && !errors.As(err, &r) {
				t.Fatal(err)
			}
			if got := codeOf(r); got != code {
				t.Fatalf("code %q, want %q: %v", got, code, err)
			}
			if code == "" && (p.Cases == 0 || p.Golden != p.Cases || p.P95 <= 0 || p.Start <= 0 || p.PeakKB == 0) {
				t.Fatalf("a proof with holes: %+v", p)
			}
		})
	}
}

func codeOf(r *infer.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Code
}
