// Package gate decides whether a release does harm, from what its devices did.
// Everything in it is pure: evidence in, a verdict out, and the same verdict from
// the same evidence at any later time.
//
// There are three kinds of gates, and all of them count devices, never requests:
//
//   - Outcome: a likelihood ratio on yes or no of devices or device-hours
//     (install, crash, silence).
//   - Difference: how much treated devices changed against their own past, less
//     how much untreated devices of their class changed in the same minutes.
//   - Limit: a bound that the policy or the contract states.
//
// An e-value is non-negative and has a mean of at most one where the release does
// no harm, at any time that somebody looks. By Ville's inequality (1939) it ever
// reaches 1/alpha with probability alpha at most; a gate fails there. It passes
// when the e-value against "harm of at least Harm" reaches 1/beta. Averages of
// e-values are e-values whatever their dependence (Vovk & Wang 2021): looks,
// classes and strata are averaged. Method and measured properties: docs/gates.md.
package gate

import "math"

// Version of the method; it is stored with every evaluation.
const Version = 1

// Verdict of a gate.
type Verdict string

// Verdicts.
const (
	Pass   Verdict = "pass"
	Fail   Verdict = "fail"
	NotYet Verdict = "not_yet"
)

// Suspicion is the e-value from which a stage waits although it could go on, and is
// held for a person when its longest wait is over.
const Suspicion = 10

// Defaults of the probabilities of a wrong verdict.
const (
	FalseHalts   = 0.005 // of a good release, over all gates but install
	InstallHalts = 0.005 // of a good release, by install
	Beta         = 0.10  // that a gate passes a harm of just Harm
	sharing      = 7     // gates that share FalseHalts in the default policy
)

// Alpha is the probability of a false halt that each of n gates may spend.
func Alpha(n int) float64 { return FalseHalts / float64(max(n, sharing)) }

// Result is what evidence says. Its numbers are finite or the verdict is Fail.
type Result struct {
	Verdict   Verdict `json:"verdict"`
	Harm      float64 `json:"harm"`           // e-value against "no harm"; Fail at 1/alpha
	Safe      float64 `json:"safe"`           // e-value against harm; Pass at 1/beta
	Change    float64 `json:"change"`         // best estimate, on the gate's scale
	Of        string  `json:"of,omitempty"`   // the measure that Change is of, where there are many
	Error     float64 `json:"error"`          // its standard error
	Units     int     `json:"units"`          // devices or cells behind it
	Decidable bool    `json:"decidable"`      // with no change at all this evidence would pass
	Why       string  `json:"why,omitempty"`  // no verdict can be had: "too few", "no control"
	Sees      float64 `json:"sees,omitempty"` // least change that would reach Fail as things stand; 0: not known
}

// GoesOn tells whether the gate lets its stage go on after the bake: it passed, or
// it could not pass at this size and suspects nothing.
func (r Result) GoesOn() bool {
	return r.Verdict == Pass || r.Verdict == NotYet && !r.Decidable && r.Harm < Suspicion
}

// Evidence is what one evaluation of one gate was judged on.
type Evidence struct {
	Method     int         `json:"method"`
	Outcome    *Outcome    `json:"outcome,omitempty"`
	Difference *Difference `json:"difference,omitempty"`
	Limit      *Limit      `json:"limit,omitempty"`
}

// Evaluate says what the evidence says. Numbers that are not finite fail: a NaN
// compares as false with everything and would make the gate blind.
func Evaluate(e Evidence) Result {
	var r Result
	switch {
	case e.Outcome != nil:
		r = e.Outcome.judge()
	case e.Difference != nil:
		r = e.Difference.judge()
	case e.Limit != nil:
		r = e.Limit.judge()
	default:
		return Result{Verdict: NotYet, Why: "no evidence"}
	}
	if !finite(r.Harm) || !finite(r.Safe) || !finite(r.Change) || !finite(r.Error) {
		return Result{Verdict: Fail, Harm: math.MaxFloat64, Why: "the evidence has numbers that are not finite"}
	}
	return r
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func clamp(x, bound float64) float64 { return max(-bound, min(bound, x)) }

// exp is the exponential function, bounded so that sums of it stay finite.
func exp(x float64) float64 { return math.Exp(clamp(x, 600)) }
