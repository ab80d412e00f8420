package drift

import (
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// sums is what the samples of a group come to, exactly: counts are added.
type sums struct {
	contract *bundle.Contract
	devices  map[string]bool
	windows  int
	requests uint64
	failed   uint64
	classes  []uint64
	score    *sketch.Histogram
	entropy  *sketch.Histogram
	means    []*sketch.Histogram // of the inputs
}

func newSums(c *bundle.Contract) *sums { return &sums{contract: c, devices: map[string]bool{}} }

// add takes in one sample, whole or not at all: false means that its bins are not
// those of the release.
func (s *sums) add(x *fleet.Sample) bool {
	w := &x.Sample
	var ref bundle.Reference
	if s.contract != nil && s.contract.Reference != nil {
		ref = *s.contract.Reference
	}
	if !fits(w.Score, &ref.Score, s.score) || !fits(w.Entropy, ref.Entropy, s.entropy) {
		return false
	}
	for i := range w.Inputs {
		var want, have *sketch.Histogram
		if i < len(ref.Inputs) {
			want = ref.Inputs[i].Means
		}
		if i < len(s.means) {
			have = s.means[i]
		}
		if !fits(w.Inputs[i].Means, want, have) {
			return false
		}
	}
	s.devices[x.Device] = true
	s.windows++
	s.requests += w.Requests
	for _, n := range w.Errors {
		s.failed += n
	}
	if len(w.Classes) > len(s.classes) {
		s.classes = append(s.classes, make([]uint64, len(w.Classes)-len(s.classes))...)
	}
	for i, n := range w.Classes {
		s.classes[i] += n
	}
	merge(&s.score, w.Score)
	merge(&s.entropy, w.Entropy)
	for i := range w.Inputs {
		if i >= len(s.means) {
			s.means = append(s.means, nil)
		}
		merge(&s.means[i], w.Inputs[i].Means)
	}
	return true
}

// fits says whether h can be added to what there is and compared with the
// reference; what is nil or empty asks for nothing.
func fits(h, reference, have *sketch.Histogram) bool {
	if h == nil {
		return true
	}
	if reference != nil && len(reference.Bins) > 0 {
		return h.Fits(reference)
	}
	return have == nil || h.Fits(have)
}

func merge(into **sketch.Histogram, h *sketch.Histogram) {
	if h == nil {
		return
	}
	if *into == nil {
		n := sketch.NewHistogram(h.Lo, h.Hi, len(h.Bins))
		*into = &n
	}
	_ = (*into).Merge(*h) // fits was asked
}

// folds bounds what is kept of each device: classes are counted by their remainder.
const folds = 64

// folded is what is kept of one device of one release, to find the odd one out.
type folded struct {
	counts [measures][]uint64
}

// What devices are compared in.
const (
	byScore = iota
	byClasses
	byEntropy
	byInput
	measures
)

// names are those of the measures.
var names = [measures]string{"score", "classes", "entropy", "input"}

func (f *folded) add(w *wire.Sample) {
	var list [measures]*sketch.Histogram
	list[byScore], list[byEntropy] = w.Score, w.Entropy
	if len(w.Inputs) > 0 {
		list[byInput] = w.Inputs[0].Means
	}
	for i, h := range list {
		if h != nil {
			f.counts[i] = sketch.MergeCounts(f.counts[i], h.Counts())
		}
	}
	if len(w.Classes) > 0 && f.counts[byClasses] == nil {
		f.counts[byClasses] = make([]uint64, folds)
	}
	for i, n := range w.Classes {
		f.counts[byClasses][i%folds] += n
	}
}
