package bundle

import "github.com/dunlin-edge/dunlin/shared/bundle/numpy"

// Text is the DType of an array of texts, which no tensor has.
const Text = numpy.Text

// Array is one array of a .npy or .npz file, in C order and little endian.
type Array = numpy.Array

// ReadNPY reads one array of format version 1.0 or 2.0.
func ReadNPY(b []byte) (*Array, error) {
	a, err := numpy.ReadArray(b)
	if err != nil {
		return nil, refuse(CodeArrayMalformed, "%v", err)
	}
	return a, nil
}

// ReadNPZ reads every array of an .npz file, by name.
func ReadNPZ(b []byte) (map[string]*Array, error) {
	list, err := numpy.Read(b)
	if err != nil {
		return nil, refuse(CodeArrayMalformed, "%v", err)
	}
	return list, nil
}

// Values returns every element of b, which holds elements of a datatype, as
// numbers. 64-bit integers lose what float64 cannot hold. It returns nil for a
// datatype that a contract cannot name.
func Values(dtype string, b []byte) []float64 { return numpy.AppendValues(nil, dtype, b, 1) }

// AppendValues appends every stride-th element of b, the first one first, to list,
// as Values has them.
func AppendValues(list []float64, dtype string, b []byte, stride int) []float64 {
	return numpy.AppendValues(list, dtype, b, stride)
}

// Real turns stored values of one tensor of the given shape into real ones, in
// place, and returns them. A nil Quant leaves them as they are.
func (q *Quant) Real(values []float64, shape []int) []float64 {
	if q == nil {
		return values
	}
	inner := 1
	for _, d := range shape[min(q.Axis+1, len(shape)):] {
		inner *= max(d, 1)
	}
	for i := range values {
		k := 0
		if len(q.Scale) > 1 {
			k = i / inner % len(q.Scale)
		}
		values[i] = float64(q.Scale[k]) * (values[i] - float64(q.Zero[k]))
	}
	return values
}
