package fleet

import (
	"maps"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Statuses of a device's identity. Only an active one is let in.
const (
	DevicePending = "pending" // waits for an operator to accept its key; has no certificate
	DeviceActive  = "active"
	DeviceRevoked = "revoked" // its name may be taken by a new key
	DeviceRetired = "retired" // ended for good; only a replacement takes its name
)

// Proof of what a device runs.
const (
	Proven  = "proven"  // signed, counter risen, newest nonce, passed prove
	Claimed = "claimed" // anything else
)

// Device is one agent identity and the newest that is known of it.
type Device struct {
	ID         string // certificate CN and MQTT client id
	Status     string
	Channel    string            // from its enrolment token, fixed
	Labels     map[string]string // set by operators: authority
	Facts      map[string]string // told by the device: never authority
	PublicKey  []byte            // SPKI DER, ECDSA P-256
	Serial     string            // of the current certificate, hex
	Expires    time.Time         // of it; zero: not known
	Renewal    *Renewal          // of the identity, nil: none under way
	Agent      string            // version
	Epoch      uint64            // of its queues
	Enrolled   time.Time
	LastSeen   time.Time // zero: never
	Online     bool
	Generation int64             // newest wish that it has verified
	Models     []wire.ModelState // from the newest report
	ReportedAt time.Time         // zero: never
	Proof      string            // of the newest report: Proven or Claimed
	Nonce      []byte            // newest given out in a welcome
	Counter    uint64            // of the newest report in Epoch
	Queues     []wire.QueueState // what it keeps for us and had to drop, from the newest hello
	Runs       []Run             // of the agent, the one heard last at the end; see Heard
}

// FactSerial is the hardware's serial, as far as the device can tell one.
const FactSerial = "serial"

// Class is the device's hardware class: its strata in rollouts.
func (d *Device) Class() string {
	if c := d.Facts["class"]; c != "" {
		return c
	}
	return "unknown"
}

// Attributes are what selectors look at: labels, and facts where no label has the
// key.
func (d *Device) Attributes() map[string]string {
	out := maps.Clone(d.Facts)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, d.Labels)
	return out
}

// DeviceFilter chooses devices; zero values do not restrict.
type DeviceFilter struct {
	Selector string // over labels and, where no label has the key, facts
	Channel  string
	Status   string
	Not      string // status that is left out
	After    string // id, for the next page
	Limit    int
}
