package sketch

import "math"

// An alarm's sums fall back only so far, and rise only so far above the limit, so
// that it ends in bounded time once the values are as before.
const (
	overLimit = 1.5 // times the limit: the highest that a sum rises
	endsBelow = 0.5 // times the limit: where an alarm ends
)

// Cusum adds up evidence and never falls below zero (Page 1954): it alarms when
// the sum passes the limit, and the alarm ends when the sum has fallen to half of
// it. The zero value never alarms.
type Cusum struct {
	Limit float64
	Sum   float64
	On    bool
}

// Add takes in one piece of evidence, positive or negative, and says whether the
// alarm is on.
func (c *Cusum) Add(evidence float64) bool {
	if c.Limit <= 0 || math.IsNaN(evidence) {
		return false
	}
	c.Sum = min(max(c.Sum+evidence, 0), overLimit*c.Limit)
	switch {
	case c.Sum > c.Limit:
		c.On = true
	case c.Sum < endsBelow*c.Limit:
		c.On = false
	}
	return c.On
}

// PageHinkley finds that the mean of a stream has moved up or down from where it
// was (Page 1954, Hinkley 1971), whenever that happens. A move by a standard
// deviation is found after some 35 values, one by half of it or less is let pass.
type PageHinkley struct {
	usual    Histogram
	dev      []float64 // of each count of usual, in standard deviations
	Up, Down Cusum
}

const (
	slack  = 0.5 // standard deviations that are no news
	maxDev = 3.0 // standard deviations that one value may count: no single one alarms
)

// NewPageHinkley watches for a move away from what is usual. If the values are
// independent and distributed like that, one false alarm comes in at least every
// values, whatever the shape: with E exp(t(x-slack)) = 1, exp(t*sum) is bounded by
// a martingale, and a limit of ln(2 every)/t gives each direction half of them
// (Lorden 1971). Values count as the middle of their bin, as they did when usual
// was made. An empty usual never alarms.
func NewPageHinkley(usual Histogram, every float64) PageHinkley {
	if !usual.Valid() || usual.Total() == 0 {
		return PageHinkley{}
	}
	p := PageHinkley{usual: usual, dev: make([]float64, len(usual.Bins)+2)}
	width := (usual.Hi - usual.Lo) / float64(len(usual.Bins))
	mean, sd := usual.Mean(), max(usual.SD(), width/2)
	for i := range p.dev {
		middle := usual.Lo + (float64(i)-0.5)*width
		middle = min(max(middle, usual.Lo), usual.Hi) // under and over count as the ends
		p.dev[i] = min(max((middle-mean)/sd, -maxDev), maxDev)
	}
	p.Up.Limit = math.Log(2*every) / p.rate(1)
	p.Down.Limit = math.Log(2*every) / p.rate(-1)
	return p
}

// rate is the t at which E exp(t(x-slack)) is one, x the deviation in a direction;
// at most 1, what it is for normal values: few samples may lack the rare ones.
func (p *PageHinkley) rate(direction float64) float64 {
	counts, n := p.usual.Counts(), float64(p.usual.Total())
	lo, hi := 0.0, 1.0
	for range 50 {
		t, mean := (lo+hi)/2, 0.0
		for i, c := range counts {
			mean += float64(c) / n * math.Exp(t*(direction*p.dev[i]-slack))
		}
		if mean < 1 {
			lo = t
		} else {
			hi = t
		}
	}
	return max(lo, 0.05)
}

// Add takes in one value and says whether an alarm is on.
func (p *PageHinkley) Add(v float64) bool {
	if math.IsNaN(v) || p.dev == nil {
		return false
	}
	z := p.dev[p.usual.index(v)]
	up, down := p.Up.Add(z-slack), p.Down.Add(-z-slack)
	return up || down
}

// Rate finds that events come more often than they may: with a share of at most
// Usual of the values, one false alarm comes in at least so many of them, because
// the sum is the logarithm of a likelihood ratio (Lorden 1971).
type Rate struct {
	hit, miss float64
	Cusum
}

// NewRate watches for a share of at least bad where up to usual is fine.
func NewRate(usual, bad, every float64) Rate {
	return Rate{hit: math.Log(bad / usual), miss: math.Log((1 - bad) / (1 - usual)), Cusum: Cusum{Limit: math.Log(every)}}
}

// Add takes in whether the event came and says whether the alarm is on.
func (r *Rate) Add(event bool) bool {
	if event {
		return r.Cusum.Add(r.hit)
	}
	return r.Cusum.Add(r.miss)
}
