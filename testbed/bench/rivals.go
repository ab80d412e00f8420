package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// way is one way to ask a model; ask runs it once and returns the microseconds that
// took, as who asks sees them.
type way struct {
	name string
	ask  func() (float64, error)
}

// rivals measures every model over every way, one request of each way after the
// other, so that whatever else the machine does hits all of them. It prints a table of
// its own, because the rows belong together.
func rivals(bin, dir string, out io.Writer) error {
	tmp, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var stops []func()
	defer func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	front, lines, err := start(exec.Command(self, "-bin", bin, "-serve", tmp))
	if err != nil {
		return err
	}
	stops = append(stops, front.end)
	var at addresses
	if err := json.Unmarshal([]byte(<-lines), &at); err != nil {
		return fmt.Errorf("the serving process did not start: %w", err)
	}
	mls, err := mlserver(dir, tmp)
	if err != nil {
		return err
	}
	stops = append(stops, mls.end)
	s, monitor, err := engine(bin, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	stops = append(stops, s.Close)

	fmt.Fprintln(out, "\nThe same model over every way, in microseconds, interleaved; 'added' is p50 beyond the runtime's own run in this process.")
	fmt.Fprintf(out, "%-36s %-44s %9s %9s %9s\n", "MODEL", "WAY", "P50", "P99", "ADDED")
	for _, m := range models {
		slot, err := m.slot()
		if err != nil {
			return err
		}
		in := &slot.Contract.Inputs[0]
		raw := make([]byte, bytesOf(in))
		own, err := direct(m.file)
		if err != nil {
			return err
		}
		if err := s.Activate(context.Background(), slot); err != nil {
			return err
		}
		python, err := interpreter(dir, m.file)
		if err != nil {
			return err
		}
		shm, free, err := sharedMemory(at.Unix, slot.Contract, raw)
		if err != nil {
			return err
		}
		ways := []way{
			{"the runtime itself, in this process", timed(own)},
			{"Dunlin, router to worker", func() (float64, error) {
				began := time.Now()
				_, _, err := s.Infer(context.Background(), m.name, [][]byte{raw})
				return micros(began), err
			}},
			{"Dunlin, shared-memory region", shm},
			{"Dunlin, HTTP binary, unix socket", overHTTP("unix", at.Unix, m.name, in, raw, true)},
			{"Dunlin, HTTP binary, TCP", overHTTP("tcp", at.TCP, m.name, in, raw, true)},
			{"Dunlin, gRPC, TCP", overGRPC(at.TCP, m.name, in, raw)},
			{"Python ai_edge_litert, in its process", python.ask},
			{"MLServer, gRPC, TCP", overGRPC(mls.grpc, m.name, in, raw)},
		}
		if len(raw) < 4<<10 {
			ways = append(ways, way{"Dunlin, HTTP JSON, TCP", overHTTP("tcp", at.TCP, m.name, in, raw, false)}, way{"MLServer, HTTP JSON, TCP", overHTTP("tcp", mls.http, m.name, in, raw, false)})
		}
		monitor.Take(true)
		err = table(out, m, ways)
		if err == nil {
			err = hop(out, m, monitor.Take(true), ways[1].name)
		}
		free()
		python.end()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return errors.Join(throughput(out, at.TCP, mls.http), memory(out, front.pid(), mls.pid()), starts(out, bin, dir))
}

func bytesOf(t *bundle.Tensor) int {
	n := bundle.DTypeSize(t.DType)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

func timed(run func() error) func() (float64, error) {
	return func() (float64, error) {
		began := time.Now()
		err := run()
		return micros(began), err
	}
}

// table asks each way in turn, m.runs times after warming up, and prints a line of
// each.
func table(out io.Writer, m benchModel, ways []way) error {
	took := make([][]float64, len(ways))
	for i := range m.runs + m.runs/10 {
		for w := range ways {
			us, err := ways[w].ask()
			if err != nil {
				return fmt.Errorf("%s: %w", ways[w].name, err)
			}
			if i >= m.runs/10 {
				took[w] = append(took[w], us)
			}
		}
	}
	base := 0.0
	for w := range ways {
		slices.Sort(took[w])
		p50, p99 := took[w][len(took[w])/2], took[w][len(took[w])*99/100]
		if w == 0 {
			base = p50
		}
		fmt.Fprintf(out, "%-36s %-44s %9.0f %9.0f %9.0f\n", m.about, ways[w].name, p50, p99, p50-base)
	}
	return nil
}

// hop prints what the worker's own runs took of those that the router asked for.
func hop(out io.Writer, m benchModel, samples []wire.Sample, of string) error {
	for _, s := range samples {
		q, err := s.Latency.Decode()
		if err != nil {
			return err
		}
		if s.Model == m.name {
			fmt.Fprintf(out, "%-36s %-44s %9.0f %9.0f\n", m.about, "  of "+of+", the run itself", q.Quantile(0.5), q.Quantile(0.99))
		}
	}
	return nil
}

// overHTTP keeps one connection, and writes and reads it without goroutines of its own,
// so that what is measured is the server.
func overHTTP(network, address, model string, in *bundle.Tensor, raw []byte, binary bool) func() (float64, error) {
	var conn net.Conn
	var answers *bufio.Reader
	request := httpRequest(model, in, raw, binary)
	return func() (float64, error) {
		if conn == nil {
			var err error
			if conn, err = net.Dial(network, address); err != nil {
				return 0, err
			}
			answers = bufio.NewReaderSize(conn, 1<<20)
		}
		began := time.Now()
		if _, err := conn.Write(request); err != nil {
			return 0, err
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s %.200s %w", resp.Status, b, err)
		}
		return micros(began), nil
	}
}

func httpRequest(model string, in *bundle.Tensor, raw []byte, binary bool) []byte {
	head, tail := "", raw
	tensor := map[string]any{"name": in.Name, "shape": in.Shape, "datatype": in.DType}
	body := map[string]any{"inputs": []any{tensor}}
	if binary {
		tensor["parameters"] = map[string]any{"binary_data_size": len(raw)}
		body["parameters"] = map[string]any{"binary_data_output": true}
	} else {
		tensor["data"], tail = bundle.Values(in.DType, raw), nil
	}
	text, _ := json.Marshal(body) // maps of strings and numbers
	if binary {
		head = fmt.Sprintf("Inference-Header-Content-Length: %d\r\nContent-Type: application/octet-stream\r\n", len(text))
	} else {
		head = "Content-Type: application/json\r\n"
	}
	return append(fmt.Appendf(nil, "POST /v2/models/%s/infer HTTP/1.1\r\nHost: device\r\n%sContent-Length: %d\r\n\r\n%s", model, head, len(text)+len(tail), text), tail...)
}

func overGRPC(address, model string, in *bundle.Tensor, raw []byte) func() (float64, error) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	c := connect.NewClient[oippb.ModelInferRequest, oippb.ModelInferResponse](&http.Client{Transport: transport},
		"http://"+address+"/inference.GRPCInferenceService/ModelInfer", connect.WithGRPC())
	var shape []int64
	for _, d := range in.Shape {
		shape = append(shape, int64(d))
	}
	req := &oippb.ModelInferRequest{ModelName: model, RawInputContents: [][]byte{raw},
		Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: in.Name, Datatype: in.DType, Shape: shape}}}
	return func() (float64, error) {
		began := time.Now()
		_, err := c.CallUnary(context.Background(), connect.NewRequest(req))
		return micros(began), err
	}
}

