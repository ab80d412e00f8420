package judge

import (
	"fmt"
	"slices"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Refusal says that a slot is not fit to serve on this device.
type Refusal struct {
	Code   string // "prove.golden", "prove.crash", …
	Reason string // a sentence
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason + " (" + r.Code + ")" }

// OfKernels tells whether other kernels may do better.
func (r *Refusal) OfKernels() bool {
	return slices.Contains([]string{
		"prove.golden", "prove.nan", "prove.repeat", "prove.slices", "prove.crash", "prove.start", "prove.hang", "prove.illegal_instruction",
	}, r.Code)
}

// After joins a refusal with that of the kernels before.
func (r *Refusal) After(first *Refusal) *Refusal {
	switch {
	case first == nil:
		return r
	case first.Code == r.Code:
		return first
	}
	return &Refusal{Code: r.Code, Reason: r.Reason + "; with the built-in kernels, because with XNNPACK's: " + first.Reason}
}

// Matches compares what the runtime found with what the contract says.
func Matches(c *bundle.Contract, m *frame.Model) error {
	if err := same("input", c.Inputs, m.Inputs); err != nil {
		return err
	}
	return same("output", c.Outputs, m.Outputs)
}

func same(what string, want []bundle.Tensor, have []frame.Tensor) error {
	if len(want) != len(have) {
		return &Refusal{"prove.shape", fmt.Sprintf("the model has %d %ss, its contract %d", len(have), what, len(want))}
	}
	for i, t := range want {
		h := have[i]
		fits := h.Name == t.Name && h.DType == t.DType && len(h.Shape) == len(t.Shape)
		for k := 0; fits && k < len(t.Shape); k++ {
			fits = t.Shape[k] == h.Shape[k] || t.Shape[k] == -1
		}
		if !fits {
			return &Refusal{"prove.shape", fmt.Sprintf("%s %d is %s %s %v, its contract says %s %s %v", what, i, h.Name, h.DType, h.Shape, t.Name, t.DType, t.Shape)}
		}
	}
	return nil
}
