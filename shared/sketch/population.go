package sketch

import (
	"math"
	"slices"
)

// minExpected is the count that chance alone must let expect in every group of a
// chi-squared test: below, the distribution is not yet the stated one (Cochran
// 1954).
const minExpected = 5

// Homogeneity is Pearson's chi-squared test that two lists of counts over the
// same bins come from one distribution. It returns the probability of a difference
// at least as great if they do; 1 when there are too few counts to say anything,
// or the lists do not fit. Neighbouring bins are put together by what both lists
// hold together, which does not depend on how they differ, until five are expected
// in either list.
func Homogeneity(reference, live []uint64) (p float64) {
	n, m := float64(total(reference)), float64(total(live))
	if len(reference) != len(live) || n == 0 || m == 0 {
		return 1
	}
	least := minExpected * (n + m) / min(n, m) // of both together
	var ref, now []uint64
	var a, b uint64
	for i := range reference {
		a, b = sum(a, reference[i]), sum(b, live[i])
		if float64(a)+float64(b) >= least {
			ref, now = append(ref, a), append(now, b)
			a, b = 0, 0
		}
	}
	if last := len(ref) - 1; last >= 0 {
		ref[last], now[last] = sum(ref[last], a), sum(now[last], b)
	}
	if len(ref) < 2 {
		return 1
	}
	x := 0.0
	for i := range ref {
		both := float64(ref[i]) + float64(now[i])
		d := float64(now[i]) - both*m/(n+m)
		x += d * d * (n + m) * (n + m) / (both * n * m)
	}
	return chi2Tail(x, float64(len(ref)-1))
}

// Kolmogorov is the two-sample test of Kolmogorov and Smirnov on bins in order of
// value: better than Homogeneity at a move of everything, worse at a change of
// shape. Values that share a bin make it careful: it alarms more seldom than its
// level says. It returns 1 when the lists do not fit or are empty.
func Kolmogorov(reference, live []uint64) (p float64) {
	n, m := float64(total(reference)), float64(total(live))
	if len(reference) != len(live) || n == 0 || m == 0 {
		return 1
	}
	d, a, b := 0.0, 0.0, 0.0
	for i := range reference {
		a, b = a+float64(reference[i])/n, b+float64(live[i])/m
		d = max(d, math.Abs(a-b))
	}
	root := math.Sqrt(n * m / (n + m))
	l := (root + 0.12 + 0.11/root) * d // Stephens 1970
	if l < 0.2 {
		return 1
	}
	sign := 2.0
	for j := 1.0; j <= 100; j++ {
		term := sign * math.Exp(-2*j*j*l*l)
		p += term
		if math.Abs(term) < 1e-12 {
			break
		}
		sign = -sign
	}
	return min(max(p, 0), 1)
}

// maxFisher bounds the sum of Fisher's exact test.
const maxFisher = 1 << 16

// Proportions tests that a of n and b of m are one share: Fisher's exact test
// where fewer than five are expected somewhere, else chi-squared. It returns the
// two-sided probability; 1 when n or m is zero or a or b greater than they are.
func Proportions(a, n, b, m uint64) (p float64) {
	if n == 0 || m == 0 || a > n || b > m {
		return 1
	}
	x, y := float64(n), float64(m)
	hits := float64(a) + float64(b)
	if hits == 0 || hits == x+y {
		return 1
	}
	least := min(hits, x+y-hits) * min(x, y) / (x + y)
	if least < minExpected && min(hits, x) <= maxFisher {
		return fisher(float64(a), x, hits, x+y)
	}
	pooled := hits / (x + y)
	d := float64(a)/x - float64(b)/y
	return chi2Tail(d*d/(pooled*(1-pooled)*(1/x+1/y)), 1)
}

// fisher sums the hypergeometric probabilities of everything that is no likelier
// than k hits among n, of all hits among all.
func fisher(k, n, hits, all float64) float64 {
	log := func(k float64) float64 {
		return choose(hits, k) + choose(all-hits, n-k) - choose(all, n)
	}
	seen := log(k)
	p := 0.0
	for i := max(0, n+hits-all); i <= min(n, hits); i++ {
		if l := log(i); l <= seen+1e-7 {
			p += math.Exp(l)
		}
	}
	return min(p, 1)
}

// choose is the logarithm of n over k.
func choose(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}

// chi2Tail is the probability that a chi-squared variable exceeds x: the upper
// incomplete gamma function Q(df/2, x/2), as series or continued fraction
// (Numerical Recipes, section 6.2).
func chi2Tail(x, df float64) float64 {
	if !(x > 0) {
		return 1
	}
	a, z := df/2, x/2
	lg, _ := math.Lgamma(a)
	front := math.Exp(a*math.Log(z) - z - lg)
	const rounds, tiny = 10_000, 1e-300
	if z < a+1 {
		term := 1 / a
		s := term
		for i := 1.0; i < rounds && term > s*1e-15; i++ {
			term *= z / (a + i)
			s += term
		}
		return min(max(1-front*s, 0), 1)
	}
	b := z + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for i := 1.0; i < rounds; i++ {
		an := -i * (i - a)
		b += 2
		d = notZero(an*d+b, tiny)
		c = notZero(b+an/c, tiny)
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < 1e-15 {
			break
		}
	}
	return min(max(front*h, 0), 1)
}

func notZero(v, tiny float64) float64 {
	if math.Abs(v) < tiny {
		return tiny
	}
	return v
}

// SamplesFor is how many live values make a PSI of effect more than chance against
// a reference of n over so many bins; ok is false when no number does, because the
// reference is too small: then it is what the reference would need with as many.
func SamplesFor(effect float64, n uint64, bins int) (needed uint64, ok bool) {
	if bins < 2 || !(effect > 0) {
		return 0, false
	}
	share := effect / chi2(float64(bins-1))
	if rest := share - 1/float64(n); n > 0 && rest > share/1000 {
		return uint64(math.Ceil(1 / rest)), true
	}
	return uint64(math.Ceil(2 / share)), false
}

// Pad returns both lists at the length of the longer one.
func Pad(a, b []uint64) ([]uint64, []uint64) {
	n := max(len(a), len(b))
	return slices.Concat(a, make([]uint64, n-len(a))), slices.Concat(b, make([]uint64, n-len(b)))
}
