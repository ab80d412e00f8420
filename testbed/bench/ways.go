package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

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
