package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Report is a verified report as stored.
type Report struct {
	Device   string
	Epoch    uint64
	Sequence uint64
	At       time.Time // received
	Proof    string    // Proven or Claimed
	Report   wire.Report
}

// Event is an event as stored.
type Event struct {
	ID       string // evt_…
	Device   string
	Epoch    uint64
	Sequence uint64
	At       time.Time // received
	Event    wire.Event
}

// Sample is a window of measurements as stored.
type Sample struct {
	Device   string
	Epoch    uint64
	Sequence uint64
	Sample   wire.Sample
}
