package update

import "github.com/dunlin-edge/dunlin/agent/slots"

// decision is what a model's wish asks for, given what the device holds.
type decision string

const (
	keep    decision = "keep"    // the wished pair serves and is good
	install decision = "install" // set out
	refuse  decision = "refuse"  // the wished pair is bad and attempt has not risen
)

// decide compares a wish with the slot that serves and the outcomes of earlier
// journeys. A good pair that serves is never installed again; a bad one, or one
// rolled back by hand, is tried again only when attempt rises.
func decide(t *target, active *slots.Slot, past *outcomes) decision {
	if active.Bundle == t.Bundle && active.Runtime == t.Runtime && active.Verdict == slots.Good {
		return keep
	}
	if o := past.find(t.Bundle, t.Runtime); o != nil && o.Verdict == slots.Bad && o.Attempt >= t.Custom.Assign.Attempt {
		return refuse
	}
	return install
}
