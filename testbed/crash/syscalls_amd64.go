package crash

import "golang.org/x/sys/unix"

// archCalls are the older calls that this architecture still has.
var archCalls = map[uint64]call{
	unix.SYS_RENAME:   {"rename", byPath, 1},
	unix.SYS_RENAMEAT: {"renameat", byPathAt, 2},
	unix.SYS_LINK:     {"link", byPath, 1},
	unix.SYS_SYMLINK:  {"symlink", byPath, 1},
	unix.SYS_UNLINK:   {"unlink", byPath, 0},
	unix.SYS_RMDIR:    {"rmdir", byPath, 0},
	unix.SYS_MKDIR:    {"mkdir", byPath, 0},
	unix.SYS_CREAT:    {"creat", byPath, 0},
}
