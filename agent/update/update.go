// Package update is the journey of a release on the device and its journal: the
// only package that knows the order of steps. Reading the list in steps.go is
// reading what happens. Every step is written down by name before it starts, may
// run again after a restart, and has its way back beside it; before the pointer
// moves, the way back is on disk.
//
// An Engine is safe for concurrent use. Each model has one goroutine of its own,
// so a model in probation does not hold up another; prove runs one at a time,
// because it measures.
package update

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// Prover proves, serves and watches. It is the device's inference side.
type Prover interface {
	// Prove runs the candidate in a worker of its own while the active model
	// serves. A *Refusal says that the pair is not fit for this device; any
	// other error that nothing could be said. It may run twice. What was measured
	// comes back in any case, nil for nothing.
	Prove(ctx context.Context, c *Candidate) (*bundle.Proof, error)
	// Serve makes the candidate answer the model's live requests from one
	// instant to the next, losing none; nil stops serving the model. After an
	// error what served before still serves. It may run twice.
	Serve(ctx context.Context, model string, c *Candidate) error
	// Judge tells what the watch over live requests found since the candidate
	// was first served.
	Judge(c *Candidate, since time.Duration) Judgement
}

// Shadower is the device's inference side as well.
type Shadower interface {
	// Shadow lets a proven candidate answer copies of the model's live requests,
	// as its contract bounds that, while the active model serves. A *Refusal says
	// that the two disagree, or that the candidate did not bear it. It may run
	// twice. What was seen comes back in any case, nil for nothing.
	Shadow(ctx context.Context, c *Candidate) (*bundle.Shade, error)
}

// Reporter tells the fleet. Neither method blocks.
type Reporter interface {
	// Changed says that Status of a model changed in a way the fleet must
	// know: a signed report is due.
	Changed(model string)
	// Happened records a typed event.
	Happened(e Event)
}

// Repository is the verified source of wishes and blobs.
type Repository interface {
	// Refresh fetches, verifies and stores newer metadata. A *trust.Refusal
	// names the attack; the wish that was held stays.
	Refresh(ctx context.Context) (trust.Wish, error)
	// Wish is the newest verified wish, also after a restart.
	Wish() trust.Wish
	// Download returns the path of the verified blob, resuming what is there.
	Download(ctx context.Context, digest string, length int64) (string, error)
	// Have returns the path of a blob that was downloaded whole.
	Have(digest string) (string, bool)
	// Forget drops a downloaded blob, whole or partial.
	Forget(digest string) error
	// Sweep drops every blob, whole or partial, but those to keep. No Download
	// is under way.
	Sweep(keep map[string]bool) error
}

// Candidate is a pair {bundle, runtime} in a place, ready to be run.
type Candidate struct {
	Model, Version string
	Path           string // catalog path of the release
	Dir            string // of the place; the bundle's files are below it
	Library        string // path of the runtime's library
	Bundle         string // digest of the bundle's manifest, "sha256:…"
	Runtime        string // digest of the runtime's manifest
	Rollout, Arm   string
	Contract       *bundle.Contract
	Proof          *bundle.Proof // what it showed on this device; nil: nothing is known
}

// Judgement is what probation has seen.
type Judgement struct {
	Verdict  string // Pass, Fail or NotYet
	Code     string // why it failed: "probation.score", …
	Reason   string // a sentence
	Answered uint64 // live requests that the candidate has answered
}

// Verdicts of a Judgement.
const (
	Pass   = "pass"
	Fail   = "fail"
	NotYet = "not_yet"
)

// Types of events about what was not believed.
const (
	EventRefused  = "trust.refused"  // metadata or a file; may come again and again
	EventBelieved = "trust.believed" // metadata again, after it was refused
)

// Event is a typed thing that happened on the journey.
type Event struct {
	Type   string // "update.refused", "update.rolled_back", "trust.refused", …
	Model  string
	Path   string
	Code   string
	Detail string
	Next   string // what to do about it, when that can be said
}

// Refusal says that a pair is not fit for this device; it becomes bad and is not
// tried again until the wish's attempt rises.
type Refusal struct {
	Code   string // "prove.golden", "check.hardware", …
	Reason string // a sentence for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason + " (" + r.Code + ")" }

// target is one wished model with the runtime that it is paired with.
type target struct {
	Path       string        `json:"path"`
	Bundle     string        `json:"bundle"`
	Length     int64         `json:"length"`
	Runtime    string        `json:"runtime"`
	RuntimeLen int64         `json:"runtime_length"`
	BelowFloor bool          `json:"below_floor,omitempty"` // may go on serving, not be newly activated
	Custom     bundle.Custom `json:"custom"`
}

func (t *target) model() string { return t.Custom.Release.Model }

// targets pairs each wished model with its runtime. A wish is verified before it
// comes here, so an error means that the server made it wrong.
func targets(w trust.Wish) ([]target, error) {
	byPath := map[string]trust.Target{}
	for _, t := range w.Targets {
		byPath[t.Path] = t
	}
	var out []target
	for _, t := range w.Targets {
		var c bundle.Custom
		if err := json.Unmarshal(t.Custom, &c); err != nil {
			return nil, fmt.Errorf("wish: custom of %s: %w", t.Path, err)
		}
		if c.Release.Kind == bundle.KindRuntime {
			continue
		}
		if c.Assign == nil {
			return nil, fmt.Errorf("wish: %s carries no assignment", t.Path)
		}
		rt, ok := byPath[c.Assign.Runtime]
		if !ok {
			return nil, fmt.Errorf("wish: %s wants runtime %q, which is not in the wish", t.Path, c.Assign.Runtime)
		}
		out = append(out, target{Path: t.Path, Bundle: t.Digest, Length: t.Length, Runtime: rt.Digest, RuntimeLen: rt.Length, BelowFloor: t.BelowFloor || rt.BelowFloor, Custom: c})
	}
	return out, nil
}
