package oip

import (
	"crypto/rand"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
)

// Answered is an answer as it is told to those who compare it with the truth
// later. Whoever keeps Inputs or Outputs copies them: they may lie in memory that
// a client writes to.
type Answered struct {
	ID              string // the client's, or made here
	Slot            infer.Slot
	Labels          func() []string // names of the classes; none: the contract has none
	Inputs, Outputs [][]byte        // in the contract's order
	Took            time.Duration
}

// headerRequest is the HTTP header that names the answer; 'POST /v1/feedback'
// takes it.
const headerRequest = "Dunlin-Request-Id"

// maxHeaderID is the longest id that is repeated in a header, in bytes.
const maxHeaderID = 128

// idOr is the client's id, or a fresh one of 26 letters and digits.
func idOr(id string) string {
	if id != "" {
		return id
	}
	return rand.Text()
}

// plain tells whether an id can stand in a header as it is.
func plain(id string) bool {
	for _, c := range []byte(id) {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return len(id) <= maxHeaderID
}

// tell hands an answer to those who want to know of it.
func (f *front) tell(id string, by infer.Slot, inputs, outputs [][]byte, took time.Duration) {
	if f.answered != nil {
		f.answered(Answered{ID: id, Slot: by, Labels: func() []string { return f.labels(by) }, Inputs: inputs, Outputs: outputs, Took: took})
	}
}
