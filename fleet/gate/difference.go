package gate

import (
	"math"
	"slices"
)

// Difference is how much treated devices changed beyond what others did.
type Difference struct {
	Margin   float64     `json:"margin"`          // change that is tolerated
	Harm     float64     `json:"harm"`            // change that must be found
	TwoSided bool        `json:"two_sided"`       // either direction is harm
	Alpha    float64     `json:"alpha"`           // false halts of this gate in the whole rollout
	Beta     float64     `json:"beta"`            //
	MinUnits int         `json:"min_units"`       // to pass, and to fail
	Expect   bool        `json:"expect"`          // margin and harm are a stated bound in place of the gate's own
	Control  string      `json:"control"`         // ControlConcurrent or ControlPast
	Looks    int         `json:"looks"`           // planned; those that are not there yet count as one
	Measures []Dimension `json:"measures"`        // one, or one for each class
	Strata   []string    `json:"strata"`          // hardware classes
	LeftOut  LeftOut     `json:"left_out"`        //
	Shadow   bool        `json:"shadow,omitzero"` // both releases answered the same inputs
}

// Kinds of control.
const (
	ControlConcurrent = "concurrent"
	ControlPast       = "own past"
)

// LeftOut counts what could not be a unit, and why.
type LeftOut struct {
	Off      int `json:"off,omitempty"`      // fewer than 60 % of the windows of its expected hours
	NoPast   int `json:"no_past,omitempty"`  // too short a past, or another change in it
	Few      int `json:"few,omitempty"`      // too few requests
	NaN      int `json:"nan,omitempty"`      // a number that is not finite
	Short    int `json:"short,omitempty"`    // devices of a last cell that never filled
	Unscaled int `json:"unscaled,omitempty"` // of a stratum too small to learn its noise
}

// Counts are those that are not zero, by name.
func (o LeftOut) Counts() map[string]int {
	out := map[string]int{}
	for name, n := range map[string]int{"off": o.Off, "no past": o.NoPast, "few requests": o.Few, "not finite": o.NaN, "short cell": o.Short, "noise not known": o.Unscaled} {
		if n > 0 {
			out[name] = n
		}
	}
	return out
}

// Clearest is the estimate of one stratum that points to harm the most, of each
// measure's look that knows most, with the measure's name.
func (x *Difference) Clearest(stratum int) (worst Estimate, of string) {
	for _, m := range x.Measures {
		var best Estimate
		for _, l := range m.Looks {
			if e := merged(l.Strata, l.Alone)[stratum]; !e.empty() && (best.empty() || e.V <= best.V) {
				best = e
			}
		}
		if !best.empty() && (worst.empty() || x.toHarm(best.D) > x.toHarm(worst.D)) {
			worst, of = best, m.Name
		}
	}
	return worst, of
}

// Dimension is one measure of a gate with its looks.
type Dimension struct {
	Name  string `json:"name,omitempty"` // of the class, when the gate has many measures
	Looks []Look `json:"looks"`
}

// Look is what was seen when devices had been on for so many steps.
type Look struct {
	Steps  int        `json:"steps"`
	Strata []Estimate `json:"strata"`          // in the order of Difference.Strata
	Alone  []Estimate `json:"alone,omitempty"` // of devices at times without any control
	Scales []Scale    `json:"scales"`          // in the order of Difference.Strata
}

// Estimate is the harm seen in one stratum.
type Estimate struct {
	D        float64 `json:"d"`        // change beyond the shared one
	V        float64 `json:"v"`        // its variance; 0: nothing seen
	Treated  int     `json:"treated"`  // units: devices or cells
	Devices  int     `json:"devices"`  // behind them
	Control  int     `json:"control"`  // units
	Held     int     `json:"held"`     // control devices held back to the end
	Borrowed int     `json:"borrowed"` // control devices that wait for a later stage
	Requests float64 `json:"requests"`
}

func (e Estimate) empty() bool { return e.Treated == 0 || e.V == 0 }

// Pool merges estimates of independent devices by inverse variance.
func Pool(list []Estimate) Estimate {
	var out Estimate
	var w, d float64
	for _, e := range list {
		if e.empty() {
			continue
		}
		w += 1 / e.V
		d += e.D / e.V
		out.Treated += e.Treated
		out.Devices += e.Devices
		out.Control += e.Control
		out.Held += e.Held
		out.Borrowed += e.Borrowed
		out.Requests += e.Requests
	}
	if w > 0 {
		out.D, out.V = d/w, 1/w
	}
	return out
}

// bets are the multiples of Harm-Margin whose likelihood ratios are averaged.
var bets = [...]float64{0.5, 1, 2, 4}

// harm is the e-value against "the change is at most Margin".
func (x *Difference) harm(e Estimate) float64 {
	if e.empty() {
		return 1
	}
	side := func(d float64) float64 {
		sum := 0.0
		for _, k := range bets {
			h := k * (x.Harm - x.Margin)
			sum += exp(h*(d-x.Margin)/e.V - h*h/(2*e.V))
		}
		return sum / float64(len(bets))
	}
	if x.TwoSided {
		return (side(e.D) + side(-e.D)) / 2
	}
	return side(e.D)
}

// safe is the e-value against "the change is at least Harm", for no change at all.
func (x *Difference) safe(e Estimate) float64 {
	if e.empty() {
		return 1
	}
	side := func(d float64) float64 { return exp(x.Harm*(x.Harm-d)/e.V - x.Harm*x.Harm/(2*e.V)) }
	if x.TwoSided {
		return min(side(e.D), side(-e.D))
	}
	return side(e.D)
}

