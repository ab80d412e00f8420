package pack

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// maxRank is how many dimensions a declared tensor may have.
const maxRank = 8

// declared takes names, types and shapes from people: an outside service runs the model,
// and its file may be of any kind. Words are a datatype, a shape and then the meaning.
func (p *packer) declared() error {
	if len(p.spec.Input) > 0 || len(p.spec.Output) > 0 || len(p.spec.Inputs) == 0 || len(p.spec.Outputs) == 0 {
		return refuse("pack.declared", "write them like 'inputs: {frame: FP32 1x8x8x1 image gray 0..1}'", "%s says serve: external, so inputs and outputs are declared by their names", SpecName)
	}
	var err error
	if p.contract.Inputs, err = p.declare("input", p.spec.Inputs); err != nil {
		return err
	}
	p.contract.Outputs, err = p.declare("output", p.spec.Outputs)
	return err
}

func (p *packer) declare(key string, byName map[string]said) ([]bundle.Tensor, error) {
	var list []bundle.Tensor
	meanings := map[string]said{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		t, words, ok := declaration(byName[name])
		if !ok {
			return nil, refuse("pack.declared", "write it like 'FP32 1x8x8x1 image gray 0..1': a datatype, a shape with -1 for what is open, the meaning", "%s: %s %s is declared as %q", SpecName, key, name, strings.Join(byName[name], " "))
		}
		t.Name = name
		list, meanings[name] = append(list, t), words
	}
	return p.mean(key, list, nil, meanings)
}

// declaration reads a datatype, a shape and what is left of the words; without a
// meaning the tensor is one of numbers.
func declaration(words said) (t bundle.Tensor, rest said, ok bool) {
	if len(words) < 2 || bundle.DTypeSize(words[0]) == 0 {
		return t, nil, false
	}
	t.DType = words[0]
	for _, d := range strings.Split(words[1], "x") {
		n, err := strconv.Atoi(d)
		if err != nil || n < 1 && n != -1 {
			return t, nil, false
		}
		t.Shape = append(t.Shape, n)
	}
	if rest = words[2:]; len(rest) == 0 {
		rest = said{"tensor"}
	}
	return t, rest, len(t.Shape) <= maxRank
}
