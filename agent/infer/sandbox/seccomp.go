package sandbox

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// haveSeccomp tells whether the kernel filters system calls.
func haveSeccomp() bool {
	const getActionAvail = 2
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action)))
	return e == 0
}

// filterCalls leaves this thread, and every thread that it starts, the calls that
// a worker makes.
func filterCalls() error {
	if !haveSeccomp() {
		return nil
	}
	return load(compile(workerCalls(os.Getpid()), hopeless, refuse(unix.ENOSYS)), 0)
}

// Seal is the first thing that a worker does, before it loads anything that is not
// ours: from then on it cannot become another program. The launcher cannot take
// this away, for it becomes the worker in this very way.
func Seal() error {
	return narrow("seal", compile([]call{
		{nr: unix.SYS_EXECVE, otherwise: kill},
		{nr: unix.SYS_EXECVEAT, otherwise: kill},
	}, nil, permit))
}

// Settle is what a worker does when it has loaded everything and run once: from
// then on it opens no file, gets no new code into its memory and makes no more
// filters.
func Settle() error {
	return narrow("settle", compile([]call{
		{nr: unix.SYS_OPENAT, otherwise: refuse(unix.EACCES)},
		{nr: unix.SYS_MMAP, ways: []way{{{arg: 2, mask: unix.PROT_EXEC}}}, otherwise: refuse(unix.EACCES)},
		{nr: unix.SYS_SECCOMP, otherwise: kill},
	}, nil, permit))
}

// narrow puts one more filter on all threads of this process. A kernel without
// seccomp, and an emulator, have no filter at all, and Posture says so.
func narrow(what string, p []unix.SockFilter) error {
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = load(p, unix.SECCOMP_FILTER_FLAG_TSYNC)
	}
	if err == nil || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("%s worker: %w", what, err)
}

func load(p []unix.SockFilter, flags uintptr) error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return e
	}
	if r != 0 {
		return fmt.Errorf("thread %d has another filter", r)
	}
	return nil
}
