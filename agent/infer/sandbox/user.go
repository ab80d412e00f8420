package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// firstUser is where the numbers of workers' users begin: a range that systemd's
// table of users leaves to nobody (0x70000000 to 0x7fffffff). A worker's is this
// plus its process id, so no two that live share one and none has a name.
const (
	firstUser = 0x70000000
	maxPID    = 1 << 22
)

// needed to become another user for good, and to end who has.
var needed = []uint{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_KILL}

// mayChangeUser says why this process cannot give workers users of their own.
func mayChangeUser() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the agent is not root: workers share its user %d", os.Geteuid())
	}
	have, err := capabilities()
	if err != nil {
		return err
	}
	for _, c := range needed {
		if have[0].Effective&(1<<c) == 0 {
			return errors.New("the agent is root without the right to change users")
		}
	}
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("which users there are is not known: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &n); err == nil && inside <= firstUser && firstUser+maxPID <= inside+n {
			return nil
		}
	}
	return fmt.Errorf("this user namespace has no users from %d on", firstUser)
}

// capabilities are those of this thread, the first 32 and the rest.
func capabilities() (d [2]unix.CapUserData, err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&h, &d[0]); err != nil {
		return d, fmt.Errorf("capabilities: %w", err)
	}
	return d, nil
}

// setCapabilities leaves this thread those, of the first 32, and no inheritable
// one. One that has none does not ask: the unit forbids the call.
func setCapabilities(these uint32) error {
	d, err := capabilities()
	if err == nil && d == ([2]unix.CapUserData{}) && these == 0 {
		return nil
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d = [2]unix.CapUserData{{Effective: these, Permitted: these}}
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// secureBits: root is a user like others, nothing becomes ambient, and neither
// can be undone; capabilities survive the change of user, until exec.
const secureBits = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<6 | 1<<7

// becomeNobody takes this thread's capabilities and, if so planned, its user and
// groups. CAP_DAC_READ_SEARCH is left to a thread that was root until it execs,
// for the way to a worker in a folder closed to others; it ends with exec.
func becomeNobody(p *plan) error {
	if !p.User {
		return setCapabilities(0)
	}
	if err := readable(p); err != nil {
		return err
	}
	for c := uintptr(0); c < 64; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
		return fmt.Errorf("secure bits: %w", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("drop groups: %w", e)
	}
	id := uintptr(firstUser + os.Getpid())
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
		return fmt.Errorf("become group %d: %w", id, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return fmt.Errorf("become user %d: %w", id, e)
	}
	if p.Threads > 0 {
		n := uint64(p.Threads)
		if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
			return fmt.Errorf("limit threads: %w", err)
		}
	}
	return setCapabilities(1 << unix.CAP_DAC_READ_SEARCH)
}

// readable lets everybody read the library that this thread, still root, holds
// open. It is nobody's secret, and what keeps others from it is its folder.
func readable(p *plan) error {
	if p.Library == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.Library, &st); err != nil {
		return fmt.Errorf("runtime library: %w", err)
	}
	if st.Mode&0o004 != 0 {
		return nil
	}
	if err := unix.Fchmod(p.Library, st.Mode&0o777|0o444); err != nil {
		return fmt.Errorf("let workers read the runtime library: %w", err)
	}
	return nil
}

// userDetail describes the layer for people.
func userDetail() string {
	return fmt.Sprintf("user and group %d + process id, without capabilities", firstUser)
}
