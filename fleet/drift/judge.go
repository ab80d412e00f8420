package drift

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// What a verdict takes.
const (
	effect    = 0.2  // PSI that matters
	level     = 0.01 // of a false verdict in a whole answer
	minErrors = 100  // requests before anything is said about their share
	errorsBy  = 0.01 // share of failed requests beyond twice that of the others that matters
)

// comparison is a measure before the level is known.
type comparison struct {
	fleet.DriftMeasure
	matters bool   // the difference does, and PSI is beyond chance by itself
	enough  bool   // a difference that matters would have been seen
	lacks   uint64 // what the reference would have to hold; 0: it is large enough
}

// settle says the verdict at a level.
func (c comparison) settle(level float64) fleet.DriftMeasure {
	m := c.DriftMeasure
	if m.Verdict == fleet.DriftUnknown {
		return m
	}
	about := fmt.Sprintf("mean %.3g, %.3g in the reference", m.Mean, m.Usual)
	if m.Measure == "classes" {
		about = fmt.Sprintf("PSI %.2g", m.PSI)
	}
	if m.Measure == "errors" {
		about = fmt.Sprintf("%.2g %% fail, %.2g %% elsewhere", 100*m.Mean, 100*m.Usual)
	}
	switch {
	case c.matters && m.P < level:
		m.Verdict, m.Needs = fleet.DriftDrifts, 0
		m.Says = about
	case c.enough:
		m.Verdict = fleet.DriftSteady
		m.Says = about
	default:
		m.Verdict = fleet.DriftTooFew
		m.Says = fmt.Sprintf("%d of %d needed", m.Live, m.Needs)
		if c.lacks > 0 {
			m.Says = fmt.Sprintf("the reference holds %d, %d are needed", m.Reference, c.lacks)
		}
	}
	return m
}

// compare measures a group against its release's reference.
func (s *sums) compare() []comparison {
	var ref bundle.Reference
	if s.contract != nil && s.contract.Reference != nil {
		ref = *s.contract.Reference
	}
	var out []comparison
	if s.score != nil {
		out = append(out, histograms("score", &ref.Score, s.score))
	}
	if len(s.classes) > 0 {
		out = append(out, counts("classes", ref.Classes, s.classes))
	}
	if s.entropy != nil {
		out = append(out, histograms("entropy", ref.Entropy, s.entropy))
	}
	for i, h := range s.means {
		var want *sketch.Histogram
		if i < len(ref.Inputs) {
			want = ref.Inputs[i].Means
		}
		name := "input"
		if s.contract != nil && len(s.contract.Inputs) > 1 && i < len(s.contract.Inputs) {
			name += " " + s.contract.Inputs[i].Name
		}
		if h != nil {
			out = append(out, histograms(name, want, h))
		}
	}
	return out
}

func histograms(name string, ref, live *sketch.Histogram) comparison {
	var want []uint64
	if ref != nil && len(ref.Bins) > 0 {
		want = ref.Counts()
	}
	c := counts(name, want, live.Counts())
	c.Mean = live.Mean()
	if want == nil {
		return c
	}
	c.Usual = ref.Mean()
	// One of the two tests is the better; taking it costs a factor of two.
	c.P = min(1, 2*min(c.P, sketch.Kolmogorov(want, live.Counts())))
	return c
}

func counts(name string, ref, live []uint64) comparison {
	c := comparison{DriftMeasure: fleet.DriftMeasure{Measure: name, P: 1}}
	ref, live = sketch.Pad(ref, live)
	d := sketch.Compare(ref, live)
	c.Live, c.Reference = d.Live, d.Reference
	if d.Reference == 0 {
		c.Verdict, c.Says = fleet.DriftUnknown, "its contract says nothing of it"
		return c
	}
	c.PSI, c.Threshold, c.JS, c.P = d.PSI, d.Threshold, d.JS, sketch.Homogeneity(ref, live)
	c.matters = d.Significant(effect)
	bins := d.Groups
	if d.Live < d.Reference { // more live values would show more groups
		bins = max(bins, sketch.Compare(ref, ref).Groups)
	}
	c.enough = sketch.PSIThreshold(d.Reference, d.Live, max(bins, 2)) <= effect
	if !c.enough {
		needs, ok := sketch.SamplesFor(effect, d.Reference, max(bins, 2))
		if c.Needs = needs; !ok {
			c.Needs, c.lacks = 0, needs
		}
	}
	return c
}

