package infer_test

import (
	"errors"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestMain(m *testing.M) { infertest.Main(m) }

// TestProve puts every release of the digit reader before the proof. The last
// three pass it: what is wrong with them shows later, or to nobody.
func TestProve(t *testing.T) {
	// The budget of the slow one is of this machine, whatever it is: half of what
	// it takes.
	s, _ := infertest.Server(t)
	slow, err := s.Prove(t.Context(), infertest.Digits(t, "slow"))
	if err != nil {
		t.Fatal(err)
	}
	for release, code := range map[string]string{
		"1.0.0": "", "1.1.0": "", "1.1.1": "",
		"wrong": "prove.golden", "crash": "prove.crash", "shape": "prove.shape", "slow": "prove.latency",
		"late": "", "shifted": "", "creep": "",
	} {
		t.Run(release, func(t *testing.T) {
			s, _ := infertest.Server(t)
			slot := infertest.Digits(t, release)
			if release == "slow" {
				slot.Contract.Budgets[0].LatencyP95US = slow.Cost.P50US / 2
			}
			p, err := s.Prove(t.Context(), slot)
			t.Logf("%+v %v", p, err)
			var r *infer.Refusal
			if err != nil && !errors.As(err, &r) {
				t.Fatal(err)
			}
			if got := codeOf(r); got != code {
				t.Fatalf("code %q, want %q: %v", got, code, err)
			}
			if code == "" && (p.Cases == 0 || p.Held != p.Cases || p.Cost.P95US <= 0 || p.Cost.P99US < p.Cost.P95US || p.Cost.Start <= 0 || p.Cost.Cold <= 0 || p.Cost.PeakKB == 0 || p.Kernels != infer.XNNPACK || p.Threads != 1) {
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

// TestBudgets refuses what the contract does not allow, with the figure.
func TestBudgets(t *testing.T) {
	s, _ := infertest.Server(t)
	for code, change := range map[string]func(*bundle.Contract){
		"prove.latency": func(c *bundle.Contract) { c.Budgets[0].LatencyP95US = 1 },
		"prove.memory":  func(c *bundle.Contract) { c.Budgets[0].PeakMemoryKB = 1000 },
		"prove.start":   func(c *bundle.Contract) { c.Budgets[0].StartMS = 1 },
		"prove.shape":   func(c *bundle.Contract) { c.Outputs[0].Name = "other" },
		"prove.cases":   func(c *bundle.Contract) { c.Golden.Cases-- },
		"":              func(c *bundle.Contract) { c.Golden, c.Budgets, c.Inputs[0].Shape[0] = nil, nil, -1 },
	} {
		slot := infertest.Digits(t, "1.1.0")
		change(slot.Contract)
		var r *infer.Refusal
		if _, err := s.Prove(t.Context(), slot); err != nil && !errors.As(err, &r) || codeOf(r) != code {
			t.Errorf("%v, want %q", err, code)
		}
	}
}

// TestTolerance takes a share of the cases when the contract says so, and never a
// value that is not a number.
func TestTolerance(t *testing.T) {
	s, _ := infertest.Server(t)
	for pass, code := range map[float64]string{0: "prove.golden", 0.05: "", 0.5: "prove.golden"} {
		slot := infertest.Digits(t, "wrong")
		slot.Contract.Golden.Tolerance["scores"] = bundle.Tolerance{Top: 3, Pass: pass}
		_, err := s.Prove(t.Context(), slot)
		var r *infer.Refusal
		if err != nil && !errors.As(err, &r) || codeOf(r) != code {
			t.Errorf("pass %v: %v, want %q", pass, err, code)
		}
	}
}
