package observe

import (
	"math"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Plan is what to measure of the requests of one release. It is made once, and is
// safe for concurrent use.
type Plan struct {
	contract *bundle.Contract
	spans    [][2]float64 // of the inputs that are looked at
	watched  int          // index of the output, -1: none
	boxes    bool         // the watched output holds the scores of boxes, not of classes
	buffers  sync.Pool    // of *[]float64
}

const (
	maxScores = 1 << 16 // elements of an output that are looked at
	chunk     = 4096    // elements that are read at a time
	found     = 0.5     // score of a thing that counts as found
)

// NewPlan reads the contract; it must not change afterwards.
func NewPlan(c *bundle.Contract) *Plan {
	p := &Plan{contract: c, watched: -1}
	p.buffers.New = func() any { b := make([]float64, 0, chunk); return &b }
	for i := range c.Outputs {
		if m := c.Outputs[i].Meaning; m != nil && m.Kind == "boxes" {
			p.boxes = true
		}
		if c.Watch != nil && c.Outputs[i].Name == c.Watch.Output {
			p.watched = i
		}
	}
	if p.watched >= 0 {
		m := c.Outputs[p.watched].Meaning
		p.boxes = p.boxes && (m == nil || m.Kind != "boxes" && m.Score == "")
	}
	for i := range min(len(c.Inputs), wire.MaxSampleInputs) {
		lo, hi := c.Inputs[i].Span()
		if r := c.Reference; r != nil && i < len(r.Inputs) && r.Inputs[i].Bins != nil {
			lo, hi = r.Inputs[i].Bins.Lo, r.Inputs[i].Bins.Hi
		}
		p.spans = append(p.spans, [2]float64{lo, hi})
	}
	return p
}

// Answer measures the outputs, which are in the contract's order, into o. Its cost
// is bounded by maxScores elements an output.
func (p *Plan) Answer(o *Observation, outputs [][]byte) {
	if p.contract.Reference != nil {
		o.Bins = &p.contract.Reference.Score
	}
	buf := p.buffers.Get().(*[]float64)
	defer p.buffers.Put(buf)
	for i := range min(len(outputs), len(p.contract.Outputs)) {
		t := &p.contract.Outputs[i]
		if i == p.watched {
			p.scores(o, buf, t, outputs[i])
		} else if !o.NaN {
			o.NaN = holdsNaN(buf, t, outputs[i])
		}
	}
}

// scores measures the watched output.
func (p *Plan) scores(o *Observation, buf *[]float64, t *bundle.Tensor, b []byte) {
	size := bundle.DTypeSize(t.DType)
	*buf = bundle.AppendValues((*buf)[:0], t.DType, b[:min(len(b), maxScores*size)], 1)
	values := t.Quant.Real(*buf, t.Shape)
	for _, v := range values {
		if !finite(v) {
			o.NaN = true
			break
		}
	}
	c := sketch.CertaintyOf(values, t.ScoreKind())
	o.Watched, o.Class, o.Score = c.Best >= 0, c.Best, c.Score
	if p.boxes {
		o.Counted, o.Detections = true, Found(values, found)
		return
	}
	o.Sure, o.Entropy, o.Margin = c.OK, c.Entropy, c.Margin
}

// Found is how many scores reach the threshold.
func Found(scores []float64, threshold float64) (n int) {
	for _, s := range scores {
		if s >= threshold {
			n++
		}
	}
	return n
}

// holdsNaN looks at up to maxScores elements, all over the output.
func holdsNaN(buf *[]float64, t *bundle.Tensor, b []byte) bool {
	switch t.DType {
	case "FP32", "FP64", "FP16", "BF16":
	default:
		return false // has none
	}
	size := bundle.DTypeSize(t.DType)
	stride := (len(b)/size + maxScores - 1) / maxScores
	for step := chunk * max(stride, 1) * size; len(b) > 0; b = b[min(step, len(b)):] {
		*buf = bundle.AppendValues((*buf)[:0], t.DType, b[:min(step, len(b))], max(stride, 1))
		for _, v := range *buf {
			if !finite(v) {
				return true
			}
		}
	}
	return false
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// newInputs returns what look counts into.
func (p *Plan) newInputs() []sketch.Input {
	out := make([]sketch.Input, len(p.spans))
	for i, s := range p.spans {
		out[i] = sketch.NewInput(s[0], s[1])
	}
	return out
}

// look measures the inputs and returns the mean of the first, NaN: not known.
func (p *Plan) look(into []sketch.Input, inputs [][]byte) (first float64) {
	first = math.NaN()
	buf := p.buffers.Get().(*[]float64)
	defer p.buffers.Put(buf)
	for i := range min(len(into), len(inputs)) {
		*buf = p.contract.Inputs[i].Look((*buf)[:0], inputs[i])
		if len(*buf) == 0 {
			continue
		}
		mean := into[i].Add(*buf)
		if i == 0 {
			first = mean
		}
	}
	return first
}
