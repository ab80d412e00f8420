package oip

import (
	"cmp"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// classify turns scores into their k highest as the classification extension has
// them: "score:index" or "score:index:label", the highest first, equal ones in the
// order of their classes. The last dimension holds the classes; a tensor of more
// dimensions has a row of k for each of the others. A score is the real value of a
// quantized one; what is not a number comes last.
func classify(t *bundle.Tensor, b []byte, shape []int, k int, labels []string) ([]int, []string) {
	classes := 1
	if len(shape) > 0 {
		classes = shape[len(shape)-1]
	}
	k = min(k, classes)
	values := t.Quant.Real(bundle.Values(t.DType, b), shape)
	var out []string
	for row := range slices.Chunk(values, max(classes, 1)) {
		order := make([]int, len(row))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(known(row[b]), known(row[a])) })
		for _, class := range order[:min(k, len(order))] {
			s := strconv.FormatFloat(row[class], 'g', -1, 32) + ":" + strconv.Itoa(class)
			if class < len(labels) {
				s += ":" + labels[class]
			}
			out = append(out, s)
		}
	}
	if len(shape) == 0 {
		return []int{k}, out
	}
	return append(slices.Clone(shape[:len(shape)-1]), k), out
}

// known puts what is not a number behind every number.
func known(v float64) float64 {
	if math.IsNaN(v) {
		return math.Inf(-1)
	}
	return v
}

// maxLabels bounds a file of labels, in bytes.
const maxLabels = 1 << 20

// labelFiles remembers the class names of the slots that were asked.
type labelFiles struct {
	mu  sync.Mutex
	key observe.Key
	in  []string
}

// labels are the names of a slot's classes; none when its contract has no file of
// them or it cannot be read.
func (f *front) labels(s infer.Slot) []string {
	if s.Contract.Labels == "" {
		return nil
	}
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	if f.names.key != s.Key || f.names.in == nil {
		b, err := durable.ReadFile(durable.OS{}, filepath.Join(s.Dir, filepath.FromSlash(s.Contract.Labels)), maxLabels)
		if err != nil {
			return nil
		}
		labels, err := bundle.ParseLabels(b)
		if err != nil {
			return nil
		}
		f.names.key, f.names.in = s.Key, labels
	}
	return f.names.in
}
