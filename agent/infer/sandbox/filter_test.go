package sandbox

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
)

// seccompData is what a filter sees of a call.
type seccompData struct {
	nr, arch uint32
	args     [6]uint64
}

// evaluate runs a filter as the kernel does. It fails on a jump out of the program
// and on an instruction that the filters here do not use.
func evaluate(t *testing.T, p []unix.SockFilter, d seccompData) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(p); pc++ {
		f := p[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(f.Jt)
			} else {
				pc += int(f.Jf)
			}
		}
		switch f.Code {
		case opLoad:
			switch {
			case f.K == offNR:
				a = d.nr
			case f.K == offArch:
				a = d.arch
			case f.K >= offArgs && f.K < offArgs+48 && f.K%8 == 0:
				a = uint32(d.args[(f.K-offArgs)/8])
			case f.K >= offArgs && f.K < offArgs+48 && f.K%8 == 4:
				a = uint32(d.args[(f.K-offArgs)/8] >> 32)
			default:
				t.Fatalf("load of %d", f.K)
			}
		case opEqual:
			jump(a == f.K)
		case opAtOver:
			jump(a >= f.K)
		case opAnd:
			a &= f.K
		case opReturn:
			return f.K
		default:
			t.Fatalf("instruction %#x", f.Code)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

// TestFilter asks the worker's filter about calls with arguments that matter.
func TestFilter(t *testing.T) {
	const pid = 4711
	p := compile(workerCalls(pid), hopeless, refuse(unix.ENOSYS))
	thread := uint64(threadFlags | unix.CLONE_SYSVSEM | unix.CLONE_SETTLS)
	for _, tt := range []struct {
		name string
		nr   uint32
		args [6]uint64
		want uint32
	}{
		{"read", unix.SYS_READ, [6]uint64{3, 1 << 40, 1 << 20}, permit},
		{"unknown", 999, [6]uint64{}, refuse(unix.ENOSYS)},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, refuse(unix.ENOSYS)},
		{"socket", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX}, kill},
		{"call of x32", foreignCalls | unix.SYS_READ, [6]uint64{}, kill},
		{"call without number", ^uint32(0), [6]uint64{}, kill},
		{"open to read", unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_RDONLY | unix.O_CLOEXEC | unix.O_DIRECTORY}, permit},
		{"open to write", unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_WRONLY}, refuse(unix.EACCES)},
		{"open both ways", unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_RDWR}, refuse(unix.EACCES)},
		{"create", unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_CREAT}, refuse(unix.EACCES)},
		{"create without a name", unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_TMPFILE}, refuse(unix.EACCES)},
		{"thread", unix.SYS_CLONE, [6]uint64{thread}, permit},
		{"process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, kill},
		{"vfork", unix.SYS_CLONE, [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, kill},
		{"thread with a namespace", unix.SYS_CLONE, [6]uint64{thread | unix.CLONE_NEWNET}, kill},
		{"thread with its own files", unix.SYS_CLONE, [6]uint64{thread &^ unix.CLONE_FILES}, kill},
		{"memory", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_ANON | unix.MAP_PRIVATE}, permit},
		{"code from a file", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE}, permit},
		{"code from nowhere", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_EXEC, unix.MAP_ANON | unix.MAP_PRIVATE}, refuse(unix.EACCES)},
		{"code to write", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_WRITE | unix.PROT_EXEC, unix.MAP_PRIVATE}, refuse(unix.EACCES)},
		{"make code", unix.SYS_MPROTECT, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse(unix.EACCES)},
		{"ask a limit", unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_STACK, 0, 1}, permit},
		{"set a limit", unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_STACK, 8}, refuse(unix.EPERM)},
		{"set a limit from high up", unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_STACK, 1 << 32}, refuse(unix.EPERM)},
		{"ask another's limit", unix.SYS_PRLIMIT64, [6]uint64{1, unix.RLIMIT_STACK, 0, 1}, refuse(unix.EPERM)},
		{"signal itself", unix.SYS_TGKILL, [6]uint64{pid, pid, 6}, permit},
		{"signal another", unix.SYS_TGKILL, [6]uint64{1, 1, 6}, kill},
		{"name a thread", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_NAME}, permit},
		{"be dumpable", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_DUMPABLE, 1}, refuse(unix.EINVAL)},
		{"receive frames", unix.SYS_RECVMSG, [6]uint64{frame.ControlFD}, permit},
		{"receive elsewhere", unix.SYS_RECVMSG, [6]uint64{frame.ControlFD + 1}, kill},
		{"flags of a descriptor", unix.SYS_FCNTL, [6]uint64{1, unix.F_GETFL}, permit},
		{"signals of a descriptor", unix.SYS_FCNTL, [6]uint64{1, unix.F_SETOWN, 1}, refuse(unix.EPERM)},
	} {
		if got := evaluate(t, p, seccompData{tt.nr, auditArch, tt.args}); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	if got := evaluate(t, p, seccompData{unix.SYS_READ, unix.AUDIT_ARCH_I386, [6]uint64{}}); got != kill {
		t.Errorf("another architecture: %#x", got)
	}
}

// TestFilterHoldsForEveryNumber: each call has one verdict, that of its list, and
// the kernel takes a filter of at most 4,096 instructions.
func TestFilterHoldsForEveryNumber(t *testing.T) {
	rules := workerCalls(1)
	p := compile(rules, hopeless, refuse(unix.ENOSYS))
	if len(p) > 4096 {
		t.Errorf("%d instructions", len(p))
	}
	listed := slices.Clone(hopeless)
	for _, c := range rules {
		listed = append(listed, c.nr)
	}
	slices.Sort(listed)
	if n := len(listed); len(slices.Compact(listed)) != n {
		t.Error("a call is listed twice")
	}
	for nr := range uint32(600) {
		want := refuse(unix.ENOSYS)
		checked := false
		for _, c := range rules {
			if c.nr == nr {
				want, checked = permit, len(c.ways) > 0 || c.otherwise != 0
			}
		}
		if slices.Contains(hopeless, nr) {
			want = kill
		}
		for range 20 {
			d := seccompData{nr: nr, arch: auditArch}
			for i := range d.args {
				d.args[i] = rand.Uint64()
			}
			if got := evaluate(t, p, d); !checked && got != want {
				t.Fatalf("call %d: %#x, want %#x", nr, got, want)
			}
		}
	}
}
