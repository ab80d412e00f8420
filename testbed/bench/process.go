package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

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
