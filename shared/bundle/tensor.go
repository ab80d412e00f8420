package bundle

import "github.com/dunlin-edge/dunlin/shared/bundle/meaning"

// Tensor is one named input or output.
type Tensor struct {
	Name    string   `json:"name"`
	DType   string   `json:"dtype"` // Open Inference Protocol: "FP32", "INT8", "UINT8", …
	Shape   []int    `json:"shape"` // -1: dynamic
	Quant   *Quant   `json:"quantization,omitempty"`
	Meaning *Meaning `json:"meaning,omitempty"`
}

// Meaning says what the numbers of a tensor stand for.
type Meaning = meaning.Meaning

// Quant maps stored to real values: real = scale * (stored - zero). One entry
// each for per-tensor quantization, else one per index of Axis.
type Quant struct {
	Scale []float32 `json:"scale"`
	Zero  []int64   `json:"zero"`
	Axis  int       `json:"axis,omitempty"`
}

// validateBoxes checks what outputs say about each other.
func (c *Contract) validateBoxes() error {
	for i := range c.Inputs {
		if m := c.Inputs[i].Meaning; m != nil && m.Boxes != nil {
			return invalid("inputs", "%s: only outputs hold boxes", c.Inputs[i].Name)
		}
	}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		if t.Meaning == nil || t.Meaning.Boxes == nil {
			continue
		}
		if err := t.Meaning.Boxes.Validate(t.Name, t.Shape, c.outputShape); err != nil {
			return invalid("outputs", "%s: %v", t.Name, err)
		}
	}
	return nil
}

func (c *Contract) outputShape(name string) ([]int, bool) {
	if o := c.Output(name); o != nil {
		return o.Shape, true
	}
	return nil, false
}

// boxClasses is how many classes the outputs of boxes tell apart, 0 if they do not
// say it.
func (c *Contract) boxClasses() int {
	for _, t := range c.Outputs {
		if t.Meaning != nil && t.Meaning.Boxes != nil {
			scores, _ := c.outputShape(t.Meaning.Boxes.Scores)
			return t.Meaning.Boxes.ClassCount(t.Shape, scores)
		}
	}
	return 0
}
