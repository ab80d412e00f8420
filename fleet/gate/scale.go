package gate

import "math"

// Scale says how much a unit changes when nothing is released. It is learnt from
// placebo hours: the statistic of the gate at hours in which nothing was changed.
type Scale struct {
	Sigma2    float64 `json:"sigma2"`    // variance of a device's own wandering
	Phi       float64 `json:"phi"`       // variance of sampling, for one request
	Tau2      float64 `json:"tau2"`      // variance of what all devices of the stratum share
	K         float64 `json:"k"`         // how much wider than that, at least 1; 0: not known
	Floor     float64 `json:"floor"`     // least variance of a unit
	Mean      float64 `json:"mean"`      // of the statistic when nothing is released
	Yesterday float64 `json:"yesterday"` // share of yesterday's deviation at the same minutes that comes again
	Before    float64 `json:"before"`    // share of the last hour's deviation that stays
	Hours     int     `json:"hours"`     // of placebo
	Units     int     `json:"units"`     // in them
}

// Known tells whether there was enough to learn from.
func (s Scale) Known() bool { return s.K > 0 }

// Var is the variance of a unit with n requests.
func (s Scale) Var(n float64) float64 { return max(s.K*s.K*(s.Sigma2+s.Phi/n), s.Floor) }

// floor is the least variance for a gate: devices as quiet as a stone must not make a
// change that is clipped at a few of their standard deviations look smaller than harm.
func floor(spec Spec) float64 {
	sd := (spec.Harm - spec.Margin) / clip
	return sd * sd
}

const (
	minPlacebo    = 12 // units below which a stratum has no behaviour gates
	minCovariates = 60 // units below which the past is the plain mean of the day
	maxK          = 4.0
)

// placebo is one unit of one hour in which nothing was released.
type placebo struct {
	unit
	yesterday, before float64 // deviations from its own day
}

// learn fits a scale to placebo hours.
func learn(hours [][]placebo) Scale {
	s := Scale{}
	for _, h := range hours {
		if len(h) > 0 {
			s.Hours++
		}
		s.Units += len(h)
	}
	if s.Units < minPlacebo {
		return s
	}
	s.Yesterday, s.Before = covariates(hours, s.Units)
	plain := make([][]unit, len(hours))
	for i, h := range hours {
		plain[i] = s.adjusted(h)
	}
	s.fit(plain)
	return s
}

// weight of a unit while its variance is not known yet.
func (u unit) weight() float64 { return 1 / (1 + 50/u.n) }

// covariates finds by weighted least squares how much of yesterday's and of the last
// hour's deviation is found again, within the hours so that what all share is left
// out. Both lie in 0..1.
func covariates(hours [][]placebo, units int) (yesterday, before float64) {
	if units < minCovariates {
		return 0, 0
	}
	var yy, bb, yb, yc, bc float64
	for _, h := range hours {
		if len(h) < 2 {
			continue
		}
		var w, my, mb, mc float64
		for _, p := range h {
			q := p.weight()
			w, my, mb, mc = w+q, my+q*p.yesterday, mb+q*p.before, mc+q*p.c
		}
		my, mb, mc = my/w, mb/w, mc/w
		for _, p := range h {
			q, y, b, c := p.weight(), p.yesterday-my, p.before-mb, p.c-mc
			yy, bb, yb, yc, bc = yy+q*y*y, bb+q*b*b, yb+q*y*b, yc+q*y*c, bc+q*b*c
		}
	}
	ridge := 1 + 4/float64(units) // a little towards none
	yy, bb = yy*ridge, bb*ridge
	alone := func(xx, xc float64) float64 {
		if xx <= 0 {
			return 0
		}
		return max(0, min(1, xc/xx))
	}
	det := yy*bb - yb*yb
	if det <= 1e-9*yy*bb {
		return alone(yy, yc), 0
	}
	yesterday, before = (yc*bb-bc*yb)/det, (bc*yy-yc*yb)/det
	switch {
	case yesterday < 0:
		return 0, alone(bb, bc)
	case before < 0:
		return alone(yy, yc), 0
	}
	return min(1, yesterday), min(1, before)
}

// fit learns the variances from the changes of the hours.
func (s *Scale) fit(hours [][]unit) {
	var res []unit // c: residual about the hour's mean
	var means, sampling []float64
	for _, h := range hours {
		if len(h) == 0 {
			continue
		}
		var w, sum float64
		for _, u := range h {
			w += u.weight()
			sum += u.weight() * u.c
		}
		m := sum / w
		means, sampling = append(means, m), append(sampling, 1/float64(len(h)))
		if len(h) == 1 { // one device: its own noise cannot be told from the shared one
			res = append(res, h[0])
			continue
		}
		adjust := math.Sqrt(float64(len(h)) / float64(len(h)-1))
		for _, u := range h {
			res = append(res, unit{n: u.n, c: (u.c - m) * adjust})
		}
	}
	s.Sigma2, s.Phi = variances(res)
	s.K = s.widen(res)
	for _, m := range means {
		s.Mean += m / float64(len(means))
	}
	for i, m := range means {
		// Neighbouring hours repeat each other: twice.
		s.Tau2 += 2 * max(0, (m-s.Mean)*(m-s.Mean)-sampling[i]*s.Sigma2) / float64(len(means))
	}
}

// widen raises K until the placebo itself does not bet its way to a halt: the mean of
// exp(ty - t^2/2) over its standardised residuals y is at most one for bets of one,
// two and three standard deviations in both directions.
func (s *Scale) widen(res []unit) float64 {
	k := 1 + 3/math.Sqrt(float64(len(res)))
	for ; k < maxK; k *= 1.06 {
		worst := 0.0
		for _, t := range []float64{1, 2, 3} {
			var up, down float64
			for _, u := range res {
				y := clamp(u.c/(k*math.Sqrt(s.Sigma2+s.Phi/u.n)), clip)
				up += math.Exp(t*y-t*t/2) / float64(len(res))
				down += math.Exp(-t*y-t*t/2) / float64(len(res))
			}
			worst = max(worst, up, down)
		}
		if worst <= 1 {
			break
		}
	}
	return min(k, maxK)
}

// variances fits c^2 = a + b/n by weighted least squares with a and b not negative;
// the weights are what the former round expects, so that noisy units do not rule.
func variances(res []unit) (a, b float64) {
	w := make([]float64, len(res))
	for i := range w {
		w[i] = 1
	}
	for range 3 {
		var sw, sx, sy, sxx, sxy float64
		for i, u := range res {
			x, y := 1/u.n, u.c*u.c
			sw, sx, sy, sxx, sxy = sw+w[i], sx+w[i]*x, sy+w[i]*y, sxx+w[i]*x*x, sxy+w[i]*x*y
		}
		a, b = sy/sw, 0
		if det := sw*sxx - sx*sx; det > 1e-12*sw*sxx {
			b = (sw*sxy - sx*sy) / det
			a = (sy - b*sx) / sw
			switch {
			case b < 0:
				a, b = sy/sw, 0
			case a < 0:
				a, b = 0, sxy/sxx
			}
		}
		for i, u := range res {
			v := a + b/u.n + 1e-12
			w[i] = 1 / (v * v)
		}
	}
	return max(a, 1e-12), b
}
