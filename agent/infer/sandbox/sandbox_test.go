package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Words that make the test's own program something else.
const (
	wordShow = "show"    // a worker that shows what it got and waits
	wordTry  = "attempt" // a worker that tries something forbidden
	wordOnly = "only"    // the launcher with some of its layers
	wordUnit = "unit"    // the launcher below what the shipped unit forbids it
)

// The test's own program is the launcher, and the worker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Word:
			os.Exit(Main(os.Args[2:]))
		case wordOnly:
			os.Exit(launchWith(strings.Split(os.Args[2], ","), os.Args[3:]))
		case wordUnit:
			os.Exit(launchInUnit(os.Args[2:]))
		case wordShow:
			show()
			os.Exit(0)
		case wordTry:
			os.Exit(try(os.Args[2], os.Args[3]))
		}
	}
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// built is this test's program as the agent and its workers are built: static, and
// without the race detector, which needs what no worker gets.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// program returns its path: a launcher and a worker. It lies in a folder that is
// closed to the worker's user, as on devices.
func program(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "dunlin-sandbox-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "worker")
		c := exec.Command("go", "test", "-c", "-vet=off", "-o", built.path, ".")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the worker: %w: %s", err, out)
		}
	})
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return built.path
}

// shown is what a worker sees of itself.
type shown struct {
	Args, Env []string
	Limits    map[string]unix.Rlimit
}

func show() {
	s := shown{Args: os.Args[2:], Env: os.Environ(), Limits: map[string]unix.Rlimit{}}
	for _, b := range bounds {
		var l unix.Rlimit
		unix.Prlimit(0, b.resource, nil, &l)
		s.Limits[b.name] = l
	}
	json.NewEncoder(os.Stdout).Encode(s)
	io.Copy(io.Discard, os.Stdin)
}