// look is the e-value of one look: half the weight on the pool of the strata, half
// on the single strata, so that a fault of one class is not diluted.
func (x *Difference) look(strata []Estimate) float64 {
	e := x.harm(Pool(strata))
	if len(strata) < 2 {
		return e
	}
	single := 0.0
	for _, s := range strata {
		single += x.harm(s) / float64(len(strata))
	}
	return (e + single) / 2
}

// merged pools two lists of the same strata.
func merged(a, b []Estimate) []Estimate {
	out := slices.Clone(a)
	for i := range out {
		if i < len(b) {
			out[i] = Pool([]Estimate{a[i], b[i]})
		}
	}
	return out
}

// clearest is the pooled look that knows most.
func (d *Dimension) clearest() Estimate {
	var best Estimate
	for _, l := range d.Looks {
		if p := Pool(slices.Concat(l.Strata, l.Alone)); !p.empty() && (best.empty() || p.V <= best.V) {
			best = p
		}
	}
	return best
}

func (x *Difference) judge() Result {
	r := Result{Verdict: NotYet, Safe: math.MaxFloat64, Decidable: true}
	looks := float64(max(x.Looks, 1))
	alone, seen := 0.0, false
	for i := range x.Measures {
		m := &x.Measures[i]
		e, a := looks-float64(len(m.Looks)), looks-float64(len(m.Looks))
		for _, l := range m.Looks {
			e += x.look(l.Strata)
			a += x.look(merged(l.Strata, l.Alone))
		}
		r.Harm += e / looks / float64(len(x.Measures))
		alone += a / looks / float64(len(x.Measures))
		best := m.clearest()
		r.Safe = min(r.Safe, x.safe(best))
		still := best
		still.D = 0
		r.Decidable = r.Decidable && x.safe(still) >= 1/x.Beta
		if !best.empty() && (!seen || x.toHarm(best.D) > x.toHarm(r.Change)) {
			r.Change, r.Of, r.Error, r.Units, seen = best.D, m.Name, math.Sqrt(best.V), best.Treated, true
			r.Sees = x.Margin + math.Sqrt(2*best.V*math.Log(looks*float64(len(x.Measures)*len(bets))/x.Alpha))
		}
	}
	if !seen || r.Units < x.MinUnits {
		return Result{Verdict: NotYet, Harm: min(r.Harm, Suspicion-1), Safe: 1, Change: r.Change, Of: r.Of, Error: r.Error, Units: r.Units, Why: TooFew}
	}
	switch {
	case r.Harm >= 1/x.Alpha:
		r.Verdict = Fail
	case alone >= Suspicion && alone > r.Harm:
		r.Harm, r.Why = alone, NoControl
	case r.Safe >= 1/x.Beta:
		r.Verdict = Pass
	}
	return r
}

// Reasons why evidence gives no verdict.
const (
	TooFew    = "too few"
	NoControl = "no control" // may hold, never halt
)

// toHarm is a change in the direction of harm.
func (x *Difference) toHarm(d float64) float64 {
	if x.TwoSided {
		return math.Abs(d)
	}
	return d
}

// clip bounds what one unit can say, in standard deviations beyond the margin: a
// single device never brings more than e^(clip^2/2).
const clip = 4.0

// unit is a device, or a cell of devices with few requests, over one look.
type unit struct {
	n       float64 // requests behind it
	c       float64 // change against its own past
	devices int
}

// estimate compares treated with control units of one stratum over the same time.
// The mean of the control is weighted by what it knows: without any the shared
// change is the usual one, with the variance that it has from hour to hour.
func estimate(treated, control []unit, s Scale, margin float64) Estimate {
	out := Estimate{Treated: len(treated), Control: len(control)}
	if len(treated) == 0 || !s.Known() {
		return Estimate{}
	}
	tau2 := max(s.Tau2, 0.02*max(s.Sigma2, s.Floor))
	shared, v := s.Mean, tau2
	if len(control) > 0 {
		m, vm := s.mean(control, median(control), 0)
		// An hour unlike those of the placebo shows in the control itself.
		tau2 = max(tau2, (m-s.Mean)*(m-s.Mean)-vm)
		g := tau2 / (tau2 + vm)
		shared, v = s.Mean+g*(m-s.Mean), g*vm
	}
	m, vm := s.mean(treated, shared, margin)
	out.D, out.V = m-shared, vm+v
	if len(control) > 0 {
		out.V *= s.unrest(control)
	}
	for _, u := range treated {
		out.Requests += u.n
		out.Devices += u.devices
	}
	return out
}

// mean of units by inverse variance, each clipped about a centre with some slack.
func (s Scale) mean(us []unit, about, slack float64) (m, v float64) {
	var sw, sum float64
	for _, u := range us {
		vu := s.Var(u.n)
		sw += 1 / vu
		sum += (about + clamp(u.c-about, slack+clip*math.Sqrt(vu))) / vu
	}
	return sum / sw, 1 / sw
}

// unrest is how much farther apart control devices are just now than in the placebo
// hours: what happens to all does not happen to all alike. It is at least one, and
// drawn towards one where there are few.
func (s Scale) unrest(control []unit) float64 {
	about, sum := median(control), 0.0
	for _, u := range control {
		y := clamp((u.c-about)/math.Sqrt(s.Var(u.n)), clip)
		sum += y * y
	}
	return max(1, (calm+sum)/(calm+float64(len(control)-1)))
}

// calm is how many devices as in the placebo hours are counted along with those of
// now.
const calm = 2

func median(us []unit) float64 {
	cs := make([]float64, len(us))
	for i, u := range us {
		cs[i] = u.c
	}
	slices.Sort(cs)
	if n := len(cs); n%2 == 0 {
		return (cs[n/2-1] + cs[n/2]) / 2
	}
	return cs[len(cs)/2]
}
