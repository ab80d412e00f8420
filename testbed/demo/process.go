package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// processes are everything that the demo started; all of them end with it,
// whatever happens.
type processes struct {
	mu  sync.Mutex
	all []*process
}

// process is one running program in a process group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done
	log  string
}

// start runs a program with its output in a file.
func (ps *processes) start(name, logPath string, env []string, bin string, args ...string) (*process, error) {
	return ps.startIn(syscall.SysProcAttr{}, name, logPath, env, bin, args...)
}

// startIn is start with namespaces.
func (ps *processes) startIn(attr syscall.SysProcAttr, name, logPath string, env []string, bin string, args ...string) (*process, error) {
	f, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	// A group of its own takes Ctrl-C to the demo alone; the death signal
	// takes the program down with a demo that is killed.
	attr.Setpgid, attr.Pdeathsig = true, syscall.SIGKILL
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{}), log: logPath}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	ps.mu.Lock()
	ps.all = append(ps.all, p)
	ps.mu.Unlock()
	return p, nil
}

// kill ends the process and all that it started with SIGKILL and waits for it.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stopGrace is how long a program has to end by itself.
const stopGrace = 5 * time.Second

// stop ends every process, newest first: politely, then not.
func (ps *processes) stop() {
	ps.mu.Lock()
	all := ps.all
	ps.all = nil
	ps.mu.Unlock()
	for i := len(all) - 1; i >= 0; i-- {
		syscall.Kill(-all[i].cmd.Process.Pid, syscall.SIGTERM)
	}
	deadline := time.After(stopGrace)
	for _, p := range all {
		select {
		case <-p.done:
		case <-deadline:
			deadline = time.After(0)
		}
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// shell runs command line tools in the demo's environment and shows what it runs.
type shell struct {
	out io.Writer
	bin string
	env []string
}

// errCommand is wrapped by the error of a command that exited with another code
// than 0.
var errCommand = errors.New("command ended badly")

// run shows and runs a command; its output is indented below it.
func (s *shell) run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	fmt.Fprintf(s.out, "  $ %s %s\n", name, strings.Join(quoted(args), " "))
	out, err := s.quiet(ctx, env, name, args...)
	for line := range strings.Lines(out) {
		fmt.Fprintf(s.out, "    %s\n", strings.TrimRight(line, "\n"))
	}
	return out, err
}

// quiet runs a command without showing it.
func (s *shell) quiet(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Env = append(append(os.Environ(), s.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return out.String() + errs.String(), fmt.Errorf("%s %s: %w: %v", name, strings.Join(args, " "), errCommand, err)
	}
	return out.String(), nil
}

func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if len(a) > 60 {
			a = a[:24] + "…"
		}
		if strings.ContainsAny(a, " *<>|&;$") || a == "" {
			a = "'" + a + "'"
		}
		out[i] = a
	}
	return out
}