// cell is one of this machine that is closed with the test.
func cell(t *testing.T, l Limits) *Cell {
	t.Helper()
	c, err := Probe().Cell(l, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestWorkerGetsLittle looks at a live worker from inside and from outside.
func TestWorkerGetsLittle(t *testing.T) {
	host := Probe()
	c, err := host.Cell(Limits{DataMB: 300, Files: 40, Threads: 60}, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), c.Arguments(program(t), wordShow, "an argument")...)
	cmd.Env = append(os.Environ(), "SECRET=1", "LD_PRELOAD=", "QEMU_LD_PREFIX=/sysroot")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	var s shown
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(&s); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	status, groups := read(t, proc+"status"), read(t, proc+"cgroup")
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	c.Close()

	for name, want := range map[string]uint64{"no_core": 0, "files": 40, "data": 300 << 20, "file_size": 0, "locked_memory": 0} {
		if l := s.Limits[name]; l.Cur != want || l.Max != want {
			t.Errorf("limit %s: %+v, want %d", name, l, want)
		}
	}
	if got := strings.Join(s.Env, " "); got != "GOMAXPROCS=2 QEMU_LD_PREFIX=/sysroot" {
		t.Errorf("environment %q", got)
	}
	if len(s.Args) != 1 || s.Args[0] != "an argument" {
		t.Errorf("arguments %q", s.Args)
	}
	id := fmt.Sprint(firstUser + cmd.Process.Pid)
	for what, want := range map[string]struct {
		line   string
		wanted bool
	}{
		"no new privileges": {"NoNewPrivs:\t1", true},
		"no capabilities":   {"CapPrm:\t0000000000000000\nCapEff:\t0000000000000000", true},
		"no inheritable":    {"CapInh:\t0000000000000000", true},
		"nothing to gain":   {"CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000", host.noUser == nil},
		"own user":          {"Uid:\t" + strings.Join([]string{id, id, id, id}, "\t"), host.noUser == nil},
		"own group":         {"Gid:\t" + strings.Join([]string{id, id, id, id}, "\t"), host.noUser == nil},
		"no groups":         {"Groups:\t \n", host.noUser == nil},
		"filtered":          {"Seccomp:\t2", host.seccomp},
	} {
		if want.wanted && !strings.Contains(status, want.line) {
			t.Errorf("%s: not so:\n%s", what, status)
		}
	}
	if host.groups != nil && strings.Count(groups, groupPrefix) < len(host.groups.bases) {
		t.Errorf("groups of the worker:\n%s", groups)
	}
	for _, dir := range c.groups {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays: %v", dir, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRefusals: a launcher that cannot do its work does not become the worker, and
// says which layer it was.
func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		layer string
	}{
		"no arguments":   {[]string{Word}, "arguments"},
		"no worker":      {[]string{Word, "{}"}, "arguments"},
		"no plan":        {[]string{Word, "much", "/bin/true"}, "arguments"},
		"missing worker": {cell(t, Limits{}).Arguments("/nonexistent/worker"), "exec"},
		"missing group":  {[]string{Word, `{"groups":["/nonexistent/group"]}`, "/bin/true"}, "cgroup"},
		"no library":     {[]string{Word, `{"library":77}`, "/bin/true"}, "landlock"},
	} {
		var out, errs bytes.Buffer
		c := exec.Command(program(t), tt.args...)
		c.Stdout, c.Stderr = &out, &errs
		c.Run()
		var l Layer
		if err := json.Unmarshal(errs.Bytes(), &l); err != nil || c.ProcessState.ExitCode() != 126 || out.Len() > 0 || l.Have || l.Name != tt.layer || l.Detail == "" {
			t.Errorf("%s: code %d, %q, %v", name, c.ProcessState.ExitCode(), errs.String(), err)
		}
	}
}

// TestPosture: a layer that is missing has a reason, and what this kernel can do
// is told as what it can do.
func TestPosture(t *testing.T) {
	everywhere := map[string]bool{"no_core": true, "files": true, "data": true, "file_size": true, "locked_memory": true}
	full := &Host{abi: 7, seccomp: true, groups: &groups{version: 2}}
	bare := &Host{noUser: errors.New("not root"), noGroups: errors.New("not given")}
	for _, tt := range []struct {
		name            string
		host            *Host
		withoutLauncher bool
		have            bool // of what the kernel or the launcher must give
	}{{"full", full, false, true}, {"bare", bare, false, false}, {"emulated", full, true, false}} {
		names := map[string]bool{}
		for _, l := range tt.host.Posture(tt.withoutLauncher) {
			names[l.Name] = true
			if want := everywhere[l.Name] || tt.have || l.Name == "no_new_privs" && !tt.withoutLauncher; l.Have != want {
				t.Errorf("%s: %+v, want %v", tt.name, l, want)
			}
			if !l.Have && l.Detail == "" {
				t.Errorf("%s: %s is missing without a reason", tt.name, l.Name)
			}
		}
		for _, n := range []string{"no_new_privs", "own_user", "cgroup", "landlock", "seccomp"} {
			if !names[n] {
				t.Errorf("%s: %s is not told", tt.name, n)
			}
		}
	}
	if d := landlockDetail(2); d != "abi 2, not truncate, not tcp, not device ioctl, not signals and abstract sockets" {
		t.Error(d)
	}
}

// TestLayersOfKernels: each Landlock is asked for what it knows, no more.
func TestLayersOfKernels(t *testing.T) {
	for abi, want := range map[int]struct {
		files, net, scoped uint64
		size               uintptr
	}{
		1: {0x1fff, 0, 0, 8}, 2: {0x3fff, 0, 0, 8}, 3: {0x7fff, 0, 0, 8}, 4: {0x7fff, 3, 0, 16},
		5: {0xffff, 3, 0, 16}, 6: {0xffff, 3, 3, 24}, 7: {0xffff, 3, 3, 24}, 9: {0xffff, 3, 3, 24},
	} {
		a, size := ruleset(abi)
		if a.Handled_access_fs != want.files || a.Handled_access_net != want.net || a.Scoped != want.scoped || size != want.size {
			t.Errorf("abi %d: %+v of %d bytes", abi, a, size)
		}
	}
}

// TestGroups on a version 2 tree of plain files: where the agent goes, what is
// written, what is refused.
func TestGroups(t *testing.T) {
	tree := func(controllers, procs string) (proc, own string) {
		dir := t.TempDir()
		own = filepath.Join(dir, "tree", "system.slice", "dunlin-agent.service")
		for path, text := range map[string]string{
			filepath.Join(dir, "proc", "cgroup"):                  "0::/system.slice/dunlin-agent.service\n",
			filepath.Join(dir, "proc", "mountinfo"):               "33 24 0:27 / " + filepath.Join(dir, "tree") + " rw - cgroup2 cgroup2 rw\n",
			filepath.Join(own, "cgroup.controllers"):              controllers,
			filepath.Join(own, "cgroup.procs"):                    procs,
			filepath.Join(own, "cgroup.subtree_control"):          "",
			filepath.Join(own, agentGroup, "cgroup.procs"):        "",
			filepath.Join(own, groupPrefix+"999999999-1", "gone"): "",
		} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		os.Remove(filepath.Join(own, groupPrefix+"999999999-1", "gone"))
		return filepath.Join(dir, "proc"), own
	}
	mine := fmt.Sprintln(os.Getpid())
	for name, tt := range map[string]struct{ controllers, procs, want string }{
		"given":           {"cpu memory pids\n", mine, ""},
		"not given":       {"cpu\n", mine, "Delegate="},
		"shared with one": {"memory pids\n", "1\n" + mine, "others"},
	} {
		proc, own := tree(tt.controllers, tt.procs)
		g, err := findGroups(proc)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if g.version != 2 || len(g.bases) != 1 || g.bases[0] != own {
			t.Errorf("%+v, want %s", g, own)
		}
		if read(t, filepath.Join(own, agentGroup, "cgroup.procs")) != "0" || read(t, filepath.Join(own, "cgroup.subtree_control")) != "+memory +pids" {
			t.Error("the agent did not make room")
		}
		if _, err := os.Stat(filepath.Join(own, groupPrefix+"999999999-1")); err == nil {
			t.Error("the group of an agent that is gone stays")
		}
		if _, err := g.make(Limits{}); err != nil {
			t.Error(err)
		}
	}
}

// TestGroupMounts: trees of both versions, mounted apart, together, and seen from a
// container.
func TestGroupMounts(t *testing.T) {
	proc := t.TempDir()
	if err := os.WriteFile(filepath.Join(proc, "mountinfo"), []byte(
		"1 2 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"+
			"1 2 0:1 /docker/x /sys/fs/cgroup/pids rw shared:1 - cgroup cgroup rw,pids,cpu\n"+
			"1 2 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nshort - cgroup2\nnothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := groupMounts(proc)
	if err != nil {
		t.Fatal(err)
	}
	for controller, want := range map[string]string{"memory": "/sys/fs/cgroup/memory/docker/x/y", "pids": "/sys/fs/cgroup/pids/y", "": "/sys/fs/cgroup/unified/docker/x/y"} {
		if got := m[controller].below("/docker/x/y"); got != want {
			t.Errorf("%q: %s, want %s", controller, got, want)
		}
	}
}
