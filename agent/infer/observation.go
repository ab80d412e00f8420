package infer

import (
	"context"
	"errors"
	"math"

	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// observation is what a request tells about the model.
func (v *served) observation(inputs [][]byte, r result, err error) observe.Observation {
	c := v.slot.Contract
	o := observe.Observation{Key: v.slot.Key, Took: r.took, Code: failureCode(err), Input: math.NaN()}
	if c.Reference != nil {
		o.Bins = &c.Reference.Score
	}
	if err != nil {
		return o
	}
	if len(inputs) > 0 {
		o.Input = meanOf(real(&c.Inputs[0], inputs[0]))
	}
	for i := range c.Outputs {
		values := real(&c.Outputs[i], r.outputs[i])
		for _, x := range values {
			o.NaN = o.NaN || math.IsNaN(x) || math.IsInf(x, 0)
		}
		if c.Watch != nil && c.Outputs[i].Name == c.Watch.Output {
			o.Class, o.Score = highest(values)
			o.Watched = o.Class >= 0
		}
	}
	return o
}

func failureCode(err error) string {
	var d *Death
	switch {
	case err == nil:
		return ""
	case errors.As(err, &d):
		return "worker." + d.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return "request.deadline"
	}
	return "worker.run"
}

// real are the real values of a tensor's bytes.
func real(t *bundle.Tensor, b []byte) []float64 {
	return t.Quant.Real(bundle.Values(t.DType, b), t.Shape)
}

// highest is the index and value of the highest number, -1 when there is none.
func highest(v []float64) (int, float64) {
	best := -1
	for i, x := range v {
		if !math.IsNaN(x) && (best < 0 || x > v[best]) {
			best = i
		}
	}
	if best < 0 {
		return -1, 0
	}
	return best, v[best]
}

func meanOf(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
