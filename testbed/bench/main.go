// Command bench prints the numbers to reach, measured on this machine in one run,
// each beside its goal. It runs the demo's fleet, which it ends afterwards.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/litert"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

// row is one line of the table.
type row struct{ what, measured, goal string }

func main() {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Word {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	bin := flag.String("bin", "build/bin", "folder of the programs and the demo")
	out := flag.String("out", "build/bench", "folder for the fleet")
	release := flag.String("release", "build/release", "folder of the arm64 programs")
	goBench := flag.String("go-bench", "", "output of go test -bench")
	others := flag.String("rivals", "", "folder of what testbed/rivals/get has got; without it there is no comparison")
	serving := flag.String("serve", "", "be the serving process, with its socket in this folder")
	only := flag.Bool("only-rivals", false, "leave out everything but the comparison")
	flag.Parse()
	if err := run(*bin, *out, *release, *goBench, *others, *serving, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(bin, out, release, goBench, others, serving string, only bool) error {
	if serving != "" {
		return serve(bin, serving)
	}
	if !only {
		if err := goals(bin, out, release, goBench); err != nil {
			return err
		}
	}
	if others == "" {
		return nil
	}
	return rivals(bin, others, os.Stdout)
}

// goals prints the table of the numbers to reach.
func goals(bin, out, release, goBench string) error {
	rows, err := measure(bin, out, release, goBench)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tHERE\tGOAL")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.what, r.measured, r.goal)
	}
	return w.Flush()
}

func measure(bin, out, release, goBench string) ([]row, error) {
	f, err := startFleet(bin, out)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	var rows []row
	for _, m := range []func() ([]row, error){f.memory, f.latency, f.rollout, func() ([]row, error) { return goBenchmarks(goBench) }, func() ([]row, error) { return sizes(release) }} {
		r, err := m()
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

// fleet is the demo's, standing after its story.
type fleet struct {
	bin, out string
	cmd      *exec.Cmd
	done     chan error
	up       struct {
		Devices []struct {
			Device, HTTP, Socket, Config string
			PID                          int
		}
	}
}

const storyTime = 4 * time.Minute

func startFleet(bin, out string) (*fleet, error) {
	f := &fleet{bin: bin, out: out, done: make(chan error, 1)}
	os.Remove(filepath.Join(out, "running.json"))
	f.cmd = exec.Command(filepath.Join(bin, "demo"), "-bin", bin, "-out", out)
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	f.cmd.Stdout, f.cmd.Stderr = &log, &log
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { f.done <- f.cmd.Wait() }()
	deadline := time.After(storyTime)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-f.done:
			return nil, fmt.Errorf("the demo ended (%v):\n%s", err, log.Bytes())
		case <-deadline:
			f.stop()
			return nil, fmt.Errorf("the demo took longer than %v", storyTime)
		case <-tick.C:
		}
		b, err := os.ReadFile(filepath.Join(out, "running.json"))
		if err == nil && json.Unmarshal(b, &f.up) == nil {
			return f, nil
		}
	}
}

func (f *fleet) stop() {
	f.cmd.Process.Signal(syscall.SIGTERM)
	<-f.done
}

// memory is the proportional set size of agents and workers without requests.
func (f *fleet) memory() ([]row, error) {
	var agents, workers []float64
	for _, d := range f.up.Devices {
		p, err := pss(d.PID)
		if err != nil {
			return nil, err
		}
		agents = append(agents, p)
		text, err := exec.Command(filepath.Join(f.bin, "dunlin-agent"), "status", "-o", "json", "--config", d.Config).Output()
		if err != nil {
			return nil, err
		}
		var s struct{ Models []struct{ PID int } }
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, err
		}
		for _, m := range s.Models {
			if p, err = pss(m.PID); err != nil {
				return nil, err
			}
			workers = append(workers, p)
		}
	}
	return []row{
		{"agent idle memory, PSS, median of 6", fmt.Sprintf("%.1f MB", median(agents)), "<= 15 MB"},
		{"worker memory with a 96 kB model, PSS, median of 6", fmt.Sprintf("%.1f MB", median(workers)), "<= 12 MB beyond the model"},
	}, nil
}

func pss(pid int) (float64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no PSS of process %d", pid)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

const (
	requests = 3000
	model    = "testbed/models/digits/1.1.0/model.tflite"
)

// latency alternates a request over the unix socket with a run of the same model
// in this process.
func (f *fleet) latency() ([]row, error) {
	run, err := direct(model)
	if err != nil {
		return nil, err
	}
	ask, hangUp, err := client(f.up.Devices[0].Socket)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	var over, own []float64
	for i := range requests + 100 {
		began := time.Now()
		if err := ask(); err != nil {
			return nil, err
		}
		took := micros(began)
		began = time.Now()
		if err := run(); err != nil {
			return nil, err
		}
		if i >= 100 { // after warming up
			over, own = append(over, took), append(own, micros(began))
		}
	}
	slices.Sort(over)
	slices.Sort(own)
	at := func(v []float64, p int) float64 { return v[len(v)*p/100] }
	return []row{
		{"request over HTTP on the unix socket, p50 / p99", fmt.Sprintf("%.0f / %.0f us", at(over, 50), at(over, 99)), ""},
		{"the runtime's own run of the same model, p50 / p99", fmt.Sprintf("%.0f / %.0f us", at(own, 50), at(own, 99)), ""},
		{"added, p50 / p99", fmt.Sprintf("%.0f / %.0f us", at(over, 50)-at(own, 50), at(over, 99)-at(own, 99)), "<= 150 us p50"},
	}, nil
}

// client keeps one connection and writes and reads it without goroutines of its
// own, so that what is measured is the agent.
func client(socket string) (ask func() error, hangUp func() error, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	data := strings.TrimSuffix(strings.Repeat("0.5,", 64), ",")
	body := `{"inputs":[{"name":"image","shape":[1,8,8,1],"datatype":"FP32","data":[` + data + `]}]}`
	request := fmt.Appendf(nil, "POST /v2/models/meter-digits/infer HTTP/1.1\r\nHost: device\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	answers := bufio.NewReader(conn)
	return func() error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("request: %s", resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}, conn.Close, nil
}

func micros(since time.Time) float64 { return float64(time.Since(since).Nanoseconds()) / 1000 }

// direct loads a model into this process.
func direct(path string) (func() error, error) {
	lib, err := litert.Open("build/runtime/litert-2.3.0/" + runtime.GOARCH + "/libLiteRt.so")
	if err != nil {
		return nil, err
	}
	env, err := lib.NewEnv(4)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m, err := env.LoadModelFile(file)
	if err != nil {
		return nil, err
	}
	c, err := env.Compile(m, litert.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	mem := func(input bool, count int) (all [][]byte, err error) {
		for k := range count {
			n, err := c.Room(input, k)
			if err != nil {
				return nil, err
			}
			b, err := syscall.Mmap(-1, 0, (n+4095)&^4095, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
			if err != nil {
				return nil, err
			}
			all = append(all, b[:n])
		}
		return all, nil
	}
	in, err := mem(true, len(c.Inputs))
	if err != nil {
		return nil, err
	}
	out, err := mem(false, len(c.Outputs))
	if err != nil {
		return nil, err
	}
	set, err := c.Bind(in, out)
	if err != nil {
		return nil, err
	}
	return func() error { return c.Run(set) }, nil
}

// rollout reads how long the demo's rollouts took.
func (f *fleet) rollout() ([]row, error) {
	b, err := os.ReadFile(filepath.Join(f.out, "summary.json"))
	if err != nil {
		return nil, err
	}
	var s struct {
		Demo     float64 `json:"demo_seconds"`
		Releases []struct {
			Release  string  `json:"release"`
			ToProven float64 `json:"create_to_proven_seconds"`
		} `json:"releases"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	rows := []row{{"the whole demo", fmt.Sprintf("%.0f s", s.Demo), "<= 180 s"}}
	for _, r := range s.Releases {
		if r.Release == "1.0.0" || r.Release == "1.1.0" {
			rows = append(rows, row{"rollout create to proven on six devices, " + r.Release, fmt.Sprintf("%.1f s", r.ToProven), "bakes and probation included"})
		}
	}
	return rows, nil
}

var benchLine = regexp.MustCompile(`^Benchmark(Hop|Spawn/1\.1\.0|Switch|Refresh|Verify|Sign|Export|Plan/100000|Why)-\d+\s+\d+\s+([0-9.]+) ns/op(.*)$`)

var hopMetric = regexp.MustCompile(`([0-9.]+) hop-p50-us`)

// goBenchmarks picks the rows that Go benchmarks have measured.
func goBenchmarks(path string) ([]row, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows []row
	for line := range strings.Lines(string(b)) {
		m := benchLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		switch m[1] {
		case "Hop":
			hop := hopMetric.FindStringSubmatch(m[3])
			if hop == nil {
				return nil, fmt.Errorf("no hop-p50-us in %q", line)
			}
			rows = append(rows, row{"hop from router to worker, p50 beyond the run", hop[1] + " us", "<= 20 us"})
		case "Spawn/1.1.0":
			rows = append(rows, row{"spawn to first result, 96 kB model", fmt.Sprintf("%.1f ms", ns/1e6), "<= 30 ms for 5 MB"})
		case "Refresh":
			rows = append(rows, row{"refresh with nothing new, bytes on the line with TLS", strings.Join(strings.Fields(m[3]), " "), "<= 1 kB, 1 round trip"})
		case "Verify":
			rows = append(rows, row{"verify all metadata of both repositories", fmt.Sprintf("%.1f ms, %s", ns/1e6, strings.Join(strings.Fields(m[3]), " ")), ""})
		case "Sign":
			rows = append(rows, row{"director signing of one device's wish, three files", fmt.Sprintf("%.2f ms", ns/1e6), ""})
		case "Export":
			rows = append(rows, row{"lockbox export of 1,000 devices", fmt.Sprintf("%.1f s, %s", ns/1e9, strings.Join(strings.Fields(m[3]), " ")), ""})
		case "Plan/100000":
			rows = append(rows, row{"one plan of a rollout of 100,000 devices", fmt.Sprintf("%.0f ms", ns/1e6), "<= 100 ms"})
		case "Why":
			rows = append(rows, row{"why of a device, of a rollout of 100,000, rows read", fmt.Sprintf("%.1f ms", ns/1e6), "<= 5 ms"})
		case "Switch":
			rows = append(rows, row{"switch of the active slot", strings.Join(strings.Fields(m[3]), " "), "0 lost, stall <= 5 ms"})
		}
	}
	return rows, nil
}

func sizes(dir string) ([]row, error) {
	goals := map[string]string{"dunlin-agent": "<= 14 MB"}
	var rows []row
	for _, name := range []string{"dunlin-agent", "dunlin-infer", "dunlin-fleet", "dunlin"} {
		found, err := filepath.Glob(filepath.Join(dir, "*arm64*", name))
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			st, err := os.Stat(p)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row{name + " for arm64, stripped", fmt.Sprintf("%.1f MB", float64(st.Size())/1e6), goals[name]})
		}
	}
	return rows, nil
}
