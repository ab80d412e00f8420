package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

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
