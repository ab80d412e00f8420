package update

import "context"

// step is one named part of the journey. The name goes into the journal before
// do starts and is never changed once released.
type step struct {
	name string
	do   func(*journey, context.Context) error
}

// The journey of a release. A wish is refreshed once for all models before any
// journey starts; a restart goes on at the step that the journal names.
var steps = []step{
	{"fetch", (*journey).fetch},         // blobs of bundle and runtime, verified
	{"check", (*journey).check},         // contract, hardware, file against contract
	{"place", (*journey).place},         // files whole in the inactive place
	{"prove", (*journey).prove},         // beside the active model, in a sandbox
	{"shadow", (*journey).shadow},       // on copies of live requests, where the contract asks for it
	{"try", (*journey).try},             // way back on disk, pointer, live requests
	{"probation", (*journey).probation}, // watched on live requests
	{"commit", (*journey).commit},       // the verdict good
	{"report", (*journey).report},       // signed statement to the fleet
}

// stepRollback is the undo of try, probation and commit; earlier steps touch
// only the inactive place and need none.
const stepRollback = "rollback"

// maxStarts is how often a journey may be interrupted, other than by an agent
// that was told to stop, before it gives up: a device that restarts in a circle
// must come to rest.
const maxStarts = 28

// maxLosses is how often what was fetched or placed may turn out to be damaged
// before the journey gives up: a storage that rots must not wear the link.
const maxLosses = 3

// maxTrials is how often a candidate may enter probation: a candidate that takes
// the device down with it must not do so for ever.
const maxTrials = 3

func stepIndex(name string) int {
	for i, s := range steps {
		if s.name == name {
			return i
		}
	}
	return -1
}