// sharedMemory registers a region for inputs and outputs and asks with it; the time to
// write the input into the region is part of what is measured.
func sharedMemory(socket string, c *bundle.Contract, raw []byte) (ask func() (float64, error), free func(), err error) {
	model, in, size := c.Model, &c.Inputs[0], len(raw)
	key := "dunlin-bench-" + model
	tensor := func(t *bundle.Tensor, at, n int) map[string]any {
		return map[string]any{"name": t.Name, "parameters": map[string]any{"shared_memory_region": model, "shared_memory_offset": at, "shared_memory_byte_size": n}}
	}
	var outputs []any
	for i := range c.Outputs {
		n := bytesOf(&c.Outputs[i])
		outputs = append(outputs, tensor(&c.Outputs[i], size, n))
		size += n
	}
	input := tensor(in, 0, len(raw))
	input["shape"], input["datatype"] = in.Shape, in.DType
	body, err := json.Marshal(map[string]any{"inputs": []any{input}, "outputs": outputs})
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile("/dev/shm/"+key, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	free = func() { os.Remove("/dev/shm/" + key) }
	if err := f.Truncate(int64(size)); err != nil {
		return nil, free, err
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, free, err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, free, err
	}
	answers := bufio.NewReader(conn)
	post := func(path, body string) error {
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: device\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %s %w", resp.Status, b, err)
		}
		return nil
	}
	if err := post("/v2/systemsharedmemory/region/"+model+"/register", fmt.Sprintf(`{"key":%q,"offset":0,"byte_size":%d}`, "/"+key, size)); err != nil {
		return nil, free, err
	}
	return func() (float64, error) {
		began := time.Now()
		copy(mem, raw)
		err := post("/v2/models/"+model+"/infer", string(body))
		return micros(began), err
	}, free, nil
}

