package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Descriptors that a worker of these tests holds besides those of every process.
const (
	fdSocket  = 3 + iota // unbound, of the family unix
	fdProgram            // a memfd with a program
	fdSpace              // another namespace
	fdParent             // pidfd of the parent
	fdTTY                // a terminal
	fdFile               // open for writing
	fdFamily             // a UDP socket
)

// scene is where attempts are made, given to the worker as JSON.
type scene struct {
	Dir     string // holds key, own and other slot, agent.sock
	Sealed  bool
	Settled bool
}

func (s scene) path(name string) string { return filepath.Join(s.Dir, name) }

// layersAlone are the columns of the table: each layer by itself.
var layersAlone = []string{"limits", "own_user", "cgroup", "landlock", "seccomp"}

// launchWith is the launcher with some of its layers; seccomp brings no_new_privs.
func launchWith(names []string, args []string) int {
	var p plan
	if err := json.Unmarshal([]byte(args[0]), &p); err != nil {
		return fail("arguments", err)
	}
	for _, y := range layers() {
		if slices.Contains(names, y.name) || y.name == "no_new_privs" && !slices.Contains(names, "none") {
			if err := y.take(&p, args[1:]); err != nil {
				return fail(y.name, err)
			}
		}
	}
	return fail("exec", syscall.Exec(args[1], args[1:], Environment()))
}

// launchInUnit is the launcher as a child of an agent that systemd started: with no
// capability, and with EPERM for what the unit's SystemCallFilter= forbids.
func launchInUnit(args []string) int {
	runtime.LockOSThread()
	var calls []call
	for _, nr := range []uint32{unix.SYS_CAPSET, unix.SYS_SETUID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_CHROOT, unix.SYS_SETRLIMIT, unix.SYS_SETPRIORITY, unix.SYS_MOUNT, unix.SYS_BPF} {
		calls = append(calls, call{nr: nr, otherwise: refuse(unix.EPERM)})
	}
	if err := errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), load(compile(calls, nil, permit), 0)); err != nil {
		return fail("unit", err)
	}
	return Main(args)
}

// try makes one attempt and prints what came of it.
func try(name, text string) int {
	var s scene
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Print(err)
		return 3
	}
	if s.Sealed {
		if err := Seal(); err != nil {
			fmt.Print(err)
			return 3
		}
	}
	if s.Settled {
		if err := Settle(); err != nil {
			fmt.Print(err)
			return 3
		}
	}
	if name == "nothing" {
		return 0
	}
	for _, a := range append(attempts, settled...) {
		if a.name != name {
			continue
		}
		if err := a.do(s); err != nil {
			var e syscall.Errno
			if errors.As(err, &e) {
				fmt.Print(unix.ErrnoName(e))
			} else {
				fmt.Print(err)
			}
			return 1
		}
		return 0
	}
	fmt.Print("no such attempt")
	return 3
}

// stage is what the attempts need, in the test's own process.
type stage struct {
	scene        scene
	files        []*os.File
	unprivileged bool // start as nobody
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	// What stops a worker must be a layer, not the folder's mode.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"key": 0o600, "own": 0o666, "other": 0o644, "grown": 0o666} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte("secret"), mode), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(filepath.Join(dir, "agent.sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	s := &stage{scene: scene{Dir: dir}}
	add := func(fd int, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "")
		t.Cleanup(func() { f.Close() })
		s.files = append(s.files, f)
	}
	add(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	add(memProgram("/bin/true"))
	add(unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0))
	add(unix.PidfdOpen(os.Getpid(), 0))
	add(terminal())
	add(unix.Open(filepath.Join(dir, "grown"), unix.O_RDWR|unix.O_CLOEXEC, 0))
	add(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	return s
}

// memProgram is a memfd with a copy of a program.
func memProgram(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
	if err == nil {
		_, err = unix.Write(fd, b)
	}
	return fd, err
}

