package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// plainOfArchitecture are calls under names of their own.
var plainOfArchitecture = []uint32{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT}

var hopelessOfArchitecture = []uint32{unix.SYS_KEXEC_FILE_LOAD}

// ofArchitecture are files that are opened on this architecture: the loader, which
// the kernel runs for the worker, and all about the processor, because the runtime
// tells large cores from small ones by their frequencies.
var ofArchitecture = map[string]uint64{
	"/lib/ld-linux-aarch64.so.1": mayRun,
	"/sys/devices/system/cpu":    mayRead,
}
