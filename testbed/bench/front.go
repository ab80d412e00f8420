package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// models that are measured, with the runs of one round and of all.
var models = []benchModel{
	{"small", "testbed/models/digits/1.1.0/model.tflite", "digits, 96 kB, FP32", 2000},
	{"medium", "build/rivals/medium.tflite", "efficientnet_lite0, 5.4 MB, UINT8", 300},
	{"large", "build/rivals/large.tflite", "pose_landmark_full, 6.4 MB, FP32", 120},
}

type benchModel struct {
	name, file, about string
	runs              int
}

const runtimeLibrary = "build/runtime/litert-2.3.0/"

// slot makes what the agent would have installed.
func (m benchModel) slot() (infer.Slot, error) {
	library, err := filepath.Abs(runtimeLibrary + runtime.GOARCH + "/libLiteRt.so")
	if err != nil {
		return infer.Slot{}, err
	}
	file, err := filepath.Abs(m.file)
	if err != nil {
		return infer.Slot{}, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return infer.Slot{}, fmt.Errorf("%w: run testbed/rivals/get", err)
	}
	t, err := tflite.Parse(b)
	if err != nil {
		return infer.Slot{}, err
	}
	c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: m.name, Version: "1.0.0", File: filepath.Base(file)}
	if c.Inputs, c.Outputs, err = bundle.Describe(t); err != nil {
		return infer.Slot{}, err
	}
	return infer.Slot{Key: observe.Key{Model: m.name, Bundle: bundle.DigestOf(b), Runtime: "sha256:bench"}, Version: "1.0.0",
		Dir: filepath.Dir(file), Library: library, Contract: c}, nil
}

// engine is what the agent serves with.
func engine(bin string, log *slog.Logger) (*infer.Server, *observe.Monitor, error) {
	worker, err := filepath.Abs(filepath.Join(bin, "dunlin-infer"))
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	m := observe.NewMonitor(time.Now)
	return infer.New(infer.Config{FS: durable.OS{}, Launcher: self, Worker: worker, Threads: 1, Monitor: m, Log: log}), m, nil
}

// addresses are where the process of serve listens.
type addresses struct{ Unix, TCP string }

// serve is the agent's serving side in a process of its own, with the models of the
// benchmark in place of a fleet's: on a unix socket in dir and on a loopback port.
func serve(bin, dir string) error {
	s, _, err := engine(bin, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	defer s.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	for _, m := range models {
		slot, err := m.slot()
		if err != nil {
			return err
		}
		if err := s.Activate(context.Background(), slot); err != nil {
			return err
		}
	}
	unix, err := net.Listen("unix", filepath.Join(dir, "infer.sock"))
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h := &http.Server{Handler: oip.Handler(oip.Config{Engine: s, Version: "bench", SharedMemory: true}), Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	for _, l := range []net.Listener{unix, tcp} {
		go h.Serve(l) // ends with the process
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses{unix.Addr().String(), tcp.Addr().String()}); err != nil {
		return err
	}
	<-stop
	return h.Close()
}
