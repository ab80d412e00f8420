// Package clock runs a program whose wall clock is not the machine's: it is any
// time apart from it, it can be turned while the program runs, and the kernel says
// of it what the test wants, synchronised or not. Only that program notices; what
// it starts has the machine's clock again.
//
// The program is unchanged. Go programs ask for the time by the kernel's vDSO; its
// clock_gettime is replaced in this one process's copy by a few instructions that
// add an offset. adjtimex is answered by a seccomp filter. Monotonic and boot time
// stay what they are.
//
// Linux on amd64 only; Set fails elsewhere.
package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Clock is the wall clock of one running program.
type Clock struct {
	pid int
	at  int64 // address of the offset
}

// Start starts a command with a clock that is off by offset. The caller waits for
// the command as usual. The command's SysProcAttr may be set; Ptrace is set here.
func Start(cmd *exec.Cmd, offset time.Duration, synchronised bool) (*Clock, error) {
	var c *Clock
	done := make(chan error, 1)
	go func() {
		// The filter and the tracer belong to this thread, which ends with the
		// goroutine.
		runtime.LockOSThread()
		var err error
		c, err = start(cmd, offset, synchronised)
		done <- err
	}()
	err := <-done
	return c, err
}

func start(cmd *exec.Cmd, offset time.Duration, synchronised bool) (*Clock, error) {
	if code == nil {
		return nil, fmt.Errorf("no clock can be set on %s", runtime.GOARCH)
	}
	if err := answerAdjtimex(synchronised); err != nil {
		return nil, fmt.Errorf("answer adjtimex: %w", err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	_, err := unix.Wait4(pid, &ws, 0, nil)
	if err == nil && !ws.Stopped() {
		err = errors.New("it has ended")
	}
	c := &Clock{pid: pid}
	if err == nil {
		err = c.patch(offset)
	}
	if err == nil {
		err = unix.PtraceDetach(pid)
	}
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		return nil, fmt.Errorf("set the clock of %s: %w", cmd.Path, errors.Join(err, cmd.Wait()))
	}
	return c, nil
}

// Turn makes the program's clock jump: it is off by offset from now on.
func (c *Clock) Turn(offset time.Duration) error {
	mem, err := c.memory()
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(seconds(offset), c.at)
	return err
}

func seconds(d time.Duration) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(int64(d/time.Second)))
}

func (c *Clock) memory() (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
}

// patch replaces clock_gettime in a program that is about to begin.
func (c *Clock) patch(offset time.Duration) error {
	auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", c.pid))
	if err != nil {
		return err
	}
	const sysinfoEhdr = 33 // AT_SYSINFO_EHDR: where the vDSO is
	base := int64(0)
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.LittleEndian.Uint64(auxv) == sysinfoEhdr {
			base = int64(binary.LittleEndian.Uint64(auxv[8:]))
		}
	}
	if base == 0 {
		return errors.New("there is no vDSO")
	}
	mem, err := c.memory()
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, 2*os.Getpagesize())
	n, err := mem.ReadAt(image, base)
	if n == 0 {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(image[:n]))
	if err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name != symbol {
			continue
		}
		if s.Size < uint64(len(code)+8) {
			return fmt.Errorf("%s has only %d bytes", symbol, s.Size)
		}
		at := base + int64(s.Value)
		c.at = at + int64(len(code))
		_, err := mem.WriteAt(append(bytes.Clone(code), seconds(offset)...), at)
		return err
	}
	return fmt.Errorf("the vDSO has no %s", symbol)
}

// answerAdjtimex has the kernel answer adjtimex in this thread, and in what it
// starts, without looking: with 0, which is a clock that is right, or with EPERM.
func answerAdjtimex(synchronised bool) error {
	answer := uint32(unix.SECCOMP_RET_ERRNO)
	if !synchronised {
		answer |= uint32(unix.EPERM)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_ADJTIMEX, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: answer},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}