// terminal is the slave's side of a new pseudo terminal.
func terminal() (int, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// run makes one attempt behind the launcher's arguments, or with none, and tells
// what came of it: "done", an errno, a signal, or the worker's exit.
func (s *stage) run(t *testing.T, front []string, name string, sealed bool) string {
	t.Helper()
	at := s.scene
	at.Sealed = sealed
	text, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	if len(front) == 0 {
		front = []string{program(t)}
	}
	c := exec.Command(front[0], append(front[1:], wordTry, name, string(text))...)
	c.ExtraFiles, c.Dir = s.files, s.scene.Dir
	if s.unprivileged {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := c.Output()
	ws := c.ProcessState.Sys().(syscall.WaitStatus)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "done"
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		return "SIGSYS"
	case ws.Signaled():
		return ws.Signal().String()
	case ws.ExitStatus() == 1 && len(out) > 0:
		return string(out)
	case errors.As(err, &exit) && ws.ExitStatus() == 2:
		return "crash"
	case errors.As(err, &exit):
		t.Fatalf("%s: %v: %s%s", name, err, out, exit.Stderr)
	}
	t.Fatal(name, err)
	return ""
}

// TestForbidden makes a worker try what it must not. Each attempt is made without
// sandbox first, where it gets through to the kernel, then with each layer by
// itself, then behind the real launcher, where it must fail.
func TestForbidden(t *testing.T) {
	host := Probe()
	limits := Limits{DataMB: 300, Files: 64, Threads: 40}
	there := map[string]bool{"limits": true, "own_user": host.noUser == nil, "cgroup": host.groups != nil, "landlock": host.abi > 0, "seccomp": host.seccomp}
	var table strings.Builder
	fmt.Fprintf(&table, "%-24s %-8s", "attempt", "without")
	for _, l := range layersAlone {
		fmt.Fprintf(&table, " %-8s", l)
	}
	fmt.Fprintln(&table, " worker")
	stopped := 0
	for _, a := range attempts {
		st := newStage(t)
		without := st.run(t, nil, a.name, false)
		if os.Geteuid() == 0 && !slices.Contains(append(a.through, "done"), without) {
			t.Errorf("%s: without a sandbox: %s: it does not reach the kernel, so it proves nothing", a.name, without)
		}
		fmt.Fprintf(&table, "%-24s %-8s", a.name, without)
		for _, name := range layersAlone {
			got := "n/a"
			if there[name] {
				c, err := host.Cell(limits, 0)
				if err != nil {
					t.Fatal(err)
				}
				front := append([]string{program(t), wordOnly, name}, c.Arguments(program(t))[1:]...)
				got = newStage(t).run(t, front, a.name, name == "seccomp")
				c.Close()
				if got == without {
					got = "."
				}
			}
			fmt.Fprintf(&table, " %-8s", got)
		}
		c, err := host.Cell(limits, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := newStage(t).run(t, append([]string{program(t)}, c.Arguments(program(t))...), a.name, true)
		c.Close()
		fmt.Fprintln(&table, " "+got)
		switch {
		case os.Geteuid() != 0 && without != "done":
			continue // its user may not either: nothing is proven
		case a.name == "threads beyond the limit" && !there["own_user"] && !there["cgroup"]:
			continue // nothing bounds them, and the posture says so
		}
		if got == "done" || got == without {
			t.Errorf("%s: a worker may: %s", a.name, got)
			continue
		}
		stopped++
	}
	t.Logf("%d attempts, %d stopped; what each layer does by itself (. is nothing):\n%s", len(attempts), stopped, table.String())
}

// TestForbiddenInUnit makes the attempts in a worker of an agent that has no right
// to give, as the shipped unit runs it: Landlock and seccomp are enough.
func TestForbiddenInUnit(t *testing.T) {
	host := Probe()
	host.noUser, host.groups = errors.New("no root"), nil
	c, err := host.Cell(Limits{DataMB: 300, Files: 64}, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	open := newStage(t).scene.path("worker")
	if err := os.WriteFile(open, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range append(attempts, attempt{name: "nothing"}) {
		st := newStage(t)
		st.unprivileged = os.Geteuid() == 0
		got := st.run(t, append([]string{open, wordUnit}, c.Arguments(open)[1:]...), a.name, true)
		if (got == "done") != (a.name == "nothing" || a.name == "threads beyond the limit") {
			t.Errorf("%s: %s", a.name, got)
		}
	}
}

// TestSettle: what a worker needs to come up is gone when it is up.
func TestSettle(t *testing.T) {
	for _, a := range settled {
		for _, after := range []bool{false, true} {
			st := newStage(t)
			st.scene.Settled = after
			c := cell(t, Limits{Files: 64, FileMB: 1})
			got := st.run(t, append([]string{program(t)}, c.Arguments(program(t))...), a.name, true)
			if after == (got == "done" || got == "EFAULT") {
				t.Errorf("%s, after settling %v: %s", a.name, after, got)
			}
		}
	}
}
