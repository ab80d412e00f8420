package sandbox

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is something that a worker must not be able to do. Without a sandbox
// root can, or the kernel answers one of through, which says that the attempt
// reached it: some of the things would end the machine.
type attempt struct {
	name    string
	do      func(s scene) error
	through []string
}

// raw makes a system call.
func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	runtime.KeepAlive(args)
	if e != 0 {
		return e
	}
	return nil
}

// text is the address of a string for raw. It is leaked on purpose: the process
// ends after its attempt.
func text(s string) uintptr {
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

func zeros(n int) uintptr {
	b := make([]byte, n)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

var kept [][]byte

func opens(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o666)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func reads(path func(scene) string) func(scene) error {
	return func(s scene) error { return opens(path(s), unix.O_RDONLY) }
}

func at(path string) func(scene) string { return func(scene) string { return path } }
func in(name string) func(scene) string { return func(s scene) string { return s.path(name) } }

func socket(family, kind, protocol int) func(scene) error {
	return func(scene) error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// child starts a process that ends at once.
func child(flags uintptr) func(scene) error {
	return func(scene) error {
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e != 0 {
			return e
		}
		if pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return nil
	}
}

func call6(nr uintptr, args ...uintptr) func(scene) error {
	return func(scene) error { return raw(nr, args...) }
}

// threads starts n threads that stay.
func threads(n int) error {
	var ready, end sync.WaitGroup
	end.Add(1)
	for range n {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			var ts = unix.Timespec{Nsec: 1e6}
			unix.Nanosleep(&ts, nil)
			end.Wait()
		}()
	}
	ready.Wait()
	end.Done()
	return nil
}

// fill takes so many MB and writes to every page.
func fill(mb int) error {
	b, err := unix.Mmap(-1, 0, mb<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return nil
}

func code(second int) func(scene) error {
	return func(scene) error {
		first := unix.PROT_READ | unix.PROT_WRITE
		if second == 0 {
			first |= unix.PROT_EXEC
		}
		b, err := unix.Mmap(-1, 0, 4096, first, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil && second != 0 {
			err = unix.Mprotect(b, second)
		}
		return err
	}
}

func address(path string) uintptr {
	b := make([]byte, 110)
	binary.NativeEndian.PutUint16(b, unix.AF_UNIX)
	copy(b[2:], path)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// local is 127.0.0.1 at a port where nobody listens.
func local() uintptr {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint16(b, unix.AF_INET)
	copy(b[2:], []byte{0, 9, 127, 0, 0, 1})
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

func parent() uintptr { return uintptr(os.Getppid()) }

var attempts = []attempt{
	// Files.
	{"read /etc/passwd", reads(at("/etc/passwd")), nil},
	{"read the device key", reads(in("key")), nil},
	{"read another slot", reads(in("other")), nil},
	{"write its own slot", func(s scene) error { return opens(s.path("own"), unix.O_WRONLY) }, nil},
	{"create in /tmp", func(s scene) error { return opens(s.path("new"), unix.O_WRONLY|unix.O_CREAT) }, nil},
	{"create where it is", func(scene) error { return opens("new", unix.O_WRONLY|unix.O_CREAT) }, nil},
	{"create without a name", func(s scene) error { return opens(s.Dir, unix.O_WRONLY|unix.O_TMPFILE) }, nil},
	{"list a folder", reads(at("/etc")), nil},
	{"open with openat2", func(s scene) error {
		how := unix.OpenHow{Flags: unix.O_RDONLY}
		_, err := unix.Openat2(unix.AT_FDCWD, "/etc/passwd", &how)
		return err
	}, nil},
	{"truncate", func(s scene) error { return unix.Truncate(s.path("own"), 0) }, nil},
	{"chmod", func(s scene) error { return unix.Chmod(s.path("own"), 0o777) }, nil},
	{"chown", func(s scene) error { return unix.Chown(s.path("own"), 1, 1) }, nil},
	{"symlink", func(s scene) error { return unix.Symlink("/etc", s.path("link")) }, nil},
	{"link", func(s scene) error { return unix.Link(s.path("own"), s.path("link")) }, nil},
	{"mknod", func(s scene) error { return unix.Mknod(s.path("node"), unix.S_IFIFO|0o666, 0) }, nil},
	{"mkdir", func(s scene) error { return unix.Mkdir(s.path("dir"), 0o777) }, nil},
	{"unlink", func(s scene) error { return unix.Unlink(s.path("own")) }, nil},
	{"rename", func(s scene) error { return unix.Rename(s.path("own"), s.path("mine")) }, nil},
	{"let a file grow", func(scene) error { _, err := unix.Pwrite(fdFile, make([]byte, 4096), 0); return err }, nil},
	{"open by handle", call6(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0, 0), []string{"EFAULT"}},
	{"read /proc/self/mem", reads(at("/proc/self/mem")), nil},
	{"read its environment", reads(func(scene) string { return "/proc/" + strconv.Itoa(os.Getppid()) + "/environ" }), nil},
	{"read the agent's memory", reads(func(scene) string { return "/proc/" + strconv.Itoa(os.Getppid()) + "/mem" }), nil},
	{"watch files", call6(unix.SYS_INOTIFY_INIT1, 0), nil},
	{"chroot", func(s scene) error { return unix.Chroot(s.Dir) }, nil},
	{"mount", func(s scene) error {
		err := unix.Mount("none", s.Dir, "tmpfs", 0, "")
		if err == nil {
			err = unix.Unmount(s.Dir, 0)
		}
		return err
	}, nil},

	// The network and other sockets.
	{"socket unix", socket(unix.AF_UNIX, unix.SOCK_STREAM, 0), nil},
	{"socket inet", socket(unix.AF_INET, unix.SOCK_DGRAM, 0), nil},
	{"socket inet6", socket(unix.AF_INET6, unix.SOCK_STREAM, 0), nil},
	{"socket netlink", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), nil},
	{"socket packet", socket(unix.AF_PACKET, unix.SOCK_RAW, 0), nil},
	{"socket vsock", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0), []string{"EAFNOSUPPORT"}},
	{"socket alg", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), []string{"EAFNOSUPPORT"}},
	{"socketpair", func(scene) error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }, nil},
	{"connect to the agent", func(s scene) error { return raw(unix.SYS_CONNECT, fdSocket, address(s.path("agent.sock")), 110) }, nil},
	{"bind a socket", func(s scene) error { return raw(unix.SYS_BIND, fdSocket, address(s.path("my.sock")), 110) }, nil},
	{"connect by tcp", func(scene) error { return raw(unix.SYS_CONNECT, fdFamily, local(), 16) }, []string{"ECONNREFUSED"}},
	{"receive on another", call6(unix.SYS_RECVMSG, fdFamily, 0, 0), []string{"EFAULT"}},

	// Programs and processes.
	{"exec a shell", func(scene) error { return syscall.Exec("/bin/sh", []string{"sh", "-c", "exit 0"}, nil) }, nil},
	{"exec a memfd", func(scene) error {
		return raw(unix.SYS_EXECVEAT, fdProgram, text(""), 0, 0, unix.AT_EMPTY_PATH)
	}, nil},
	{"exec a memfd by name", func(scene) error {
		return syscall.Exec("/proc/self/fd/"+strconv.Itoa(fdProgram), []string{"true"}, nil)
	}, nil},
	{"memfd_create", func(scene) error { _, err := unix.MemfdCreate("x", 0); return err }, nil},
	{"fork", child(0), nil},
	{"clone into namespaces", child(unix.CLONE_NEWUSER | unix.CLONE_NEWNET), nil},
	{"fork by clone3", func(scene) error {
		a := [11]uint64{4: uint64(unix.SIGCHLD)} // exit_signal of struct clone_args
		pid, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&a[0])), 88, 0)
		if e != 0 {
			return e
		}
		if pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return nil
	}, nil},
	{"another table of calls", call6(0x40000000 | unix.SYS_GETPID), []string{"ENOSYS"}},
	{"unshare", call6(unix.SYS_UNSHARE, unix.CLONE_NEWNS), nil},
	{"setns", call6(unix.SYS_SETNS, fdSpace, unix.CLONE_NEWUTS), nil},
	{"ptrace the agent", func(scene) error { return raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, parent(), 0, 0) }, nil},
	{"read the agent by vm", func(scene) error {
		l, r := unix.Iovec{Base: &make([]byte, 8)[0], Len: 8}, unix.RemoteIovec{Base: 0x400000, Len: 8}
		_, err := unix.ProcessVMReadv(os.Getppid(), []unix.Iovec{l}, []unix.RemoteIovec{r}, 0)
		return err
	}, []string{"EFAULT"}},
	{"signal the agent", func(scene) error { return raw(unix.SYS_KILL, parent(), 0) }, nil},
	{"signal pid 1", call6(unix.SYS_KILL, 1, 0), nil},
	{"signal a thread of it", func(scene) error { return raw(unix.SYS_TGKILL, parent(), parent(), 0) }, nil},
	{"signal it by pidfd", call6(unix.SYS_PIDFD_SEND_SIGNAL, fdParent, 0, 0, 0), nil},
	{"pidfd_open", func(scene) error { return raw(unix.SYS_PIDFD_OPEN, parent(), 0) }, nil},

	// Rights and bounds.
	{"raise a limit", func(scene) error {
		return unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}, nil)
	}, nil},
	{"bound the agent", func(scene) error {
		return unix.Prlimit(os.Getppid(), unix.RLIMIT_CORE, nil, &unix.Rlimit{})
	}, nil},
	{"become root", call6(unix.SYS_SETRESUID, 0, 0, 0), nil},
	{"take capabilities", func(scene) error { return setCapabilities(1 << unix.CAP_SYS_ADMIN) }, nil},
	{"personality", call6(unix.SYS_PERSONALITY, 0xffffffff), nil},
	{"be scheduled first", call6(unix.SYS_SETPRIORITY, 0, 0, ^uintptr(4)), nil},
	{"memory beyond the limit", func(scene) error { return fill(400) }, nil},
	{"threads beyond the limit", func(scene) error { return threads(80) }, nil},
	{"code by mmap", code(0), nil},
	{"code by mprotect", code(unix.PROT_READ | unix.PROT_EXEC), nil},

	// Large parts of the kernel, and the machine.
	{"bpf", func(scene) error {
		attr := make([]uint32, 16)
		attr[0], attr[1], attr[2], attr[3] = unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1
		return raw(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr[0])), 64)
	}, nil},
	{"perf_event_open", func(scene) error {
		_, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: unix.PERF_ATTR_SIZE_VER0}, 0, -1, -1, 0)
		return err
	}, nil},
	{"io_uring", func(scene) error { return raw(unix.SYS_IO_URING_SETUP, 1, zeros(120)) }, []string{"ENOSYS"}},
	{"userfaultfd", call6(unix.SYS_USERFAULTFD, 1), []string{"ENOSYS"}},
	{"add_key", func(scene) error {
		_, err := unix.AddKey("user", "dunlin-test", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	}, nil},
	{"keyctl", call6(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1), nil},
	{"shared memory", func(scene) error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
		if err == nil {
			_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
		return err
	}, nil},
	{"type into a terminal", func(scene) error { return raw(unix.SYS_IOCTL, fdTTY, unix.TIOCSTI, text("x")) }, []string{"EIO"}},
	{"load a module", call6(unix.SYS_INIT_MODULE, 0, 0, 0), []string{"ENOEXEC", "EFAULT", "ENOSYS"}},
	{"reboot", call6(unix.SYS_REBOOT, 0, 0, 0), []string{"EINVAL"}},
	{"set the clock", call6(unix.SYS_CLOCK_SETTIME, 0, 0), []string{"EFAULT"}},
	{"settimeofday", call6(unix.SYS_SETTIMEOFDAY, 0, 0), nil},
	{"sandbox itself anew", func(scene) error { return raw(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) }, nil},
	{"filter itself anew", func(scene) error { return raw(unix.SYS_SECCOMP, 0, 1, 0) }, []string{"EINVAL"}},
}

// settled are things that a worker may until Settle and not after.
var settled = []attempt{
	{"open a file", reads(at("/proc/cpuinfo")), nil},
	{"code from a file", func(scene) error {
		_, err := unix.Mmap(fdFile, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		return err
	}, nil},
	{"one more filter", func(scene) error { return raw(unix.SYS_SECCOMP, 1, 0, 0) }, nil},
}