// process is a rival's.
type process struct {
	cmd        *exec.Cmd
	in         io.WriteCloser
	lines      chan string
	http, grpc string // MLServer's addresses
}

// start starts a program and follows the lines that it prints.
func start(cmd *exec.Cmd) (*process, chan string, error) {
	p := &process{cmd: cmd, lines: make(chan string, 16)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p, p.lines, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) end() {
	syscall.Kill(-p.pid(), syscall.SIGTERM)
	go func() {
		for range p.lines {
		}
	}()
	p.cmd.Wait() // it was told to end
}

// ask has Python's interpreter run the model once.
func (p *process) ask() (float64, error) {
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(<-p.lines, 64)
}

func interpreter(dir, model string) (*process, error) {
	p, lines, err := start(exec.Command(filepath.Join(dir, "env/bin/python"), "testbed/rivals/interpreter.py", model))
	if err != nil {
		return nil, err
	}
	for line := range lines {
		if line == "ready" {
			return p, nil
		}
	}
	return nil, errors.New("python's interpreter did not start")
}

// mlserver starts MLServer with every model, in one process, as its documentation has
// it for one machine.
func mlserver(dir, tmp string) (*process, error) {
	var ports []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
		l.Close()
	}
	folder := filepath.Join(tmp, "mlserver")
	files := map[string]string{"settings.json": fmt.Sprintf(`{"host":"127.0.0.1","http_port":%s,"grpc_port":%s,"metrics_port":%s,"parallel_workers":0,"debug":false}`, ports[0], ports[1], ports[2])}
	for _, m := range models {
		file, err := filepath.Abs(m.file)
		if err != nil {
			return nil, err
		}
		files[m.name+"/model-settings.json"] = fmt.Sprintf(`{"name":%q,"implementation":"litert_runtime.LiteRT","parameters":{"uri":%q,"version":"1"}}`, m.name, file)
	}
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			return nil, err
		}
	}
	runtimes, err := filepath.Abs("testbed/rivals")
	if err != nil {
		return nil, err
	}
	env, err := filepath.Abs(filepath.Join(dir, "env"))
	if err != nil {
		return nil, err
	}
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(env, "bin/mlserver"), "start", folder)
	cmd.Env, cmd.Stderr = append(os.Environ(), "PYTHONPATH="+runtimes), &log
	p, lines, err := start(cmd)
	if err != nil {
		return nil, err
	}
	go func() {
		for range lines {
		}
	}()
	p.http, p.grpc = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
	for range 600 {
		resp, err := http.Get("http://" + p.http + "/v2/health/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.end()
	return nil, fmt.Errorf("mlserver did not start:\n%s", log.Bytes())
}

// throughput is requests a second of the small model in JSON over TCP.
func throughput(out io.Writer, dunlin, mls string) error {
	const length = 3 * time.Second
	m := models[0]
	slot, err := m.slot()
	if err != nil {
		return err
	}
	in := &slot.Contract.Inputs[0]
	fmt.Fprintf(out, "\nRequests a second of the small model, HTTP JSON over TCP\n%-10s %10s %10s %8s\n", "CLIENTS", "DUNLIN", "MLSERVER", "RATIO")
	for _, clients := range []int{1, 8, 64} {
		var rate [2]float64
		for i, address := range []string{dunlin, mls} {
			var wg sync.WaitGroup
			var mu sync.Mutex
			var failed error
			done, stop := 0, time.Now().Add(length)
			for range clients {
				wg.Go(func() {
					ask, n := overHTTP("tcp", address, m.name, in, make([]byte, bytesOf(in)), false), 0
					var err error
					for err == nil && time.Now().Before(stop) {
						if _, err = ask(); err == nil {
							n++
						}
					}
					mu.Lock()
					defer mu.Unlock()
					done, failed = done+n, errors.Join(failed, err)
				})
			}
			wg.Wait()
			if failed != nil {
				return failed
			}
			rate[i] = float64(done) / length.Seconds()
		}
		fmt.Fprintf(out, "%-10d %10.0f %10.0f %8.1f\n", clients, rate[0], rate[1], rate[0]/rate[1])
	}
	return nil
}

// memory is the proportional memory of the serving processes with three models.
func memory(out io.Writer, dunlin, mls int) error {
	total := 0.0
	children, err := childrenOf(dunlin)
	if err != nil {
		return err
	}
	front, err := pss(dunlin)
	if err != nil {
		return err
	}
	for _, pid := range children {
		mb, err := pss(pid)
		if err != nil {
			return err
		}
		total += mb
	}
	other, err := pss(mls)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nMemory with the three models loaded, PSS: Dunlin's serving side %.1f MB and its workers %.1f MB together; MLServer %.1f MB\n", front, total, other)
	return nil
}

// childrenOf lists the processes that any thread of a process has started.
func childrenOf(pid int) (out []int, err error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range lists {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, c := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(c)
			if err != nil {
				return nil, err
			}
			out = append(out, n)
		}
	}
	return out, err
}

// starts is the time from nothing to a first result.
func starts(out io.Writer, bin, dir string) error {
	fmt.Fprintf(out, "\nSpawn to first result, ms, median of 5\n%-36s %12s %12s %22s\n", "MODEL", "DUNLIN WARM", "DUNLIN COLD", "PYTHON, INTERPRETER")
	for _, m := range models {
		slot, err := m.slot()
		if err != nil {
			return err
		}
		var took [3][]float64
		for range 5 {
			for i, cold := range []bool{false, true} {
				if cold {
					if err := errors.Join(forget(m.file), forget(slot.Library)); err != nil {
						return err
					}
				}
				s, _, err := engine(bin, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				began := time.Now()
				err = s.Activate(context.Background(), slot)
				took[i] = append(took[i], micros(began)/1000)
				s.Close()
				if err != nil {
					return err
				}
			}
			began := time.Now()
			p, err := interpreter(dir, m.file)
			if err != nil {
				return err
			}
			took[2] = append(took[2], micros(began)/1000)
			p.end()
		}
		fmt.Fprintf(out, "%-36s %12.1f %12.1f %22.1f\n", m.about, median(took[0]), median(took[1]), median(took[2]))
	}
	return nil
}

// forget drops a file from the page cache.
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
