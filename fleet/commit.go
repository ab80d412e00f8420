package fleet

// Commit is everything that one action of a rollout changes. A store writes all
// of it in one transaction or nothing: the rollout's row, the members, the gate
// evaluations, the device's new wish with its signed metadata, the notification
// of the device, and the audit row. A member that a device has settled since it
// was read is not overwritten: the commit is refused with ErrRolloutState.
type Commit struct {
	Epoch       int64 // of the lease; a store refuses an older one with ErrLeaseLost
	Rollout     Rollout
	Members     []Member
	Evaluations []GateEvaluation
	Quarantine  *Quarantine // nil: none begins
	// Device and Change, when set, change the wish of one device; the store
	// allocates generation and version and has the wish signed in the same
	// transaction.
	Device string
	Change func(*Wish) error
	Audit  Audit
}
