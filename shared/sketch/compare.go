package sketch

import "math"

// minGroup is the count that a group of bins must reach in one of the two
// lists: with fewer, chance alone moves the measures below.
const minGroup = 5

// Difference says how far live counts are from reference counts.
type Difference struct {
	PSI       float64 // population stability index, 0: equal shares
	Threshold float64 // what PSI exceeds by chance once in a hundred at these sample sizes
	JS        float64 // Jensen-Shannon divergence in bits, 0..1
	Reference uint64  // sample sizes
	Live      uint64
	Groups    int // bins that were compared, after small neighbours were put together
}

// Significant says whether the difference is both more than chance and at least
// the effect size that matters: with many samples a harmless difference is
// always more than chance, with few a great PSI is no news.
func (d Difference) Significant(effect float64) bool {
	return d.PSI > d.Threshold && d.PSI >= effect
}

// Compare measures live against reference, two lists of counts over the same
// bins in the same order. Neighbouring bins are put together until one of the
// lists has five values in the group. Lists of different length or without a
// count give a zero Difference with the sample sizes filled in.
func Compare(reference, live []uint64) Difference {
	d := Difference{Reference: total(reference), Live: total(live)}
	if len(reference) != len(live) || d.Reference == 0 || d.Live == 0 {
		return d
	}
	ref, now := group(reference, live)
	d.Groups = len(ref)
	// Half a count in every group (Jeffreys) keeps empty ones finite.
	half := 0.5 * float64(len(ref))
	for i := range ref {
		p := (float64(ref[i]) + 0.5) / (float64(d.Reference) + half)
		q := (float64(now[i]) + 0.5) / (float64(d.Live) + half)
		d.PSI += (q - p) * math.Log(q/p)
		m := (p + q) / 2
		d.JS += (p*math.Log2(p/m) + q*math.Log2(q/m)) / 2
	}
	d.Threshold = PSIThreshold(d.Reference, d.Live, len(ref))
	return d
}

// PSIThreshold is the 99th percentile of the PSI of two samples of n and m
// values from one distribution over so many bins: (1/n + 1/m) chi2(bins-1, 0.99)
// (Yurdakul & Naranjo, "Statistical properties of the population stability
// index", 2020). The usual fixed 0.1 is passed by chance alone in most samples of
// a hundred.
func PSIThreshold(n, m uint64, bins int) float64 {
	if n == 0 || m == 0 || bins < 2 {
		return 0
	}
	return (1/float64(n) + 1/float64(m)) * chi2(float64(bins-1))
}

// chi2 is the 99th percentile of the chi-squared distribution by Wilson and
// Hilferty (1931): within 2 % from one degree of freedom on.
func chi2(df float64) float64 {
	const z99 = 2.3263478740408408
	a := 2 / (9 * df)
	c := 1 - a + z99*math.Sqrt(a)
	return df * c * c * c
}

func group(a, b []uint64) (ga, gb []uint64) {
	var x, y uint64
	for i := range a {
		x, y = sum(x, a[i]), sum(y, b[i])
		if max(x, y) >= minGroup {
			ga, gb = append(ga, x), append(gb, y)
			x, y = 0, 0
		}
	}
	switch last := len(ga) - 1; {
	case x == 0 && y == 0:
	case last < 0:
		ga, gb = append(ga, x), append(gb, y)
	default:
		ga[last], gb[last] = sum(ga[last], x), sum(gb[last], y)
	}
	return ga, gb
}

func total(list []uint64) uint64 {
	n := uint64(0)
	for _, c := range list {
		n = sum(n, c)
	}
	return n
}
