package judge

import (
	"fmt"
	"math"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// compare returns what does not hold of an output's real values, empty when all
// does. span is the range of the golden values over all cases.
func compare(tol bundle.Tolerance, want, have []float64, span float64) string {
	if i := notFinite(have); i >= 0 {
		return fmt.Sprintf("element %d is %v, a number is wanted", i, have[i])
	}
	if len(want) != len(have) {
		return fmt.Sprintf("%d values, %d expected", len(have), len(want))
	}
	if tol.Top > 0 {
		if why := among(tol.Top, want, have); why != "" {
			return why
		}
	}
	if tol.Cosine > 0 {
		if c := cosine(want, have); c < tol.Cosine {
			return fmt.Sprintf("the cosine to the expected values is %.4f, at least %v is wanted", c, tol.Cosine)
		}
	}
	if tol.IoU > 0 {
		if why := overlap(tol.IoU, want, have); why != "" {
			return why
		}
	}
	bound := math.Inf(1)
	if tol.Relative > 0 {
		bound = tol.Relative * span
	}
	if tol.Absolute > 0 {
		bound = min(bound, tol.Absolute)
	}
	for i := range want {
		if d := math.Abs(want[i] - have[i]); d > bound {
			return fmt.Sprintf("element %d is %.4g, expected %.4g within %.3g", i, have[i], want[i], bound)
		}
	}
	return ""
}

// notFinite is the first index of what is no number, -1 without any.
func notFinite(v []float64) int {
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return i
		}
	}
	return -1
}

// among wants the highest of the expected values among the top highest.
func among(top int, want, have []float64) string {
	best, _ := highest(want)
	if best < 0 {
		return ""
	}
	above := 0
	for i, x := range have {
		if i != best && x > have[best] {
			above++
		}
	}
	if above < top {
		return ""
	}
	got, value := highest(have)
	return fmt.Sprintf("highest at element %d with %.4g, expected at %d, which has %.4g and is number %d", got, value, best, have[best], above+1)
}

// cosine of the angle between two vectors; that of a zero to another zero is 1, to
// anything else 0.
func cosine(a, b []float64) float64 {
	var ab, aa, bb float64
	for i := range a {
		ab += a[i] * b[i]
		aa += a[i] * a[i]
		bb += b[i] * b[i]
	}
	switch {
	case aa == 0 && bb == 0:
		return 1
	case aa == 0 || bb == 0:
		return 0
	}
	return ab / math.Sqrt(aa) / math.Sqrt(bb)
}

// overlap wants for each expected box one of the output that overlaps it by least,
// each for one only: the one at its place if that does, else the first that does.
// What has no area is no box; boxes that nobody expects are left to other outputs.
func overlap(least float64, want, have []float64) string {
	n := len(want) / 4
	taken := make([]bool, n)
	for i := range n {
		w := box(want[4*i:])
		if w.area() <= 0 {
			continue
		}
		at, best := -1, 0.0
		for k := range n {
			k = (i + k) % n
			if taken[k] {
				continue
			}
			if v := w.iou(box(have[4*k:])); v > best {
				best = v
				if v >= least {
					at = k
					break
				}
			}
		}
		if at < 0 {
			return fmt.Sprintf("box %d %.4g overlaps none by %v, at most by %.3f", i, want[4*i:4*i+4], least, best)
		}
		taken[at] = true
	}
	return ""
}

// box is two corners: x y x y or y x y x, which overlap alike.
type box []float64

func (b box) area() float64 { return max(b[2]-b[0], 0) * max(b[3]-b[1], 0) }

// iou is the intersection over the union of two boxes.
func (b box) iou(c box) float64 {
	both := max(min(b[2], c[2])-max(b[0], c[0]), 0) * max(min(b[3], c[3])-max(b[1], c[1]), 0)
	if both == 0 {
		return 0
	}
	return both / (b.area() + c.area() - both)
}

// corners turns boxes into two corners each, in place. Unknown layouts are taken
// for corners.
func corners(layout string, v []float64) []float64 {
	for i := 0; i+4 <= len(v); i += 4 {
		switch layout {
		case "xywh":
			v[i+2], v[i+3] = v[i]+v[i+2], v[i+1]+v[i+3]
		case "cxcywh":
			w, h := v[i+2]/2, v[i+3]/2
			v[i], v[i+1], v[i+2], v[i+3] = v[i]-w, v[i+1]-h, v[i]+w, v[i+1]+h
		}
	}
	return v
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
