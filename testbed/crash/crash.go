// Package crash runs a program under ptrace, sees every system call by which it
// changes files, over all its threads with one count, and can kill it in front of
// any of them. What it sees does not depend on labels or hooks in the program.
//
// A killed process loses its memory, not what it wrote: the page cache stays. So
// this finds wrong orders and half-done work; lost writes are crashfs's part.
//
// Linux only. Several runs may go on at the same time in one process.
package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to be run under the tracer.
type Command struct {
	Path string   // of a static or dynamic executable
	Args []string // without the program's name
	Env  []string // nil: this process's
	// Under are directories, absolute and without symbolic links: only calls
	// that change something below one of them count. Empty: all count.
	Under          []string
	Stdout, Stderr *os.File // nil: /dev/null
	// Grace is how long the program may take to end after SIGTERM when the
	// context ends; then it is killed. 10 s when 0.
	Grace time.Duration
}

// Point is one system call that changes files.
type Point struct {
	Number  int    // from 1
	Syscall string // "fsync", "renameat", …
	Path    string // of the file, or the new name of a rename or link
}

// String implements fmt.Stringer.
func (p Point) String() string { return fmt.Sprintf("%d %s %s", p.Number, p.Syscall, p.Path) }

// Result is how a run went.
type Result struct {
	Points []Point // in order, the one that was killed at last
	Killed bool    // by the tracer, in front of the last point
	Exit   int     // exit status; -1 after a signal
	Signal syscall.Signal
}

// Count runs the command to its end, or until ctx ends, and lists its points.
func Count(ctx context.Context, c Command) ([]Point, error) {
	r, err := Run(ctx, c, 0)
	if err == nil && (r.Exit != 0 || r.Killed) {
		err = fmt.Errorf("run %s: exit status %d, signal %v", c.Path, r.Exit, r.Signal)
	}
	return r.Points, err
}

// Run runs the command and kills it, and the processes of its group, in front of
// point number at; 0: never. When the program ends before, Killed is false. When
// ctx ends the program gets SIGTERM, and SIGKILL after Grace.
func Run(ctx context.Context, c Command, at int) (r Result, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// ptrace belongs to a thread; it ends with the goroutine, so that no
		// other one inherits tracees.
		runtime.LockOSThread()
		r, err = (&tracer{c: c, at: at, threads: map[int]*thread{}}).run(ctx)
	}()
	<-done
	return r, err
}

// tracer is one run. It lives on one thread.
type tracer struct {
	c       Command
	at      int
	pid     int
	threads map[int]*thread
	r       Result
}

// thread is what is known of one traced thread.
type thread struct{ inside bool } // a system call

func (t *tracer) run(ctx context.Context) (Result, error) {
	cmd := exec.Command(t.c.Path, t.c.Args...)
	cmd.Env = t.c.Env
	if t.c.Stdout != nil {
		cmd.Stdout = t.c.Stdout
	}
	if t.c.Stderr != nil {
		cmd.Stderr = t.c.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return t.r, fmt.Errorf("start %s: %w", t.c.Path, err)
	}
	t.pid = cmd.Process.Pid
	// Not Wait: the tracer collects the process itself.
	defer cmd.Process.Release()
	var ws unix.WaitStatus
	if _, err := wait(t.pid, &ws); err != nil {
		return t.r, fmt.Errorf("trace %s: %w", t.c.Path, err)
	}
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		t.kill()
		return t.r, fmt.Errorf("trace %s: %w", t.c.Path, err)
	}
	stopped := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		t.stopOn(ctx, stopped)
	}()
	err := t.loop()
	close(stopped)
	<-watched
	return t.r, err
}

// stopOn ends the program when ctx ends.
func (t *tracer) stopOn(ctx context.Context, stopped <-chan struct{}) {
	select {
	case <-stopped:
		return
	case <-ctx.Done():
	}
	unix.Kill(t.pid, unix.SIGTERM)
	grace := t.c.Grace
	if grace == 0 {
		grace = 10 * time.Second
	}
	select {
	case <-stopped:
	case <-time.After(grace):
		t.kill()
	}
}

// kill takes the program and what it started: a power cut spares nobody.
func (t *tracer) kill() {
	unix.Kill(-t.pid, unix.SIGKILL)
	unix.Kill(t.pid, unix.SIGKILL)
}

// wait waits for one child of this thread, or, when pid is negative, for any
// child or traced thread of a process group: this thread may have started others
// before it became the tracer's, and their parents wait for them.
func wait(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, ws, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// loop drives all threads until the program has ended.
func (t *tracer) loop() error {
	t.threads[t.pid] = &thread{}
	resume(t.pid, 0)
	for {
		var ws unix.WaitStatus
		tid, err := wait(-t.pid, &ws)
		if err != nil {
			return fmt.Errorf("trace %s: %w", t.c.Path, err)
		}
		if ws.Exited() || ws.Signaled() {
			delete(t.threads, tid)
			if tid != t.pid {
				continue
			}
			t.r.Exit, t.r.Signal = ws.ExitStatus(), 0
			if ws.Signaled() {
				t.r.Exit, t.r.Signal = -1, ws.Signal()
			}
			return nil
		}
		if ws.Stopped() {
			t.stop(tid, ws)
		}
	}
}

// stop handles one stop of one thread and lets it go on.
func (t *tracer) stop(tid int, ws unix.WaitStatus) {
	th := t.threads[tid]
	if th == nil { // a new thread, stopped before its first instruction
		th = &thread{}
		t.threads[tid] = th
	}
	signal := 0
	switch s := ws.StopSignal(); s {
	case unix.SIGTRAP | 0x80:
		th.inside = !th.inside
		if th.inside && !t.r.Killed && t.enter(tid) {
			t.r.Killed = true
			t.kill()
			return
		}
	case unix.SIGTRAP, unix.SIGSTOP: // a clone event, a new thread
	default:
		signal = int(s)
	}
	resume(tid, signal)
}

// resume lets a thread run to its next system call. A thread that is being killed
// is gone already; the loop learns of it.
func resume(tid, signal int) { unix.PtraceSyscall(tid, signal) }

// enter looks at a system call that is about to start and tells whether the
// program is to be killed in front of it.
func (t *tracer) enter(tid int) bool {
	number, args, err := syscallInfo(tid)
	if err != nil {
		return false
	}
	call, ok := durabilityCalls[number]
	if !ok {
		return false
	}
	path := call.path(t.pid, args)
	if !t.counts(path) {
		return false
	}
	p := Point{Number: len(t.r.Points) + 1, Syscall: call.name, Path: path}
	t.r.Points = append(t.r.Points, p)
	return p.Number == t.at
}

func (t *tracer) counts(path string) bool {
	for _, dir := range t.c.Under {
		if path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return len(t.c.Under) == 0 && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/proc/")
}
