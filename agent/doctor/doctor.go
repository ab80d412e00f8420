// Package doctor looks for what will keep a device from running models.
package doctor

import (
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/mod/semver"
	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/bond"
	"github.com/dunlin-edge/dunlin/agent/facts"
	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
	"github.com/dunlin-edge/dunlin/agent/wipe"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Grades of a Finding.
const (
	OK   = "ok"
	Warn = "warn" // works, with less
	Fail = "fail" // will not work
)

// Finding is one thing that doctor looked at.
type Finding struct {
	Check string `json:"check"`
	Grade string `json:"grade"`
	Found string `json:"found"`
	Next  string `json:"next,omitempty"` // what to do about it
}

// lowest glibc that the official runtime loads with, by architecture.
var glibcFloor = map[string]string{"amd64": "2.27", "arm64": "2.34"}

// Look looks for what will keep this device from running models, before and
// after enrolment. It changes nothing.
func Look(c agent.Config) []Finding {
	return []Finding{
		checkArch(runtime.GOARCH),
		checkUserland("/bin/sh"),
		checkLibc(runtime.GOARCH, facts.LibC()),
		checkWorker(c.Worker),
		checkState(c.State),
		checkMemory(),
		checkListen(c),
		checkCPUInfo(),
		checkSandbox(sandbox.Kernel()),
		checkClock(),
		checkIdentity(c, time.Now()),
	}
}

func checkArch(arch string) Finding {
	if glibcFloor[arch] == "" {
		return Finding{"architecture", Fail, arch, "use a 64-bit x86 or ARM system: the runtime is published for amd64 and arm64 only"}
	}
	return Finding{"architecture", OK, arch, ""}
}

// checkUserland finds a 32-bit userland under a 64-bit kernel by the class of an
// ordinary program.
func checkUserland(program string) Finding {
	f, err := elf.Open(program)
	if err != nil {
		return Finding{"userland", Warn, "cannot tell: " + err.Error(), "make sure that the userland is 64-bit"}
	}
	defer f.Close()
	if f.Class != elf.ELFCLASS64 {
		return Finding{"userland", Fail, "32-bit", "install a 64-bit image: the worker and the runtime need 64-bit libraries"}
	}
	return Finding{"userland", OK, "64-bit", ""}
}

func checkLibc(arch, version string) Finding {
	floor := glibcFloor[arch]
	switch {
	case version == "none":
		return Finding{"C library", Fail, "no glibc", "use a distribution with glibc " + floor + " or newer; musl cannot load the runtime"}
	case floor != "" && semver.Compare("v"+version, "v"+floor) < 0:
		return Finding{"C library", Fail, "glibc " + version, "the runtime needs glibc " + floor + " on " + arch + ": use Debian 12, Ubuntu 22.04, JetPack 6 or newer"}
	}
	return Finding{"C library", OK, "glibc " + version, ""}
}

func checkWorker(path string) Finding {
	const install = "install dunlin-infer or set 'worker' in the configuration"
	file, err := os.Open(path)
	if err != nil {
		return Finding{"worker", Fail, err.Error(), install}
	}
	defer file.Close()
	var head [2]byte
	if _, err := file.ReadAt(head[:], 0); err == nil && string(head[:]) == "#!" {
		return Finding{"worker", Warn, path + " is a script", "make sure that it starts dunlin-infer of this architecture"}
	}
	f, err := elf.NewFile(file)
	if err != nil {
		return Finding{"worker", Fail, path + " is not a program", install}
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Machine != want {
		return Finding{"worker", Fail, fmt.Sprintf("%s is built for %v", path, f.Machine), "install the worker of this architecture"}
	}
	return Finding{"worker", OK, path, ""}
}

// checkSandbox looks at what the kernel gives; what the agent's user and unit give
// is in its status.
func checkSandbox(layers []sandbox.Layer) Finding {
	f := Finding{Check: "sandbox", Grade: OK}
	var found []string
	for _, l := range layers {
		if !l.Have {
			f.Grade, f.Next = Warn, "use a kernel with Landlock (5.13, lsm=…,landlock) and seccomp: without them a hostile model reaches more of this device"
		}
		found = append(found, strings.TrimSpace(l.Name+" "+l.Detail))
	}
	f.Found = strings.Join(found, "; ")
	return f
}

// minDiskMB is room for two places of a small model with their runtimes.
const minDiskMB = 100

func checkState(dir string) Finding {
	at := dir
	for {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) || at == "/" {
			break
		}
		at = filepath.Dir(at)
	}
	if err := unix.Access(at, unix.W_OK); err != nil {
		return Finding{"state directory", Fail, dir + ": not writable", "run the agent as a user that may write there, or set 'state'"}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return Finding{"state directory", Warn, err.Error(), "make sure that there is room"}
	}
	free := fs.Bavail * uint64(fs.Bsize) >> 20
	if free < minDiskMB {
		return Finding{"state directory", Fail, fmt.Sprintf("%s: %d MB free", dir, free), fmt.Sprintf("make at least %d MB free", minDiskMB)}
	}
	return Finding{"state directory", OK, fmt.Sprintf("%s: %d MB free", dir, free), ""}
}

func checkMemory() Finding {
	m, err := mem.VirtualMemory()
	if err != nil {
		return Finding{"memory", Warn, err.Error(), "make sure that /proc is mounted"}
	}
	found := fmt.Sprintf("%d MB, %d MB available", m.Total>>20, m.Available>>20)
	if m.Available < 64<<20 {
		return Finding{"memory", Warn, found, "stop something else: proving runs a second worker beside the first"}
	}
	return Finding{"memory", OK, found, ""}
}

func checkListen(c agent.Config) Finding {
	if c.Listen == "" {
		return Finding{"inference address", OK, "unix socket only", ""}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err == nil {
		l.Close()
		return Finding{"inference address", OK, c.Listen, ""}
	}
	if conn, dialErr := net.Dial("unix", c.AgentSocket()); dialErr == nil {
		conn.Close()
		return Finding{"inference address", OK, c.Listen + ": the agent is running", ""}
	}
	return Finding{"inference address", Fail, err.Error(), "set 'listen' to a free loopback address"}
}

func checkCPUInfo() Finding {
	if _, err := os.ReadFile("/proc/cpuinfo"); err != nil {
		return Finding{"/proc/cpuinfo", Fail, err.Error(), "mount /proc: the runtime reads it to choose its kernels"}
	}
	return Finding{"/proc/cpuinfo", OK, "readable", ""}
}

func checkClock() Finding {
	var t unix.Timex
	st, err := unix.Adjtimex(&t)
	if err != nil || st == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return Finding{"clock", Warn, "not synchronised", "none needed: the agent trusts signed time until the clock is synchronised"}
	}
	return Finding{"clock", OK, "synchronised", ""}
}

// checkIdentity looks at the identity on disk by the system's clock, which may be
// wrong: the agent itself goes by trusted time.
func checkIdentity(c agent.Config, now time.Time) Finding {
	if begun, err := wipe.Begun(durable.OS{}, c.State); err != nil || begun {
		return Finding{"identity", Warn, "a reset was interrupted", "dunlin-agent reset --yes"}
	}
	id, err := identity.Load(durable.OS{}, filepath.Join(c.State, "identity"))
	switch {
	case errors.Is(err, identity.ErrNotEnrolled):
		return Finding{"identity", Warn, "not enrolled", "dunlin-agent enroll --token TOKEN"}
	case err != nil:
		return Finding{"identity", Fail, err.Error(), "wipe it with 'dunlin-agent reset --yes' and enrol again with a token of 'dunlin device replace'"}
	}
	r := id.Renewal()
	left := bond.DaysLeft(r.Expires, now)
	found := fmt.Sprintf("%s, certificate until %s, %d days left", id.Device, r.Expires.UTC().Format(time.DateOnly), left)
	switch {
	case !now.Before(r.Expires):
		return Finding{"identity", Warn, found, "run the agent where it reaches the server: it renews by itself; after 30 days an operator accepts it with 'dunlin device accept " + id.Device + "'"}
	case now.After(r.Expires.Add(-r.Expires.Sub(r.From) / 6)):
		return Finding{"identity", Warn, found, "it should have been renewed: look at 'dunlin-agent status' and whether " + id.Way().Server + " can be reached"}
	}
	return Finding{"identity", OK, found, ""}
}
