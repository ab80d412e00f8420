package bundle

import (
	"math"

	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// integers are the ends of the datatypes that have few enough values to know them.
var integers = map[string][2]float64{
	"BOOL": {0, 1}, "UINT8": {0, 255}, "INT8": {-128, 127}, "UINT16": {0, 65535}, "INT16": {-32768, 32767},
}

// Span is the range of a tensor's real values that its meaning or its type gives
// it; lo is not below hi if neither does.
func (t *Tensor) Span() (lo, hi float64) {
	if m := t.Meaning; m != nil && m.Range[0] != m.Range[1] {
		return min(m.Range[0], m.Range[1]), max(m.Range[0], m.Range[1])
	}
	if m := t.Meaning; m != nil && len(m.Ranges) > 0 {
		lo, hi = math.Inf(1), math.Inf(-1)
		for _, r := range m.Ranges {
			lo, hi = min(lo, r[0], r[1]), max(hi, r[0], r[1])
		}
		return lo, hi
	}
	ends, ok := integers[t.DType]
	if !ok || t.Quant != nil && len(t.Quant.Scale) != 1 {
		return 0, 0
	}
	real := t.Quant.Real(ends[:], nil)
	return min(real[0], real[1]), max(real[0], real[1])
}

// Look appends to list the real values of the elements of b, a value of the
// tensor, that watching looks at: at most sketch.InputElements. One with a
// quantization per axis is not looked at.
func (t *Tensor) Look(list []float64, b []byte) []float64 {
	size := DTypeSize(t.DType)
	if size == 0 || t.Quant != nil && len(t.Quant.Scale) != 1 {
		return list
	}
	have := len(list)
	list = AppendValues(list, t.DType, b, sketch.Stride(len(b)/size))
	t.Quant.Real(list[have:], nil)
	return list
}

// ScoreKind is how the tensor holds classes, as its meaning says: sketch.Softmax,
// sketch.Sigmoid, sketch.Logits or empty.
func (t *Tensor) ScoreKind() string {
	if t.Meaning == nil {
		return ""
	}
	return t.Meaning.Score
}
