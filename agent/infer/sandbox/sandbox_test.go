package sandbox

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The test's own program is the launcher, and the worker that shows what it got.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Word {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func launch(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Env = append(os.Environ(), "SECRET=1", "LD_PRELOAD=", "QEMU_LD_PREFIX=/sysroot")
	if err := c.Run(); c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func TestWorkerGetsLittle(t *testing.T) {
	out, errs, code := launch(t, Arguments(Limits{DataMB: 300, Files: 40}, "/bin/sh", "-c", "ulimit -c; ulimit -n; ulimit -d; grep NoNewPrivs /proc/self/status; env; echo $1", "sh", "an argument")...)
	if code != 0 {
		t.Fatal(code, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := []string{"0", "40", "307200", "NoNewPrivs:\t1"}
	for i, w := range want {
		if i >= len(lines) || lines[i] != w {
			t.Fatalf("%q, want %q first", lines, want)
		}
	}
	if strings.Contains(out, "SECRET") || !strings.Contains(out, "GOMAXPROCS=2") || lines[len(lines)-1] != "an argument" {
		t.Errorf("environment or arguments: %q", lines)
	}
}

func TestFilesHaveALeast(t *testing.T) {
	if out, _, _ := launch(t, Arguments(Limits{}, "/bin/sh", "-c", "ulimit -n; ulimit -d")...); out != "16\nunlimited\n" {
		t.Errorf("%q", out)
	}
}

// TestRefusals: a launcher that cannot do its work does not become the worker.
func TestRefusals(t *testing.T) {
	for name, args := range map[string][]string{
		"no arguments":   {Word},
		"no worker":      {Word, "1", "2"},
		"no numbers":     {Word, "much", "many", "/bin/true"},
		"missing worker": Arguments(Limits{}, "/nonexistent/worker"),
	} {
		out, errs, code := launch(t, args...)
		var l Layer
		if err := json.Unmarshal([]byte(errs), &l); code != 126 || out != "" || err != nil || l.Have || l.Name == "" || l.Detail == "" {
			t.Errorf("%s: code %d, %q, %v", name, code, errs, err)
		}
	}
}

func TestPosture(t *testing.T) {
	for _, l := range Posture(true) {
		if l.Name == "no_new_privs" && (l.Have || l.Detail == "") {
			t.Errorf("without launcher: %+v", l)
		}
	}
	have := map[string]bool{}
	for _, l := range Posture(false) {
		if !l.Have && l.Detail == "" {
			t.Errorf("%s is missing without a reason", l.Name)
		}
		have[l.Name] = l.Have
	}
	for _, name := range []string{"no_new_privs", "no_core", "files", "data"} {
		if !have[name] {
			t.Errorf("%s is not told", name)
		}
	}
	for _, name := range []string{"landlock", "seccomp", "cgroup"} {
		if h, told := have[name]; h || !told {
			t.Errorf("%s: have %v, told %v", name, h, told)
		}
	}
}
