package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// RestoreJump is added to the versions of everything that the server signs and to
// every generation when it is restored from a backup: above whatever it gave out
// after the backup.
const RestoreJump = 1_000_000

// RestoreCode is the code of rollouts that a restore has paused.
const RestoreCode = "restored"

// Restored is what a restore left open about a device.
type Restored struct {
	Device     string            `json:"device"`
	At         time.Time         `json:"at"`         // of the restore
	Generation int64             `json:"generation"` // that the backup knew
	Reconciled time.Time         `json:"reconciled"` // zero: not heard of yet, its wish is withheld
	Detail     string            `json:"detail,omitempty"`
	Records    []RestoredRecords `json:"records,omitempty"`
}

// RestoredRecords counts the records of one kind and epoch that a device had made
// when it was first heard of after a restore and the backup did not have.
type RestoredRecords struct {
	Kind     wire.Kind `json:"kind"`
	Epoch    uint64    `json:"epoch"`
	Known    uint64    `json:"known"` // newest sequence in the backup
	Last     uint64    `json:"last"`  // newest sequence of the device at its first hello
	Received uint64    `json:"received"`
	Lost     uint64    `json:"lost"`
	Missing  string    `json:"missing,omitempty"` // the lost sequences, "12-15 18"
}

// Open is how many records may still come.
func (r *RestoredRecords) Open() uint64 { return r.Last - r.Known - r.Received - r.Lost }

// ModelState is what a device does about one model.
type ModelState = wire.ModelState

// Told is what an authenticated device says that it holds.
type Told struct {
	Generation int64 // newest verified wish
	Version    int64 // newest of its director's metadata
	Epoch      uint64
	Models     []ModelState
	Queues     []wire.QueueState
}

// Reconciliation is what becomes of a device's wish when it is heard of after a
// restore. A store writes all of it in one transaction.
type Reconciliation struct {
	Wish    *Wish
	Members []Member // admitted in the time that was lost
	Detail  string   // what was decided for each model
	Audit   Audit
}
