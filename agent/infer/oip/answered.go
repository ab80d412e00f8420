package oip

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/shared/bundle"
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
	// Files are the pictures of which inputs were made, as they came, in the contract's
	// order; nil: the input came as a tensor, a frame or a sound.
	Files func() [][]byte
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
func (f *front) tell(a *answer, req *request, inputs, outputs [][]byte, took time.Duration) {
	if f.answered != nil {
		f.answered(Answered{ID: a.id, Slot: a.by, Labels: func() []string { return f.labels(a.by) }, Inputs: inputs, Outputs: outputs, Took: took,
			Files: func() [][]byte { return req.files(a.by.Contract) }})
	}
}

// files are the pictures of a request that was answered.
func (r *request) files(c *bundle.Contract) [][]byte {
	out := make([][]byte, len(c.Inputs))
	for i := range r.inputs {
		in := &r.inputs[i]
		at := slices.IndexFunc(c.Inputs, func(t bundle.Tensor) bool { return t.Name == in.name })
		if at < 0 || !in.foreign() || in.from.format != "" {
			continue
		}
		if m := c.Inputs[at].Meaning; m != nil && m.Kind == "image" {
			out[at], _ = in.payload() // it was read before
		}
	}
	return out
}
