package sandbox

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// landlockABI is the number of the kernel's Landlock, 0 where there is none.
func landlockABI() int {
	n, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(n)
}

// landlockDetail says what an ABI cannot hold.
func landlockDetail(abi int) string {
	s := fmt.Sprintf("abi %d", abi)
	for _, m := range []struct {
		abi  int
		what string
	}{{3, "truncate"}, {4, "tcp"}, {5, "device ioctl"}, {6, "signals and abstract sockets"}} {
		if abi < m.abi {
			s += ", not " + m.what
		}
	}
	return s
}

// allFiles are the rights on files that an ABI knows, all of which are taken.
func allFiles(abi int) uint64 {
	switch {
	case abi < 2:
		return unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	case abi < 3:
		return unix.LANDLOCK_ACCESS_FS_REFER<<1 - 1
	case abi < 5:
		return unix.LANDLOCK_ACCESS_FS_TRUNCATE<<1 - 1
	}
	return unix.LANDLOCK_ACCESS_FS_IOCTL_DEV<<1 - 1
}

// rulesets of the kernel are as long as their ABI says.
func ruleset(abi int) (unix.LandlockRulesetAttr, uintptr) {
	a := unix.LandlockRulesetAttr{Handled_access_fs: allFiles(abi)}
	size := unsafe.Offsetof(a.Handled_access_net)
	if abi >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size = unsafe.Offsetof(a.Scoped)
	}
	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size = unsafe.Offsetof(a.Quiet_access_fs)
	}
	return a, size
}

const (
	mayRead = unix.LANDLOCK_ACCESS_FS_READ_FILE
	mayRun  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
)

// opened are the files that a worker opens by name, where they exist: what the
// loader links it with, and what the runtime asks about the processor.
var opened = map[string]uint64{
	"/lib": mayRead, "/lib64": mayRead, "/usr/lib": mayRead, "/usr/lib64": mayRead,
	"/etc/ld.so.cache":                   mayRead,
	"/proc/cpuinfo":                      mayRead,
	"/sys/devices/system/cpu/possible":   mayRead,
	"/sys/devices/system/cpu/present":    mayRead,
	"/sys/devices/system/cpu/kernel_max": mayRead,
}

// confine leaves this thread the files above, the loader, the worker's program and
// the runtime's library; with newer kernels it also takes TCP, the ioctls of
// devices, signals and abstract sockets.
func confine(p *plan, worker string) error {
	abi := landlockABI()
	if abi == 0 {
		return nil
	}
	attr, size := ruleset(abi)
	fd, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return fmt.Errorf("make rules: %w", e)
	}
	rules := int(fd)
	defer unix.Close(rules)
	// One that is missing is told by exec.
	if err := allowPath(rules, worker, mayRun); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if p.Library != 0 {
		if err := allow(rules, p.Library, mayRead); err != nil {
			return fmt.Errorf("rule for the runtime library: %w", err)
		}
	}
	for _, files := range []map[string]uint64{opened, ofArchitecture} {
		for path, rights := range files {
			if err := allowPath(rules, path, rights); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); e != 0 {
		return fmt.Errorf("take effect: %w", e)
	}
	return nil
}

func allowPath(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("rule for %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := allow(rules, fd, rights); err != nil {
		return fmt.Errorf("rule for %s: %w", path, err)
	}
	return nil
}

func allow(rules, fd int, rights uint64) error {
	a := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, e := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&a)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
