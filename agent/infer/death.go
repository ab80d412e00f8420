package infer

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

// Reasons of a Death.
const (
	reasonCrash     = "crash"               // the runtime or the model crashed
	reasonIllegal   = "illegal_instruction" // the library is for another processor
	reasonMemory    = "out_of_memory"       // it wanted more than its limit, or the system had none left
	reasonKilled    = "killed"              // by somebody else
	reasonSignal    = "signal"              // another signal
	reasonDeadline  = "deadline"            // a run, the start or the next sign of life took too long
	reasonOutput    = "bad_output"          // it answered what nobody asked
	reasonForbidden = "forbidden"           // the sandbox ended it for what it tried
	reasonSandbox   = "sandbox"             // the launcher could not take its rights away
	reasonStart     = "start"               // it gave up while it started
	reasonStopped   = "stopped"             // we ended it
)

// Death is why a worker is gone.
type Death struct {
	Reason string // one of the reasons above
	Detail string
	Words  string // the last of its standard error
}

// Error implements error.
func (d *Death) Error() string {
	s := "the worker is gone (" + d.Reason + "): " + d.Detail
	for line := range strings.Lines(d.Words) {
		// The runtime chats at the start.
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "INFO:") && !strings.HasPrefix(line, "WARNING:") {
			return s + ": " + line
		}
	}
	return s
}

// blameless tells that no request can have caused it.
func (d *Death) blameless() bool { return d.Reason == reasonKilled || d.Reason == reasonStopped }

// reason reads how a process ended and what it said last. A crash in C ends a Go
// program with exit code 2 and a dump, not with a signal. starved: the system
// ended a process for want of memory while this one lived.
func reason(p *os.ProcessState, words string, starved bool) *Death {
	ws, _ := p.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled() && ws.Signal() == syscall.SIGKILL && starved:
		return &Death{Reason: reasonMemory, Detail: "the system had no memory left and ended it"}
	case ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return &Death{Reason: reasonKilled, Detail: "somebody killed it"}
	case ws.Signaled() && ws.Signal() == syscall.SIGILL:
		return &Death{Reason: reasonIllegal, Detail: illegal}
	case ws.Signaled() && ws.Signal() == syscall.SIGSYS:
		return &Death{Reason: reasonForbidden, Detail: "it made a system call that no worker has a reason for"}
	case ws.Signaled():
		return &Death{Reason: reasonSignal, Detail: ws.Signal().String()}
	case p.ExitCode() == 2:
		return crash(words)
	case p.ExitCode() == 126:
		return &Death{Reason: reasonSandbox, Detail: refusedLayer(words)}
	case p.ExitCode() != 0:
		return &Death{Reason: reasonStart, Detail: p.String()}
	}
	return &Death{Reason: reasonStopped, Detail: "it ended"}
}

const illegal = "it used an instruction that this processor does not have"

// crash tells crashes in C apart by the dump.
func crash(words string) *Death {
	switch {
	case strings.Contains(words, "SIGILL: illegal instruction"):
		return &Death{Reason: reasonIllegal, Detail: illegal}
	case strings.Contains(words, "std::bad_alloc"), strings.Contains(words, "out of memory"), strings.Contains(words, "cannot allocate memory"):
		return &Death{Reason: reasonMemory, Detail: "it wanted more memory than it may have"}
	}
	return &Death{Reason: reasonCrash, Detail: "the runtime crashed"}
}

// refusedLayer is what the launcher said.
func refusedLayer(words string) string {
	for line := range strings.Lines(words) {
		var l sandbox.Layer
		if json.Unmarshal([]byte(line), &l) == nil && l.Name != "" {
			return "layer " + l.Name + " could not be made: " + l.Detail
		}
	}
	return "it could not be made"
}

// oomKills is how many processes the system has ended for want of memory, 0 when
// it does not tell. See proc(5), /proc/vmstat.
func oomKills() uint64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, after, ok := bytes.Cut(b, []byte("\noom_kill "))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, err := strconv.ParseUint(string(line), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// maxWords bounds the last words of a worker.
const maxWords = 8 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p)
	if over := t.b.Len() - maxWords; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
