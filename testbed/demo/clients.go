package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// liveNoise is the standard deviation of the noise that live images carry, as in
// testbed/models/train.py.
const liveNoise = 0.03

// tally counts what the clients of all devices saw, by the release that answered.
type tally struct {
	mu       sync.Mutex
	releases map[string]*count
	lost     uint64 // no answer, or one that is not a success, from a device with power
	dark     uint64 // sent to a device while it had no power
	firstErr string // of the lost ones
}

type count struct {
	Requests uint64
	Correct  uint64
	Devices  map[string]bool // that answered with this release
}

func newTally() *tally { return &tally{releases: map[string]*count{}} }

func (t *tally) answer(device, version string, correct bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.releases[version]
	if c == nil {
		c = &count{Devices: map[string]bool{}}
		t.releases[version] = c
	}
	c.Requests++
	c.Devices[device] = true
	if correct {
		c.Correct++
	}
}

func (t *tally) lose(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost++
	if t.firstErr == "" {
		t.firstErr = err.Error()
	}
}

// of returns a copy of a release's count.
func (t *tally) of(version string) count {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.releases[version]
	if c == nil {
		return count{}
	}
	return count{c.Requests, c.Correct, map[string]bool{}}.with(c.Devices)
}

func (c count) with(devices map[string]bool) count {
	for d := range devices {
		c.Devices[d] = true
	}
	return c
}

func (t *tally) losses() (lost, dark uint64, first string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost, t.dark, t.firstErr
}

// digits are held-out images with their labels.
type digits struct {
	images [][]float32
	labels []int
}

// client sends noisy digits to one device, one request after the other.
type client struct {
	device string
	url    string
	http   *http.Client
	power  *atomic.Int64 // rises by one whenever the device loses or gets power; odd: none
	tally  *tally
	pause  time.Duration
}

// run sends until ctx ends.
func (c *client) run(ctx context.Context, d *digits) {
	rng := rand.New(rand.NewPCG(7, uint64(len(c.device))+uint64(c.device[len(c.device)-1])))
	tick := time.NewTicker(c.pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i := rng.IntN(len(d.images))
		before := c.power.Load()
		version, class, err := c.ask(ctx, noisy(rng, d.images[i]))
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.tally.answer(c.device, version, class == d.labels[i])
		case before%2 == 1 || c.power.Load() != before:
			c.tally.mu.Lock()
			c.tally.dark++
			c.tally.mu.Unlock()
		default:
			c.tally.lose(fmt.Errorf("%s: %w", c.device, err))
		}
	}
}

func noisy(rng *rand.Rand, image []float32) []float32 {
	out := make([]float32, len(image))
	for i, v := range image {
		out[i] = min(max(v+float32(rng.NormFloat64()*liveNoise), 0), 1)
	}
	return out
}

type tensor struct {
	Name     string    `json:"name"`
	Shape    []int     `json:"shape"`
	Datatype string    `json:"datatype"`
	Data     []float32 `json:"data"`
}

// ask returns the version that answered and the class with the highest score; -1
// when no score is a number.
func (c *client) ask(ctx context.Context, image []float32) (string, int, error) {
	body, err := json.Marshal(map[string]any{"inputs": []tensor{{"image", []int{1, 8, 8, 1}, "FP32", image}}})
	if err != nil {
		return "", 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v2/models/"+modelName+"/infer", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%s: %s", resp.Status, b)
	}
	var r struct {
		Version string `json:"model_version"`
		Outputs []struct {
			Data []*float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return "", 0, err
	}
	if len(r.Outputs) != 1 {
		return "", 0, errors.New("answer without the output")
	}
	best := -1
	for i, v := range r.Outputs[0].Data {
		if v != nil && (best < 0 || *v > *r.Outputs[0].Data[best]) {
			best = i
		}
	}
	return r.Version, best, nil
}
