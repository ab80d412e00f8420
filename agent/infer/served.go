package infer

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// served is a slot with its worker, which is replaced when it dies.
type served struct {
	s        *Server
	slot     Slot
	requests sync.WaitGroup // under way

	mu       sync.Mutex
	w        *worker       // nil while there is none
	changed  chan struct{} // closed when w changes
	restarts int
	words    string
	retired  bool
	done     chan struct{} // closed by retire
}

func (s *Server) newServed(slot Slot) *served {
	return &served{s: s, slot: slot, changed: make(chan struct{}), done: make(chan struct{})}
}

func (v *served) start(ctx context.Context) error {
	w, err := v.s.spawn(ctx, v.slot, false)
	if err != nil {
		return err
	}
	v.set(w)
	return nil
}

func (v *served) set(w *worker) {
	v.mu.Lock()
	v.w = w
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
}

func (v *served) worker() (*worker, chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.w, v.changed
}

func (v *served) pid() int {
	w, _ := v.worker()
	if w == nil {
		return 0
	}
	return w.cmd.Process.Pid
}

func (v *served) history() (int, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.restarts, v.words
}

// restartMax bounds the pause before a worker that keeps dying is replaced.
const restartMax = 30 * time.Second

// supervise replaces the worker until the slot is retired.
func (v *served) supervise() {
	pause := 50 * time.Millisecond
	for {
		w, _ := v.worker()
		began := time.Now()
		select {
		case <-v.done:
			return
		case <-w.dead:
		}
		select {
		case <-v.done:
			return
		default:
		}
		v.mu.Lock()
		v.restarts++
		v.words = w.death.Error()
		v.mu.Unlock()
		v.set(nil)
		w.unmap()
		v.s.c.Monitor.Crashed(v.slot.Key)
		v.s.c.Log.Warn("worker died", "model", v.slot.Key.Model, "version", v.slot.Version, "reason", w.death.Reason, "words", w.death.Words)
		if time.Since(began) > time.Minute {
			pause = 50 * time.Millisecond
		}
		for !v.replace(&pause) {
			select {
			case <-v.done:
				return
			default:
			}
		}
	}
}

// replace starts another worker after a jittered pause and tells whether one
// serves.
func (v *served) replace(pause *time.Duration) bool {
	timer := time.NewTimer(*pause/2 + rand.N(*pause))
	defer timer.Stop()
	*pause = min(2**pause, restartMax)
	select {
	case <-v.done:
		return true
	case <-timer.C:
	}
	w, err := v.s.spawn(context.Background(), v.slot, false)
	if err != nil {
		v.s.c.Log.Warn("worker does not start", "model", v.slot.Key.Model, "err", err)
		return false
	}
	v.set(w)
	return true
}

// retire ends the worker after the requests under way.
func (v *served) retire() {
	v.requests.Wait()
	v.stop()
}

func (v *served) stop() {
	v.mu.Lock()
	again := v.retired
	v.retired = true
	w := v.w
	v.mu.Unlock()
	if !again {
		close(v.done)
	}
	if w != nil {
		w.stop()
	}
}

// run waits for a worker and runs it. The wait is bounded by ctx.
func (v *served) run(ctx context.Context, inputs [][]byte) ([][]byte, error) {
	for {
		w, changed := v.worker()
		if w != nil {
			select {
			case <-w.dead: // not yet replaced
			default:
				return w.run(ctx, inputs)
			}
		}
		select {
		case <-changed:
		case <-v.done:
			return nil, ErrUnknown
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// observation is what a request tells about the model.
func (v *served) observation(inputs, outputs [][]byte, err error, took time.Duration) observe.Observation {
	o := observe.Observation{Key: v.slot.Key, Took: took, Code: failureCode(err), Input: math.NaN()}
	if err != nil {
		return o
	}
	c := v.slot.Contract
	if len(inputs) > 0 {
		o.Input = meanOf(real(&c.Inputs[0], inputs[0]))
	}
	for i := range c.Outputs {
		values := real(&c.Outputs[i], outputs[i])
		for _, x := range values {
			o.NaN = o.NaN || math.IsNaN(x) || math.IsInf(x, 0)
		}
		if c.Watch != nil && c.Outputs[i].Name == c.Watch.Output {
			o.Class, o.Score = highest(values)
			o.Watched = o.Class >= 0
		}
	}
	return o
}

func failureCode(err error) string {
	var d *Death
	switch {
	case err == nil:
		return ""
	case errors.As(err, &d):
		return "worker." + d.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return "request.deadline"
	}
	return "worker.run"
}

// real are the real values of a tensor's bytes.
func real(t *bundle.Tensor, b []byte) []float64 {
	values := bundle.Values(t.DType, b)
	if t.Quant == nil || len(t.Quant.Scale) != 1 || len(t.Quant.Zero) != 1 {
		return values
	}
	for i, x := range values {
		values[i] = float64(t.Quant.Scale[0]) * (x - float64(t.Quant.Zero[0]))
	}
	return values
}

// highest is the index and value of the highest number, -1 when there is none.
func highest(v []float64) (int, float64) {
	best := -1
	for i, x := range v {
		if !math.IsNaN(x) && (best < 0 || x > v[best]) {
			best = i
		}
	}
	if best < 0 {
		return -1, 0
	}
	return best, v[best]
}

func meanOf(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
