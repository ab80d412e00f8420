package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call says where a system call's path is among its arguments.
type call struct {
	name string
	kind argKind
	arg  int // of the descriptor, or of the directory descriptor or path
}

type argKind int

const (
	byDescriptor argKind = iota // args[arg] is an open file
	byPath                      // args[arg] points to a path
	byPathAt                    // args[arg] is a directory, args[arg+1] points to a path below it
)

// commonCalls exist on every architecture.
var commonCalls = map[uint64]call{
	unix.SYS_WRITE:           {"write", byDescriptor, 0},
	unix.SYS_WRITEV:          {"writev", byDescriptor, 0},
	unix.SYS_PWRITE64:        {"pwrite64", byDescriptor, 0},
	unix.SYS_PWRITEV:         {"pwritev", byDescriptor, 0},
	unix.SYS_FSYNC:           {"fsync", byDescriptor, 0},
	unix.SYS_FDATASYNC:       {"fdatasync", byDescriptor, 0},
	unix.SYS_SYNC_FILE_RANGE: {"sync_file_range", byDescriptor, 0},
	unix.SYS_FTRUNCATE:       {"ftruncate", byDescriptor, 0},
	unix.SYS_FALLOCATE:       {"fallocate", byDescriptor, 0},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", byDescriptor, 2},
	unix.SYS_SENDFILE:        {"sendfile", byDescriptor, 0},
	unix.SYS_RENAMEAT2:       {"renameat2", byPathAt, 2},
	unix.SYS_LINKAT:          {"linkat", byPathAt, 2},
	unix.SYS_SYMLINKAT:       {"symlinkat", byPathAt, 1},
	unix.SYS_UNLINKAT:        {"unlinkat", byPathAt, 0},
	unix.SYS_MKDIRAT:         {"mkdirat", byPathAt, 0},
	unix.SYS_TRUNCATE:        {"truncate", byPath, 0},
}

// durabilityCalls are all of this architecture.
var durabilityCalls = withArchCalls()

func withArchCalls() map[uint64]call {
	all := map[uint64]call{}
	for _, calls := range []map[uint64]call{commonCalls, archCalls} {
		for n, c := range calls {
			all[n] = c
		}
	}
	return all
}

// path resolves the file that a call is about; "" when it cannot be told.
func (c call) path(pid int, args [6]uint64) string {
	switch c.kind {
	case byDescriptor:
		return link(pid, int32(args[c.arg]))
	case byPath:
		return absolute(pid, unix.AT_FDCWD, readString(pid, args[c.arg]))
	default:
		return absolute(pid, int32(args[c.arg]), readString(pid, args[c.arg+1]))
	}
}

func link(pid int, fd int32) string {
	p, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil {
		return ""
	}
	return p
}

func absolute(pid int, dir int32, p string) string {
	if p == "" || filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	at := ""
	if dir == unix.AT_FDCWD {
		at, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	} else {
		at = link(pid, dir)
	}
	return filepath.Join(at, p)
}

// readString reads a path out of the stopped program's memory, page by page.
func readString(pid int, addr uint64) string {
	const page = 4096
	var out []byte
	for len(out) < unix.PathMax {
		b := make([]byte, page-addr%page)
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
		n, err := unix.ProcessVMReadv(pid, local, remote, 0)
		if err != nil || n == 0 {
			return ""
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(out, b[:end]...))
		}
		out, addr = append(out, b[:n]...), addr+uint64(n)
	}
	return ""
}

// syscallInfo asks the kernel for number and arguments of the call that a stopped
// thread enters (PTRACE_GET_SYSCALL_INFO, Linux 5.3): the same on every
// architecture. ptrace(2) gives the layout.
func syscallInfo(tid int) (number uint64, args [6]uint64, err error) {
	const entry = 1
	var b [88]byte
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		uintptr(len(b)), uintptr(unsafe.Pointer(&b)), 0, 0)
	if errno != 0 {
		return 0, args, errno
	}
	if n < 80 || b[0] != entry {
		return 0, args, fmt.Errorf("thread %d does not enter a system call", tid)
	}
	number = binary.NativeEndian.Uint64(b[24:])
	for i := range args {
		args[i] = binary.NativeEndian.Uint64(b[32+8*i:])
	}
	return number, args, nil
}
