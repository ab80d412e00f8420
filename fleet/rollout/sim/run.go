package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
)

// world is a simulated fleet with one rollout on it.
type world struct {
	config  Config
	r       rng
	list    []*device
	by      map[string]*device
	shared  map[string]*shared
	origin  time.Time // of step 0
	steps   int       // drawn
	start   int       // step in which the rollout begins
	shock   int       // step; gate.Never: none
	now     time.Time
	rollout *fleet.Rollout
	members []fleet.Member
	due     map[int]event // by index of the member
	collect *gate.Collector
	judged  []rollout.Judged
	specs   []gate.Spec
	changed time.Time // first device
	naive   Naive
}

// event is what a device will tell.
type event struct {
	at      time.Time
	ack     bool
	outcome string
	code    string
}

// Run carries one rollout out.
func Run(c Config) Result {
	w := &world{config: c, r: newRNG(c.Seed), by: map[string]*device{}, shared: map[string]*shared{}, due: map[int]event{}, shock: gate.Never}
	hour := w.r.IntN(24)
	w.origin = time.Date(2026, 3, 2+w.r.IntN(5), hour, 0, 0, 0, time.UTC)
	for i := range c.Devices {
		d := w.newDevice(w.r, fmt.Sprintf("device-%d", i))
		w.list, w.by[d.id] = append(w.list, d), d
		if w.shared[d.class] == nil {
			s := &shared{latency: w.r.wander(9, 0.04)}
			for k := range s.mix {
				s.mix[k] = w.r.wander(15, 0.08)
			}
			w.shared[d.class] = s
		}
	}
	step, timing := gate.Every(c.Step, 24*time.Hour, 1)
	w.start = 2 * timing.Past
	w.now = w.origin.Add(time.Duration(w.start) * step)
	if c.Shock {
		w.shock = w.start + w.r.IntN(max(1, int(200*time.Minute/step)))
	}
	w.draw()
	w.begin(timing)
	return w.run()
}

// draw lets every device live up to now.
func (w *world) draw() {
	for until := int(w.now.Sub(w.origin) / w.config.Step); w.steps < until; w.steps++ {
		t := w.origin.Add(time.Duration(w.steps) * w.config.Step)
		for i := range max(1, len(w.config.Classes)) {
			s := w.shared[className(i)]
			if s == nil {
				continue
			}
			s.latency.step(w.r)
			for k := range s.mix {
				s.mix[k].step(w.r)
			}
		}
		for _, d := range w.list {
			d.step(w.r, w, w.shared[d.class], w.steps, t)
		}
	}
}

func (w *world) begin(timing gate.Timing) {
	control := w.config.Control
	spec := w.config.Spec
	if spec.Control == nil {
		spec.Control = &control
	}
	names := gate.Default
	if spec.Gates != nil && spec.Gates.Use != nil {
		names = spec.Gates.Use
	}
	w.rollout, w.members = rollout.Arrange(fmt.Sprint(w.config.Seed), spec, w.devices(), "sim", w.now)
	for i, name := range names {
		x := gate.Known[name]
		if spec.Gates != nil {
			if b, ok := spec.Gates.Expect[name]; ok {
				x.Margin, x.Harm = b.Margin, b.Harm
			}
		}
		w.specs = append(w.specs, x)
		if name == gate.NameClasses {
			for c := range answers {
				w.specs[i].Classes = append(w.specs[i].Classes, c)
			}
		}
	}
	for i := range w.members {
		w.members[i].Hours = w.by[w.members[i].Device].hours
	}
	w.collect = &gate.Collector{Timing: timing, Start: w.start}
	strata := map[string]int{}
	for _, m := range w.members {
		i, ok := strata[m.Stratum]
		if !ok {
			i = len(w.collect.Strata)
			strata[m.Stratum] = i
			w.collect.Strata = append(w.collect.Strata, gate.Stratum{Name: m.Stratum})
		}
		s := &w.collect.Strata[i]
		s.Devices = append(s.Devices, gate.Device{Series: &w.by[m.Device].series, Stage: m.Stage, Held: m.Control, Left: gate.Never, At: gate.Never})
	}
	for _, d := range w.list {
		if w.r.Float64() < w.config.Dead {
			d.died = w.start + w.r.IntN(int(24*time.Hour/w.config.Step))
		}
	}
}

func (w *world) run() Result {
	end := w.now.Add(time.Duration(w.config.MaxHours) * time.Hour)
	for w.now.Before(end) {
		if actions := rollout.Plan(w.rollout, rollout.Facts{Members: w.members, Judged: w.judged}, w.now); len(actions) > 0 {
			for _, a := range actions {
				w.act(a)
			}
			if w.rollout.Status != fleet.RolloutRunning {
				break
			}
			continue
		}
		w.wait(end)
	}
	return w.result()
}

// wait goes on to the next time at which something may be due.
func (w *world) wait(end time.Time) {
	step := w.config.Step
	next := w.now.Truncate(step).Add(step)
	if t := rollout.Next(w.rollout, w.members, w.now); !t.IsZero() && t.Before(next) {
		next = t
	}
	for _, e := range w.due {
		if e.at.Before(next) {
			next = e.at
		}
	}
	if !next.After(w.now) {
		next = w.now.Add(time.Second)
	}
	w.now = next
	w.tell()
	if n := w.steps; w.now.Before(end) {
		if w.draw(); w.steps != n && !w.changed.IsZero() {
			w.judge()
		}
	}
}

