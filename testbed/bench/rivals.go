package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
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
		if err := compare(out, m, dir, sides{at, mls, s, monitor}); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return errors.Join(throughput(out, at.TCP, mls.http), memory(out, front.pid(), mls.pid()), starts(out, bin, dir))
}

// sides are those that are compared, as they run.
type sides struct {
	at      addresses
	mls     *process
	router  *infer.Server
	monitor *observe.Monitor
}

// compare measures one model over every way.
func compare(out io.Writer, m benchModel, dir string, x sides) error {
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
	if err := x.router.Activate(context.Background(), slot); err != nil {
		return err
	}
	python, err := interpreter(dir, m.file)
	if err != nil {
		return err
	}
	shm, free, err := sharedMemory(x.at.Unix, slot.Contract, raw)
	if err != nil {
		return err
	}
	ways := []way{
		{"the runtime itself, in this process", timed(own)},
		{"Dunlin, router to worker", func() (float64, error) {
			began := time.Now()
			_, err := x.router.Infer(context.Background(), m.name, [][]byte{raw})
			return micros(began), err
		}},
		{"Dunlin, shared-memory region", shm},
		{"Dunlin, HTTP binary, unix socket", overHTTP("unix", x.at.Unix, m.name, in, raw, true)},
		{"Dunlin, HTTP binary, TCP", overHTTP("tcp", x.at.TCP, m.name, in, raw, true)},
		{"Dunlin, gRPC, TCP", overGRPC(x.at.TCP, m.name, in, raw)},
		{"Python ai_edge_litert, in its process", python.ask},
		{"MLServer, gRPC, TCP", overGRPC(x.mls.grpc, m.name, in, raw)},
	}
	if len(raw) < 4<<10 {
		ways = append(ways, way{"Dunlin, HTTP JSON, TCP", overHTTP("tcp", x.at.TCP, m.name, in, raw, false)}, way{"MLServer, HTTP JSON, TCP", overHTTP("tcp", x.mls.http, m.name, in, raw, false)})
	}
	x.monitor.Take(true)
	err = table(out, m, ways)
	if err == nil {
		err = hop(out, m, x.monitor.Take(true), ways[1].name)
	}
	free()
	python.end()
	return err
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
