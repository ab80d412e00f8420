package bundle

import "slices"

// MaxGolden is the greatest number of golden cases.
const MaxGolden = 10_000

// Cases are golden cases, read and found to fit their contract.
type Cases struct {
	N       int
	Inputs  map[string]*Array // by input name; Row(i) is the stored input of case i
	Outputs map[string]*Array // by output name, those that have a tolerance
}

// LoadGolden reads the golden cases of a contract from the bytes of their .npz.
// Every input and every output with a tolerance must be there, in the tensor's
// datatype, with the number of cases as the leading dimension: in place of a
// leading 1 or -1 of the tensor's shape, else in front of it.
func LoadGolden(c *Contract, npz []byte) (*Cases, error) {
	if c.Golden == nil {
		return nil, refuse(CodeGoldenInvalid, "the contract names no golden cases")
	}
	arrays, err := ReadNPZ(npz)
	if err != nil {
		return nil, err
	}
	cases := &Cases{N: c.Golden.Cases, Inputs: map[string]*Array{}, Outputs: map[string]*Array{}}
	for i := range c.Inputs {
		t := &c.Inputs[i]
		if cases.Inputs[t.Name], err = goldenArray(arrays, t, cases.N); err != nil {
			return nil, err
		}
	}
	for i := range c.Outputs {
		t := &c.Outputs[i]
		if _, compared := c.Golden.Tolerance[t.Name]; !compared {
			continue
		}
		if cases.Outputs[t.Name], err = goldenArray(arrays, t, cases.N); err != nil {
			return nil, err
		}
	}
	return cases, nil
}

func goldenArray(arrays map[string]*Array, t *Tensor, n int) (*Array, error) {
	a := arrays[t.Name]
	if a == nil {
		return nil, refuse(CodeGoldenInvalid, "golden cases: no array named %q", t.Name)
	}
	if a.DType != t.DType {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q holds %s, the tensor %s", t.Name, a.DType, t.DType)
	}
	if a.Len() != n {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q holds %d cases, not %d", t.Name, a.Len(), n)
	}
	if !fitsShape(a.Shape[1:], CaseShape(t.Shape)) {
		return nil, refuse(CodeGoldenInvalid, "golden cases: array %q of %v is no list of %v", t.Name, a.Shape, CaseShape(t.Shape))
	}
	return a, nil
}

// CaseShape is the shape of one case of a tensor: without a leading 1 or -1.
func CaseShape(shape []int) []int {
	if len(shape) > 0 && (shape[0] == 1 || shape[0] == -1) {
		return shape[1:]
	}
	return shape
}

// fitsShape says whether have is an instance of want, in which -1 is any size.
func fitsShape(have, want []int) bool {
	return slices.EqualFunc(have, want, func(h, w int) bool { return h == w || w == -1 })
}
