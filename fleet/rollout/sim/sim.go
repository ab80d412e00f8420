// Package sim is a fleet of devices that exist in memory only, and rollouts on it
// that are carried out by the engine of package rollout with the gates of package
// gate. It says how often a good release is halted and how soon a bad one, before
// any real device is asked.
//
// A simulated device has traffic, errors, latency, a mix of classes, scores and
// memory that wander on their own, together with its class and with the hour; it is
// off at night, in a tunnel or dead. What it does is drawn step by step, with faults
// from the step on in which it runs the bad release. Quantiles are not kept as
// sketches: the logarithm of each step's quantile is drawn with the noise that its
// number of requests gives it, and steps are merged by requests.
package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

// Config of one simulated rollout.
type Config struct {
	Seed     uint64
	Devices  int
	Classes  []float64     // shares of the hardware classes; nil: one
	PerHour  float64       // mean requests of a device
	Night    float64       // share of devices that are off from 22 to 6 o'clock
	Dead     float64       // share that go silent for good during the rollout
	Tunnel   float64       // outages of six hours a device and day
	Shock    bool          // something happens to every device in the first 200 minutes
	Control  int           // percent held back
	Failing  float64       // share of installs that fail for reasons of their own
	Fault    Fault         //
	Step     time.Duration // of what is drawn; the first look of a gate
	Spec     fleet.Spec    // stages, bakes, silence, waits and gates; zero values are the defaults
	MaxHours int           // after which the run ends undecided
}

// Typical is the fleet that the tables of docs/gates.md are made with.
func Typical(seed uint64, devices int, classes []float64) Config {
	return Config{Seed: seed, Devices: devices, Classes: classes, PerHour: 1200, Control: 10, Failing: 0.002, Step: 20 * time.Minute, MaxHours: 24 * 14}
}

// Fault is what the new release does wrong. The zero value is a good release.
type Fault struct {
	Name      string
	Errors    float64 // factor on the error rate
	Latency   float64 // added to ln latency
	After     int     // steps until Latency begins
	Ramp      int     // steps over which it rises
	Mix       float64 // share of two classes that is answered as a third
	Score     float64 // added to the score
	Leak      float64 // memory per hour, of the usual
	Crash     float64 // per hour
	Install   float64 // share of installs that fail
	Refuse    bool    // devices refuse it on evidence
	OnlyClass string  // hardware class that has the fault; empty: all
}

// Faults that a rollout is to find, with the words of the tables.
var Faults = []Fault{
	{Name: "errors x10", Errors: 10},
	{Name: "creep x1.3", Latency: 0.26236, Ramp: 3},
	{Name: "class mix", Mix: 0.2},
	{Name: "score collapse", Score: -0.25},
	{Name: "leak 10 %/h", Leak: 0.10},
	{Name: "late x1.5", Latency: 0.40547, After: 1},
	{Name: "one class x1.5", Latency: 0.40547, OnlyClass: "last"},
	{Name: "crashes 0.2/h", Crash: 0.2},
}

// Result of one simulated rollout.
type Result struct {
	Status   string
	Gate     string // that halted or held it
	Reason   string
	Stage    int           // from 0; of the halt or the end
	Treated  int           // devices that ran the release at the halt or the end
	Finished int           // devices with an outcome
	Hit      int           // of them, failed
	Took     time.Duration // from the first change
	Naive    Naive         // what simple rules said of the same data
}

// Simulated tells whether a gate has something to look at here.
func Simulated(name string) bool {
	switch gate.Known[name].Measure.Kind {
	case gate.Errors, gate.Latency, gate.Class, gate.Score, gate.Memory:
		return true
	}
	return false
}

// Many carries out runs, as many at a time as there are processors. The configuration
// of each is asked for in order, by one at a time.
func Many(runs int, config func(i int) Config) []Result {
	type run struct {
		i int
		c Config
	}
	out, next := make([]Result, runs), make(chan run)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for r := range next {
				out[r.i] = Run(r.c)
			}
		})
	}
	for i := range runs {
		next <- run{i, config(i)}
	}
	close(next)
	wg.Wait()
	return out
}

// rng is one source of randomness, the same numbers for the same seed.
type rng struct{ *rand.Rand }

func newRNG(seed uint64) rng { return rng{rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))} }

func (c *Config) class(r rng) string {
	u := r.Float64()
	for i, share := range c.Classes {
		if u -= share; u < 0 || i == len(c.Classes)-1 {
			return className(i)
		}
	}
	return className(0)
}

func className(i int) string { return fmt.Sprintf("class-%d", i+1) }

// applies tells whether the fault shows on a class.
func (f *Fault) applies(class string, classes int) bool {
	return f.OnlyClass == "" || class == f.OnlyClass || f.OnlyClass == "last" && class == className(max(classes, 1)-1)
}

// devices as the engine knows them.
func (w *world) devices() []*fleet.Device {
	out := make([]*fleet.Device, len(w.list))
	for i, d := range w.list {
		out[i] = &fleet.Device{ID: d.id, Facts: map[string]string{"class": d.class}}
	}
	return out
}
