package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Signpost is what a device was told of where its server is and by which CAs it is
// known, and how far it followed.
type Signpost struct {
	Device  string
	Offered []byte // payload of the newest wire.Signpost; nil: none was needed
	Held    []byte // the newest that the device said to hold; nil: none
	Using   string // MQTT address that it uses; empty: the only one
	Trouble string // why that is not the first
	At      time.Time
}

// Holds is what the device holds, nil: what its enrolment said.
func (s *Signpost) Holds() *wire.Signpost { return decodeSignpost(s.Held) }

// Last is what was offered last, nil: nothing.
func (s *Signpost) Last() *wire.Signpost { return decodeSignpost(s.Offered) }

func decodeSignpost(payload []byte) *wire.Signpost {
	out := &wire.Signpost{}
	if len(payload) == 0 || wire.Decode(payload, out) != nil {
		return nil
	}
	return out
}

// Pending is a device that waits for an operator.
type Pending struct {
	Device string
	CA     []byte // fingerprint that the token which it shows names; nil: none is told
}

// Follower is an active device, and what says how far it follows.
type Follower struct {
	Device      string
	LastSeen    time.Time
	Certificate []byte // PEM, current
	Next        []byte // PEM of its next one, nil: none
	Signpost    Signpost
}
