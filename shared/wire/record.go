package wire

import (
	"errors"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Record carries one queued payload; (Epoch, Sequence) is unique per device and
// kind for ever, so the server drops repeats. Payload is an encoded Envelope
// over a Report, an encoded Sample or an encoded Event.
type Record struct {
	Epoch    uint64 `cbor:"1,keyasint"`
	Sequence uint64 `cbor:"2,keyasint"`
	Payload  []byte `cbor:"3,keyasint"`
}

// Batch is what a device publishes on report, sample and event: consecutive
// records of one epoch, oldest first.
type Batch struct {
	Records []Record `cbor:"1,keyasint"`
}

// MaxBatch is the largest number of records in one Batch.
const MaxBatch = 256

// Check refuses an empty or over-long batch and records out of order.
func (b *Batch) Check() error {
	if len(b.Records) == 0 || len(b.Records) > MaxBatch {
		return errors.New("batch: 1 to 256 records wanted")
	}
	for i, r := range b.Records {
		if r.Sequence == 0 || r.Epoch != b.Records[0].Epoch || (i > 0 && r.Sequence <= b.Records[i-1].Sequence) {
			return errors.New("batch: records of one epoch with rising sequence wanted")
		}
	}
	return nil
}

// Report is the signed statement of what a device runs. It is the payload of an
// Envelope with type ReportType.
type Report struct {
	Device     string       `cbor:"1,keyasint"`
	Epoch      uint64       `cbor:"2,keyasint"`
	Counter    uint64       `cbor:"3,keyasint"`           // rises with every report of an epoch
	Generation int64        `cbor:"4,keyasint"`           // newest verified wish
	Nonce      []byte       `cbor:"5,keyasint,omitempty"` // the server's newest; empty: none known
	Models     []ModelState `cbor:"6,keyasint,omitempty"`
	Clock      Clock        `cbor:"7,keyasint"`
	Posture    []Posture    `cbor:"8,keyasint,omitempty"`
}

// ModelState is what a device does about one model.
type ModelState struct {
	Model      string     `cbor:"1,keyasint"`
	Active     *SlotState `cbor:"2,keyasint,omitempty"` // serving
	Candidate  *SlotState `cbor:"3,keyasint,omitempty"` // being placed, proven or judged, or last refused
	Step       string     `cbor:"4,keyasint,omitempty"` // of the journey under way: "fetch", "prove", …
	Generation int64      `cbor:"5,keyasint,omitempty"` // of the wish that this state answers
	Attempt    int64      `cbor:"6,keyasint,omitempty"`
	Rollout    string     `cbor:"7,keyasint,omitempty"`
	Answered   uint64     `cbor:"8,keyasint,omitempty"` // live requests that the candidate has answered
}

// SlotState is a pair {bundle, runtime} with its verdict.
type SlotState struct {
	Path    string `cbor:"1,keyasint"` // catalog path of the release
	Bundle  string `cbor:"2,keyasint"` // "sha256:…"
	Runtime string `cbor:"3,keyasint,omitempty"`
	Verdict string `cbor:"4,keyasint"`           // "unknown", "trying", "good", "bad"
	Code    string `cbor:"5,keyasint,omitempty"` // why bad: "prove.golden", "probation.score", …
	Reason  string `cbor:"6,keyasint,omitempty"` // for people, at most 512 bytes
	Proven  bool   `cbor:"7,keyasint,omitempty"` // passed prove on this device

	Proof *bundle.Proof `cbor:"8,keyasint,omitempty"` // what it showed; in reports only
}

// Posture is one protective layer and whether the device has it.
type Posture struct {
	Layer  string `cbor:"1,keyasint"`
	Have   bool   `cbor:"2,keyasint"`
	Detail string `cbor:"3,keyasint,omitempty"`
}

// Keys of Event.Attrs that every reader may know.
const (
	AttrNext  = "next"  // what to do about it, a sentence
	AttrTimes = "times" // how often it happened since it was last told, decimal; absent: once
)

// Event is a typed thing that happened.
type Event struct {
	Unix   int64             `cbor:"1,keyasint"` // trusted seconds
	Type   string            `cbor:"2,keyasint"` // "update.refused", "worker.crashed", "trust.refused", …
	Model  string            `cbor:"3,keyasint,omitempty"`
	Path   string            `cbor:"4,keyasint,omitempty"` // release concerned
	Code   string            `cbor:"5,keyasint,omitempty"`
	Detail string            `cbor:"6,keyasint,omitempty"`
	Attrs  map[string]string `cbor:"7,keyasint,omitempty"`
}
