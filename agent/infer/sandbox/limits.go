package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// bound is one limit of a process.
type bound struct {
	name     string
	resource int
	value    func(Limits) uint64
}

// bounds of a worker. Address space has none: the runtime reserves more than it
// uses.
var bounds = []bound{
	{"no_core", unix.RLIMIT_CORE, func(Limits) uint64 { return 0 }},
	{"files", unix.RLIMIT_NOFILE, func(l Limits) uint64 { return uint64(max(l.Files, 16)) }},
	{"data", unix.RLIMIT_DATA, func(l Limits) uint64 {
		if l.DataMB <= 0 {
			return unix.RLIM_INFINITY
		}
		return uint64(l.DataMB) << 20
	}},
	{"file_size", unix.RLIMIT_FSIZE, func(l Limits) uint64 { return uint64(max(l.FileMB, 0)) << 20 }},
	{"locked_memory", unix.RLIMIT_MEMLOCK, func(Limits) uint64 { return 0 }},
}

// limit bounds a process; 0 is this one.
func limit(pid int, l Limits) error {
	for _, b := range bounds {
		v := b.value(l)
		if v == unix.RLIM_INFINITY {
			continue
		}
		if err := unix.Prlimit(pid, b.resource, &unix.Rlimit{Cur: v, Max: v}, nil); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

// Limit bounds a process that was started without the launcher.
func Limit(pid int, l Limits) error {
	if err := limit(pid, l); err != nil {
		return fmt.Errorf("limit process %d: %w", pid, err)
	}
	return nil
}
