package gate

import "math"

// Outcome is yes or no of units: devices that finished, or hours of devices.
type Outcome struct {
	Units     int       `json:"units"`
	Failed    int       `json:"failed"`
	Tolerated float64   `json:"tolerated"` // failure probability that is no harm
	Worse     []float64 `json:"worse"`     // failure probabilities that are, the least first, with equal weight
	Alpha     float64   `json:"alpha"`
	Beta      float64   `json:"beta"`
}

// judge computes the mean over the alternatives p1 of
// (p1/p0)^f ((1-p1)/(1-p0))^(n-f) (Wald 1945; the mixture: Robbins 1970). It is
// valid while each unit's failure probability given the past is at most p0; units
// need not be independent beyond that.
func (o *Outcome) judge() Result {
	f, ok := float64(o.Failed), float64(o.Units-o.Failed)
	ratio := func(p1, p0 float64) float64 {
		return exp(f*math.Log(p1/p0) + ok*math.Log((1-p1)/(1-p0)))
	}
	r := Result{Verdict: NotYet, Units: o.Units}
	for _, p1 := range o.Worse {
		r.Harm += ratio(p1, o.Tolerated) / float64(len(o.Worse))
	}
	if len(o.Worse) > 0 {
		r.Safe = ratio(o.Tolerated, o.Worse[0])
	}
	if o.Units > 0 {
		r.Change = f / float64(o.Units)
	}
	r.Decidable = exp(float64(o.Units)*math.Log((1-o.Tolerated)/(1-first(o.Worse)))) >= 1/o.Beta
	switch {
	case r.Harm >= 1/o.Alpha:
		r.Verdict = Fail
	case r.Safe >= 1/o.Beta:
		r.Verdict = Pass
	}
	return r
}

func first(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return list[0]
}