// tell lets devices say what is due.
func (w *world) tell() {
	for i := range w.members {
		m := &w.members[i]
		d := w.by[m.Device]
		up := w.steps < d.died && d.hours.Expected(w.now)
		if up {
			m.Heard = w.now
		}
		e, ok := w.due[i]
		switch {
		case !ok || e.at.After(w.now):
		case !up:
			e.at = w.now.Add(w.config.Step)
			w.due[i] = e
		case e.ack:
			m.Acked = w.now
			if e = w.fate(d); e.at.IsZero() {
				delete(w.due, i) // it falls silent
				d.died = w.steps
				continue
			}
			w.due[i] = e
		default:
			m.Outcome, m.Code, m.Settled = e.outcome, e.code, w.now
			delete(w.due, i)
			if m.Outcome == fleet.OutcomeGood {
				w.activate(m, d)
			}
		}
	}
}

// fate is what comes of an install.
func (w *world) fate(d *device) event {
	f, took := w.config.Fault, time.Duration(3+w.r.IntN(12))*time.Minute
	e := event{at: w.now.Add(took), outcome: fleet.OutcomeGood}
	switch {
	case w.r.Float64() < 0.005:
		return event{}
	case d.bad && f.Refuse:
		e.outcome, e.code = fleet.OutcomeFailed, "prove.golden"
	case w.r.Float64() < w.config.Failing, d.bad && w.r.Float64() < f.Install:
		e.outcome, e.code = fleet.OutcomeFailed, "install.disk"
	}
	return e
}

// activate has a device run the new release.
func (w *world) activate(m *fleet.Member, d *device) {
	left := int(w.now.Sub(w.origin) / w.config.Step)
	d.at = left + 1
	if w.changed.IsZero() {
		w.changed = w.now
	}
	for s := range w.collect.Strata {
		for i := range w.collect.Strata[s].Devices {
			if x := &w.collect.Strata[s].Devices[i]; x.Series == gate.Series(&d.series) {
				x.Left, x.At = left, d.at
			}
		}
	}
}

func (w *world) act(a rollout.Action) {
	i := slices.IndexFunc(w.members, func(m fleet.Member) bool { return m.Device == a.Device })
	st := &w.rollout.Stages[w.rollout.Stage]
	switch a.Kind {
	case rollout.StartStage:
		st.Started = w.now
	case rollout.Bake:
		st.Baking = w.now
	case rollout.PassStage:
		st.Passed = w.now
		w.rollout.Stage++
	case rollout.Complete:
		w.rollout.Status = fleet.RolloutCompleted
	case rollout.Widen:
		for i := range w.members {
			if m := &w.members[i]; slices.Contains(a.Devices, m.Device) {
				m.Stage = a.Stage
			}
		}
		st.Baking = time.Time{}
	case rollout.Hold:
		w.rollout.Status, w.rollout.Code, w.rollout.Reason = fleet.RolloutPaused, a.Code, a.Reason
	case rollout.Halt:
		w.rollout.Status, w.rollout.Code, w.rollout.Reason = fleet.RolloutHalted, a.Code, a.Reason
	case rollout.Silent:
		m := &w.members[i]
		m.Outcome, m.Code, m.Settled = fleet.OutcomeSilent, "silence", w.now
	case rollout.Admit:
		m := &w.members[i]
		m.Stage, m.Assigned = a.Stage, w.now
		w.due[i] = event{at: w.now.Add(time.Duration(5+w.r.IntN(55)) * time.Second), ack: true}
	}
}

// judge evaluates every gate.
func (w *world) judge() {
	alpha := gate.Alpha(0)
	w.judged = w.judged[:0]
	for _, s := range w.specs {
		e := gate.Evidence{Method: gate.Version, Difference: w.collect.Difference(s, alpha, w.steps)}
		w.judged = append(w.judged, rollout.Judged{Gate: s.Name, Result: gate.Evaluate(e)})
	}
	hours, crashed := w.crashes()
	e := gate.Evidence{Outcome: gate.CrashOutcome(hours, crashed, alpha)}
	if res := gate.Evaluate(e); res.Verdict == gate.Fail {
		w.judged = append(w.judged, rollout.Judged{Gate: gate.NameCrash, Result: res})
	}
	w.naive.look(w)
}

// crashes counts hours of changed devices, and those in which a worker crashed.
func (w *world) crashes() (hours, crashed int) {
	per := int(time.Hour / w.config.Step)
	for _, d := range w.list {
		if d.at == gate.Never {
			continue
		}
		for from := d.at; from+per <= w.steps; from += per {
			if on, _ := d.Presence(from, from+per); on == 0 {
				continue
			}
			hours++
			if d.series.crashes[from+per] > d.series.crashes[from] {
				crashed++
			}
		}
	}
	return hours, crashed
}

func (w *world) result() Result {
	res := Result{Status: w.rollout.Status, Gate: w.rollout.Code, Reason: w.rollout.Reason, Stage: w.rollout.Stage, Naive: w.naive}
	for _, m := range w.members {
		if m.Outcome != "" {
			res.Finished++
		}
		if m.Outcome == fleet.OutcomeFailed {
			res.Hit++
		}
		if w.by[m.Device].at != gate.Never {
			res.Treated++
		}
	}
	if !w.changed.IsZero() {
		res.Took = w.now.Sub(w.changed)
	}
	return res
}
