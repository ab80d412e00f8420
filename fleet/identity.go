package fleet

import "time"

// How an identity ended.
const (
	EndedRevoked  = "revoked"  // and its name was taken by another key
	EndedReplaced = "replaced" // by an operator's act, see EnrolToken.Replaces
	EndedRenewed  = "renewed"  // by the device itself
	EndedRejected = "rejected" // it waited and was not accepted
)

// Former is a key that a device was known by. It is never let in again, under any
// name.
type Former struct {
	Device    string
	PublicKey []byte // SPKI DER
	Since     time.Time
	Ended     time.Time
	How       string
	By        []byte // SPKI of the key that came after it; empty: none
}

// Run is one start of the agent, as its hellos name it.
type Run struct {
	ID   uint64    `json:"id"`
	Last time.Time `json:"last"` // heard
}

// maxRuns is how many runs are remembered.
const maxRuns = 8

// Heard takes in a hello of one run of the agent and tells whether a run that had
// ended speaks again: since it was heard before, another run was heard. One device
// never does that, however often it starts or connects; two devices that share an
// identity do so as soon as each was heard twice. 0 is a run that is not told, of an
// older agent.
func (d *Device) Heard(run uint64, now time.Time) (again bool) {
	if run == 0 {
		return false
	}
	n := len(d.Runs)
	for i, r := range d.Runs {
		if r.ID == run {
			again = i < n-1
			d.Runs = append(d.Runs[:i:i], d.Runs[i+1:]...)
			break
		}
	}
	d.Runs = append(d.Runs, Run{ID: run, Last: now})
	if len(d.Runs) > maxRuns {
		d.Runs = d.Runs[len(d.Runs)-maxRuns:]
	}
	return again
}
