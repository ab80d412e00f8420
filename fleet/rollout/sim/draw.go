package sim

import "math"

// normal draws from a normal distribution.
func (r rng) normal(mean, sd float64) float64 { return mean + sd*r.NormFloat64() }

// gamma draws from a gamma distribution of mean one (Marsaglia & Tsang 2000; shape at
// least one).
func (r rng) gamma(shape float64) float64 {
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v *= v * v
		if u := r.Float64(); math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v / shape
		}
	}
}

// poisson draws a count; large means are drawn as normal.
func (r rng) poisson(mean float64) float64 {
	switch {
	case mean <= 0:
		return 0
	case mean > 30:
		return math.Max(0, math.Round(r.normal(mean, math.Sqrt(mean))))
	}
	limit, p, n := math.Exp(-mean), r.Float64(), 0.0
	for p > limit {
		p *= r.Float64()
		n++
	}
	return n
}

// binomial draws how many of n; large counts are drawn as normal.
func (r rng) binomial(n, p float64) float64 {
	p = min(max(p, 0), 1)
	v := n * p * (1 - p)
	switch {
	case n <= 0 || p == 0:
		return 0
	case v > 12:
		return min(max(math.Round(r.normal(n*p, math.Sqrt(v))), 0), n)
	case p > 0.5:
		return n - r.binomial(n, 1-p)
	case n > 60: // p is small here
		return min(r.poisson(n*p), n)
	}
	k := 0.0
	for range int(n) {
		if r.Float64() < p {
			k++
		}
	}
	return k
}

// wander is an Ornstein-Uhlenbeck process in steps: it forgets in about Memory steps
// and has the standard deviation SD in the long run.
type wander struct{ x, keep, kick float64 }

func (r rng) wander(memory, sd float64) wander {
	keep := math.Exp(-1 / memory)
	return wander{r.normal(0, sd), keep, sd * math.Sqrt(1-keep*keep)}
}

func (w *wander) step(r rng) float64 {
	w.x = w.keep*w.x + w.kick*r.NormFloat64()
	return w.x
}
