package sandbox

import (
	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
)

// Numbers and bits that golang.org/x/sys does not name.
const (
	foreignCalls = 0x40000000 // and above: x32's table on amd64, nothing elsewhere
	prSetVMA     = 0x53564d41 // names of anonymous memory, which Go gives
)

// threadFlags are what a clone must have to be a thread of this process, and
// moreFlags what it may have besides: no namespace, no process.
const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	moreFlags   = unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID |
		unix.CLONE_CHILD_SETTID | unix.CLONE_DETACHED
)

// writing are the flags of open that are more than reading.
const writing = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND | unix.O_PATH | (unix.O_TMPFILE &^ unix.O_DIRECTORY)

// workerCalls are the calls that a worker makes: Go's runtime, the C library and
// its loader, and LiteRT 2.3.0, seen with strace and with room for older and newer
// C libraries. What is looked at are arguments in registers; clone3 has its own
// in memory, so it is answered as unknown and the C library takes clone.
func workerCalls(pid int) []call {
	low := func(arg uint32, values ...uint32) way { return way{{arg: arg, values: values}} }
	checked := []call{
		{nr: unix.SYS_OPENAT, ways: []way{{{arg: 2, mask: writing}}}, otherwise: refuse(unix.EACCES)},
		// No memory is writable and executable, and none becomes executable that
		// was written to.
		{nr: unix.SYS_MMAP, ways: []way{
			{{arg: 2, mask: unix.PROT_EXEC}},
			{{arg: 2, mask: unix.PROT_WRITE}, {arg: 3, mask: unix.MAP_ANONYMOUS}},
		}, otherwise: refuse(unix.EACCES)},
		{nr: unix.SYS_MPROTECT, ways: []way{{{arg: 2, mask: unix.PROT_EXEC}}}, otherwise: refuse(unix.EACCES)},
		{nr: unix.SYS_CLONE, ways: []way{{
			{arg: 0, mask: threadFlags, values: []uint32{threadFlags}},
			{arg: 0, mask: ^uint32(threadFlags | moreFlags)},
		}}, otherwise: kill},
		{nr: unix.SYS_PRCTL, ways: []way{low(0, unix.PR_SET_NAME, unix.PR_GET_NAME, prSetVMA, unix.PR_SET_NO_NEW_PRIVS)}, otherwise: refuse(unix.EINVAL)},
		{nr: unix.SYS_PRLIMIT64, ways: []way{{{arg: 0}, {arg: 2, pointer: true}}}, otherwise: refuse(unix.EPERM)},
		{nr: unix.SYS_TGKILL, ways: []way{low(0, uint32(pid))}, otherwise: kill},
		{nr: unix.SYS_FCNTL, ways: []way{low(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC)}, otherwise: refuse(unix.EPERM)},
		{nr: unix.SYS_RECVMSG, ways: []way{low(0, frame.ControlFD)}, otherwise: kill},
		{nr: unix.SYS_SECCOMP, ways: []way{low(0, unix.SECCOMP_SET_MODE_FILTER)}, otherwise: kill},
		{nr: unix.SYS_IOCTL, otherwise: refuse(unix.ENOTTY)},
	}
	var out []call
	for _, nr := range append(plain, plainOfArchitecture...) {
		out = append(out, call{nr: nr})
	}
	return append(out, checked...)
}

// plain calls are permitted whatever their arguments are. Execve is among them
// until Seal.
var plain = []uint32{
	// Hot ones first.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_EPOLL_PWAIT, unix.SYS_CLOCK_GETTIME,
	// Threads and time.
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ,
	unix.SYS_SET_TID_ADDRESS, unix.SYS_GETTID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_EXECVE, unix.SYS_CLOCK_NANOSLEEP,
	unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_RESTART_SYSCALL, unix.SYS_GETCPU,
	// Signals of its own.
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	// Memory.
	unix.SYS_BRK, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MEMBARRIER,
	// Descriptors that it has.
	unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FTRUNCATE, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
	unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
	// What it may ask.
	unix.SYS_FACCESSAT, unix.SYS_READLINKAT, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID,
	unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRANDOM, unix.SYS_GETRUSAGE, unix.SYS_UNAME, unix.SYS_SYSINFO,
}

// hopeless calls end the process: nothing that computes makes them, so whoever
// does is not the worker that was started.
var hopeless = append([]uint32{
	// The network and other processes' sockets.
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_RECVFROM, unix.SYS_RECVMMSG,
	// Other programs and processes.
	unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE,
	unix.SYS_KCMP, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_OPEN,
	unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PIDFD_GETFD,
	// Files.
	unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT, unix.SYS_MKNODAT,
	unix.SYS_TRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_INOTIFY_INIT1, unix.SYS_CHROOT, unix.SYS_CHDIR, unix.SYS_FCHDIR,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSPICK,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_QUOTACTL, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT,
	// More rights.
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETFSUID,
	unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_CAPSET, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PERSONALITY, unix.SYS_SETRLIMIT,
	unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETATTR, unix.SYS_LANDLOCK_CREATE_RULESET,
	unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF,
	// Large parts of the kernel.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_VMSPLICE, unix.SYS_SPLICE, unix.SYS_TEE,
	unix.SYS_IO_SETUP, unix.SYS_MQ_OPEN, unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SEMGET, unix.SYS_MSGGET, unix.SYS_MEMFD_SECRET,
	// The machine.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME,
	unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_TIMER_CREATE,
}, hopelessOfArchitecture...)
