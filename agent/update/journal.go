package update

import (
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// journal is the record of one model's journey, written before each step.
// Names are forever: a newer agent reads what an older one wrote.
type journal struct {
	Target  target    `json:"target"`
	Step    string    `json:"step"`              // about to run or running
	Starts  int       `json:"starts"`            // restarts that nobody asked for
	Trials  int       `json:"trials,omitempty"`  // entries into probation
	Losses  int       `json:"losses,omitempty"`  // of files that were fetched or placed
	Stopped bool      `json:"stopped,omitempty"` // the agent was told to stop
	Code    string    `json:"code,omitempty"`    // why it is being rolled back
	Reason  string    `json:"reason,omitempty"`
	Blame   bool      `json:"blame,omitempty"` // the pair is to become bad
	Began   time.Time `json:"began"`
	Proven  bool      `json:"proven,omitempty"`
}

// outcome is what became of a pair on this device, kept after the journal is
// gone. The newest maxOutcomes per model are kept.
type outcome struct {
	Path     string        `json:"path"`
	Bundle   string        `json:"bundle"`
	Runtime  string        `json:"runtime"`
	Attempt  int64         `json:"attempt"`
	Verdict  slots.Verdict `json:"verdict"` // Good or Bad
	Code     string        `json:"code,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Proven   bool          `json:"proven"`
	Answered uint64        `json:"answered,omitempty"` // live requests, before it was refused
}

const maxOutcomes = 16

// outcomes is the record of one model, oldest first.
type outcomes struct {
	List    []outcome    `json:"list"`
	Answers answerRecord `json:"answers"`
}

func (o *outcomes) find(bundle, runtime string) *outcome {
	for i := range o.List {
		if o.List[i].Bundle == bundle && o.List[i].Runtime == runtime {
			return &o.List[i]
		}
	}
	return nil
}

// put replaces the outcome of the same pair and makes it the newest.
func (o *outcomes) put(n outcome) {
	kept := o.List[:0:0]
	for _, x := range o.List {
		if x.Bundle != n.Bundle || x.Runtime != n.Runtime {
			kept = append(kept, x)
		}
	}
	kept = append(kept, n)
	o.List = kept[max(0, len(kept)-maxOutcomes):]
}