// errors compares the share of failed requests with the other groups of a release.
func (s *sums) errors(all *sums) []comparison {
	others, failed := all.requests-s.requests, all.failed-s.failed
	if others == 0 || s.requests == 0 || s.failed > s.requests || failed > others {
		return nil
	}
	c := comparison{DriftMeasure: fleet.DriftMeasure{Measure: "errors", Live: s.requests, Reference: others, P: sketch.Proportions(failed, others, s.failed, s.requests)}}
	c.Mean, c.Usual = float64(s.failed)/float64(s.requests), float64(failed)/float64(others)
	c.matters = c.Mean > 2*c.Usual+errorsBy
	if c.enough = s.requests >= minErrors && others >= minErrors; !c.enough {
		c.Needs = minErrors
	}
	return []comparison{c}
}

// Rules for devices unlike the others.
const (
	minPeers  = 5   // devices of a release with enough values
	minValues = 50  // of a device
	farAway   = 5.0 // robust standard deviations from the median
	spread    = 0.02
)

// outliers finds devices whose distance from the rest of their release is far
// beyond what is usual among them, and more than chance. Devices differ by what
// stands before them, so the others are the measure, not the reference.
func (st *state) outliers() []fleet.DriftOutlier {
	out := []fleet.DriftOutlier{}
	byPath := map[string][]groupKey{}
	for k := range st.alone {
		byPath[k.path] = append(byPath[k.path], k)
	}
	for path, keys := range byPath {
		slices.SortFunc(keys, func(a, b groupKey) int { return strings.Compare(a.group, b.group) })
		for m := range measures {
			out = append(out, st.odd(path, keys, m)...)
		}
	}
	slices.SortFunc(out, func(a, b fleet.DriftOutlier) int {
		return cmp.Or(cmp.Compare(b.Distance, a.Distance), strings.Compare(a.Device, b.Device), strings.Compare(a.Measure, b.Measure))
	})
	return out[:min(len(out), maxOutliers)]
}

func (st *state) odd(path string, keys []groupKey, m int) (out []fleet.DriftOutlier) {
	var total []uint64
	var peers []groupKey
	for _, k := range keys {
		list := st.alone[k].counts[m]
		total = sketch.MergeCounts(total, list)
		if count(list) >= minValues {
			peers = append(peers, k)
		}
	}
	if len(peers) < minPeers {
		return nil
	}
	found := make([]sketch.Difference, len(peers))
	distances := make([]float64, len(peers))
	for i, k := range peers {
		own, rest := sketch.Pad(st.alone[k].counts[m], total)
		for j, n := range own {
			rest[j] -= min(n, rest[j])
		}
		found[i] = sketch.Compare(rest, own)
		distances[i] = math.Sqrt(max(found[i].JS, 0))
	}
	middle := median(distances)
	off := make([]float64, len(distances))
	for i, d := range distances {
		off[i] = math.Abs(d - middle)
	}
	limit := middle + farAway*max(1.4826*median(off), spread) // the factor makes it a standard deviation if normal
	for i, d := range distances {
		if d > limit && found[i].Significant(effect) {
			out = append(out, fleet.DriftOutlier{Device: peers[i].group, Path: path, Measure: names[m], Live: found[i].Live, Distance: d, Usual: middle})
		}
	}
	return out
}

func count(list []uint64) (n uint64) {
	for _, c := range list {
		n += c
	}
	return n
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
