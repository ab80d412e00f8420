package crash

import "golang.org/x/sys/unix"

// archCalls are the older calls that this architecture still has.
var archCalls = map[uint64]call{
	unix.SYS_RENAMEAT: {"renameat", byPathAt, 2},
}
