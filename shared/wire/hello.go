package wire

import "errors"

// Hello opens a session: what the device is, holds and wants to know. It is
// sent again as a heartbeat and whenever what it says changed; it is level
// triggered, so a lost one costs a heartbeat, never correctness.
type Hello struct {
	Protocols  []int             `cbor:"1,keyasint"` // spoken, at most 8
	Agent      string            `cbor:"2,keyasint"` // version of the agent
	Epoch      uint64            `cbor:"3,keyasint"` // of the queues' sequence numbers
	Channel    string            `cbor:"4,keyasint"`
	Held       Held              `cbor:"5,keyasint"`
	Generation int64             `cbor:"6,keyasint,omitempty"` // newest verified wish
	Facts      map[string]string `cbor:"7,keyasint,omitempty"` // see CheckFacts; never authority
	Models     []ModelState      `cbor:"8,keyasint,omitempty"`
	Clock      Clock             `cbor:"9,keyasint"`
	Queues     []QueueState      `cbor:"10,keyasint,omitempty"`
	Signpost   *SignpostHeld     `cbor:"11,keyasint,omitempty"` // nil: the device takes none
	Run        uint64            `cbor:"12,keyasint,omitempty"` // of the agent, drawn at each start; 0: not told

	Capture *CaptureHeld `cbor:"40,keyasint,omitempty"` // nil: the device knows no captures
}

// Check bounds the lists, and what is shown to people.
func (h *Hello) Check() error {
	switch {
	case len(h.Protocols) == 0 || len(h.Protocols) > 8:
		return errors.New("protocols: 1 to 8 wanted")
	case len(h.Agent) > 64 || !printable(h.Agent):
		return errors.New("agent: at most 64 bytes of printable characters wanted")
	case len(h.Models) > 64:
		return errors.New("models: at most 64")
	case len(h.Queues) > 4:
		return errors.New("queues: at most 4")
	}
	if h.Capture != nil {
		if err := h.Capture.Check(); err != nil {
			return err
		}
	}
	if h.Signpost != nil {
		if err := h.Signpost.Check(); err != nil {
			return err
		}
	}
	return CheckFacts(h.Facts)
}

// Clock is the device's view of time.
type Clock struct {
	Unix   int64  `cbor:"1,keyasint"` // seconds
	Source string `cbor:"2,keyasint"` // "synchronised", "floor"
}

// QueueState is one queue's end and what it had to drop since Epoch began.
type QueueState struct {
	Kind    Kind   `cbor:"1,keyasint"` // report, sample, event
	Last    uint64 `cbor:"2,keyasint"` // newest sequence
	Dropped uint64 `cbor:"3,keyasint,omitempty"`
}

// Held are the newest verified versions of metadata; 0: none.
type Held struct {
	Director Versions         `cbor:"1,keyasint"`
	Catalog  Versions         `cbor:"2,keyasint"`
	Roles    map[string]int64 `cbor:"3,keyasint,omitempty"` // delegated roles of the catalog
}

// Versions of one TUF repository's top-level roles.
type Versions struct {
	Root      int64 `cbor:"1,keyasint"`
	Timestamp int64 `cbor:"2,keyasint,omitempty"`
	Snapshot  int64 `cbor:"3,keyasint,omitempty"`
	Targets   int64 `cbor:"4,keyasint,omitempty"`
}

// Welcome answers hello.
type Welcome struct {
	Protocol   int    `cbor:"1,keyasint"`
	Generation int64  `cbor:"2,keyasint,omitempty"` // wanted; differs from the device's: refresh
	Nonce      []byte `cbor:"3,keyasint"`           // 16 bytes, to be put in the next report
	Window     int64  `cbor:"4,keyasint"`           // seconds of a measurement window
	Heartbeat  int64  `cbor:"5,keyasint"`           // seconds between hellos
	Acked      []Ack  `cbor:"6,keyasint,omitempty"` // newest committed records of this epoch
	Metadata   bool   `cbor:"7,keyasint,omitempty"` // newer metadata than held is there

	// Signpost is newer than the one that the device holds; only for those that say
	// which they hold.
	Signpost *Envelope `cbor:"8,keyasint,omitempty"`
	// Capture is orders other than those that the device holds; only for devices that
	// know captures.
	Capture *Envelope `cbor:"40,keyasint,omitempty"`
}

// Check bounds the fields that a device acts on.
func (w *Welcome) Check() error {
	switch {
	case len(w.Nonce) != 16:
		return errors.New("nonce: 16 bytes wanted")
	case w.Window < 1 || w.Window > 86400:
		return errors.New("window: 1 to 86400 seconds wanted")
	case w.Heartbeat < 1 || w.Heartbeat > 86400:
		return errors.New("heartbeat: 1 to 86400 seconds wanted")
	case len(w.Acked) > 4:
		return errors.New("acked: at most 4")
	}
	return nil
}

// Ack says that every record of Kind and Epoch up to Sequence is committed.
type Ack struct {
	Kind     Kind   `cbor:"1,keyasint"`
	Epoch    uint64 `cbor:"2,keyasint"`
	Sequence uint64 `cbor:"3,keyasint"`
}

// Ask is an instruction that is not a wish: it changes nothing that is signed.
type Ask struct {
	ID   string `cbor:"1,keyasint"`
	Verb string `cbor:"2,keyasint"` // "report": send a report now; "hello": say hello now
}

// Answer tells how an Ask went.
type Answer struct {
	ID    string `cbor:"1,keyasint"`
	Error string `cbor:"2,keyasint,omitempty"` // code; empty: done
}
