package sim

import (
	"math"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

const answers = 5 // classes that the model tells apart

// device is one simulated device.
type device struct {
	id, class string
	hours     *fleet.Hours // nil: always on
	bad       bool         // the fault shows on it
	at        int          // first step of the new release; gate.Never: not yet
	died      int          // step; gate.Never: lives

	// What it is.
	rate, peak        float64 // requests a step; hour of most of them
	errors            float64 // rate
	latency           float64 // ln
	day, dayPhase     float64 // of latency
	logits, swing     [answers]float64
	swingPhase        [answers]float64
	score             float64
	crash             float64 // per hour
	shock             float64 // how much of a shock it gets
	short, long       wander  // of ln latency
	mood              [answers]wander
	scoring, memory   wander
	memoryDrift       float64
	throttled, tunnel int // steps that are left

	series
}

// series is what was drawn so far, as sums over all steps before.
type series struct {
	n, errs, lat, score, crashes []float64
	classes                      [answers][]float64
	on, expected                 []int
	memory                       []float64 // at each step, of the usual; not a sum
}

// shared is what all devices of a class have in common.
type shared struct {
	latency wander
	mix     [answers]wander
}

func (w *world) newDevice(r rng, id string) *device {
	d := &device{id: id, class: w.config.class(r), at: gate.Never, died: gate.Never}
	perStep := w.config.PerHour * w.config.Step.Hours()
	d.rate, d.peak = max(perStep*r.gamma(1.3), perStep*0.02), r.normal(14, 4)
	d.errors = 0.001 * math.Exp(r.normal(0, 0.9)-0.4)
	d.latency = r.normal(math.Log(20), 0.4)
	d.day, d.dayPhase = math.Abs(r.normal(0, 0.05)), 24*r.Float64()
	for c := range answers {
		d.logits[c], d.swing[c], d.swingPhase[c] = r.normal(0, 1), r.normal(0, 0.4), 24*r.Float64()
		d.mood[c] = r.wander(24, 0.3)
	}
	d.score = r.normal(0, 0.02)
	d.crash = 0.0005
	if r.Float64() < 0.01 {
		d.crash = 0.05
	}
	d.shock = 0.5 + r.Float64()
	d.short, d.long = r.wander(4.5, 0.06), r.wander(60, 0.07)
	d.scoring, d.memory = r.wander(18, 0.012), r.wander(3, 0.008)
	d.memoryDrift = r.normal(0, 0.0005)
	if r.Float64() < w.config.Night {
		d.hours = dayHours
	}
	d.bad = w.config.Fault.applies(d.class, len(w.config.Classes))
	d.grow()
	return d
}

var dayHours = func() *fleet.Hours {
	var h fleet.Hours
	for i := range h {
		h[i] = i%24 >= 6 && i%24 < 22
	}
	return &h
}()

// grow begins the sums.
func (s *series) grow() {
	for _, list := range []*[]float64{&s.n, &s.errs, &s.lat, &s.score, &s.crashes} {
		*list = append(*list, 0)
	}
	for c := range s.classes {
		s.classes[c] = append(s.classes[c], 0)
	}
	s.on, s.expected = append(s.on, 0), append(s.expected, 0)
}

// now is one step's values.
type now struct {
	n, errs, lat, score, memory float64
	classes                     [answers]float64
	crashes                     float64
	on, expected                bool
}

// step draws one step, which begins at t.
func (d *device) step(r rng, w *world, s *shared, i int, t time.Time) {
	x := now{expected: d.hours.Expected(t)}
	hour := float64(t.Hour()) + float64(t.Minute())/60
	turn := func(phase float64) float64 { return math.Cos(2 * math.Pi * (hour - phase) / 24) }
	f, age := w.config.Fault, -1
	if i >= d.at && d.bad {
		age = i - d.at
	}
	shock := 0.0
	if i >= w.shock {
		shock = d.shock
	}
	lat := d.latency + d.short.step(r) + d.long.step(r) + d.day*turn(d.dayPhase) + s.latency.x + shock*math.Log(1.28) + d.throttle(r)
	lat += f.latency(age)
	p := d.mix(r, s, turn)
	score := 0.9 + d.score + d.scoring.step(r) - 0.05*shock
	if age >= 0 {
		moved := f.Mix * (p[0] + p[1])
		p[0], p[1], p[2] = p[0]*(1-f.Mix), p[1]*(1-f.Mix), p[2]+moved
		score += f.Score
	}
	for c := range p {
		score -= 0.03 * float64(c) * p[c]
	}
	memory := 1 + d.memory.step(r) + d.memoryDrift*float64(i-w.start)*w.config.Step.Hours()
	if age >= 0 {
		memory += f.Leak * float64(age) * w.config.Step.Hours()
	}
	x.on = x.expected && i < d.died && !d.inTunnel(r, w)
	if x.on {
		x.n = r.poisson(d.rate * max(0.15, 0.7+0.6*turn(d.peak)) * math.Exp(r.normal(0, 0.25)))
		d.count(r, &x, p, f, age, shock)
		x.lat, x.score, x.memory = lat, score, memory
		if x.n > 0 {
			x.lat += r.normal(0, 1.6/math.Sqrt(x.n))
			x.score += r.normal(0, 0.12/math.Sqrt(x.n))
		}
	}
	d.append(x)
}

// count draws what is counted of the requests.
func (d *device) count(r rng, x *now, p [answers]float64, f Fault, age int, shock float64) {
	rate := d.errors * r.gamma(2) * (1 + 2*shock)
	if r.Float64() < 0.01 {
		rate *= 10
	}
	crash := d.crash
	if age >= 0 {
		if f.Errors > 0 {
			rate *= f.Errors
		}
		crash += f.Crash
	}
	x.errs = r.binomial(x.n, rate)
	left, share := x.n, 1.0
	for c := range p {
		if c == answers-1 {
			x.classes[c] = left
			break
		}
		x.classes[c] = r.binomial(left, p[c]/share)
		left, share = left-x.classes[c], max(share-p[c], 1e-9)
	}
	if r.Float64() < crash/3 {
		x.crashes = 1
	}
}

// latency is what the fault adds at an age in steps; below 0: it does not show.
func (f *Fault) latency(age int) float64 {
	switch {
	case age < f.After:
		return 0
	case f.Ramp > 0:
		return f.Latency * min(1, float64(age-f.After+1)/float64(f.Ramp))
	}
	return f.Latency
}

// throttle is a device that runs hot for a while, about once in three days.
func (d *device) throttle(r rng) float64 {
	if d.throttled > 0 {
		d.throttled--
		return 0.25
	}
	if r.Float64() < 1.0/216 {
		d.throttled = int(6 * r.ExpFloat64())
	}
	return 0
}

func (d *device) inTunnel(r rng, w *world) bool {
	perDay := float64(24*time.Hour) / float64(w.config.Step)
	switch {
	case d.tunnel > 0:
		d.tunnel--
	case r.Float64() < w.config.Tunnel/perDay:
		d.tunnel = int(6*time.Hour/w.config.Step) - 1
	default:
		return false
	}
	return true
}

// mix is the share of each class in the inputs of now.
func (d *device) mix(r rng, s *shared, turn func(float64) float64) (p [answers]float64) {
	sum := 0.0
	for c := range p {
		p[c] = math.Exp(d.logits[c] + d.swing[c]*turn(d.swingPhase[c]) + d.mood[c].step(r) + s.mix[c].x)
		sum += p[c]
	}
	for c := range p {
		p[c] /= sum
	}
	return p
}

func (s *series) append(x now) {
	last := len(s.n) - 1
	s.n = append(s.n, s.n[last]+x.n)
	s.errs = append(s.errs, s.errs[last]+x.errs)
	s.lat = append(s.lat, s.lat[last]+x.n*x.lat)
	s.score = append(s.score, s.score[last]+x.n*x.score)
	s.crashes = append(s.crashes, s.crashes[last]+x.crashes)
	for c := range s.classes {
		s.classes[c] = append(s.classes[c], s.classes[c][last]+x.classes[c])
	}
	s.on = append(s.on, s.on[last]+one(x.on))
	s.expected = append(s.expected, s.expected[last]+one(x.expected))
	s.memory = append(s.memory, x.memory)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Value implements gate.Series.
func (s *series) Value(m gate.Measure, from, to int) (v, n float64) {
	from, to = max(from, 0), min(to, len(s.n)-1)
	if from >= to {
		return 0, 0
	}
	n = s.n[to] - s.n[from]
	if m.Kind == gate.Memory {
		return s.slope(from, to)
	}
	if n == 0 {
		return 0, 0
	}
	switch m.Kind {
	case gate.Errors:
		return math.Sqrt((s.errs[to] - s.errs[from] + 0.375) / (n + 0.75)), n
	case gate.Latency:
		return (s.lat[to] - s.lat[from]) / n, n
	case gate.Class:
		return (s.classes[m.Class][to] - s.classes[m.Class][from]) / n, n
	case gate.Score:
		return (s.score[to] - s.score[from]) / n, n
	}
	return 0, 0
}

// slope of memory from the first to the last step with data; steps are 20 minutes
// unless the configuration says otherwise, and a slope wants two of them.
func (s *series) slope(from, to int) (v, n float64) {
	for from < to && s.memory[from] == 0 {
		from++
	}
	for to > from && s.memory[to-1] == 0 {
		to--
	}
	hours := float64(to-1-from) / 3
	if hours <= 0 {
		return 0, 0
	}
	return (s.memory[to-1] - s.memory[from]) / hours, hours * hours
}

// Presence implements gate.Series.
func (s *series) Presence(from, to int) (present, expected int) {
	from, to = max(from, 0), min(to, len(s.on)-1)
	if from >= to {
		return 0, 0
	}
	return s.on[to] - s.on[from], s.expected[to] - s.expected[from]
}
