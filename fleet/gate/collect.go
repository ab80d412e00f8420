package gate

import (
	"cmp"
	"math"
	"slices"
)

// Series is what one device did, in steps of equal length since some common time.
// Steps before a change belong to the release before it, steps after to the one that
// came; the step of the change itself belongs to none.
type Series interface {
	// Value is a measure over the steps from <= s < to, on its gate's scale, and the
	// requests behind it; n is 0 where there is nothing.
	Value(m Measure, from, to int) (v, n float64)
	// Presence counts the steps with data, and those in which the device is expected
	// to be on.
	Presence(from, to int) (present, expected int)
}

// Never is the step of what does not happen.
const Never = math.MaxInt

// Device is one device of a rollout.
type Device struct {
	Series Series
	Stage  int  // that admits it
	Held   bool // control, held back to the end
	Left   int  // step that ends its past: the change is in it; Never: not changed
	At     int  // first step that is wholly the new release's; Never: not changed
}

// Stratum is the devices of one hardware class, in hash order.
type Stratum struct {
	Name    string
	Devices []Device
}

// Timing is in steps.
type Timing struct {
	Past    int   // a device's own past
	Hour    int   // a placebo window
	Placebo int   // placebo windows, before the rollout began
	Looks   []int // expected-on steps after a change at which a device is looked at
}

// Bounds of one evaluation: more adds nothing that the differences between devices
// have not bought already.
const (
	maxPlacebo = 400 // devices of a stratum
	maxTreated = 200 // devices of a stratum and stage
	maxControl = 500 // devices of a stratum
	present    = 0.6 // share of the expected steps that must be there
	pastShare  = 0.25
	minControl = 3 // units; with fewer, what happens to all looks like harm
)

// Collector makes evidence of the behaviour of devices. It remembers looks that are
// over, so it is to be used for one rollout whose past does not change.
type Collector struct {
	Timing Timing
	Strata []Stratum
	Start  int // step in which the rollout began: placebo ends there

	scales map[scaleKey]Scale
	looks  map[lookKey]looked
}

type scaleKey struct {
	measure       Measure
	stratum, look int
}

// lookKey names devices that were changed in the same step and have been on for as
// long, within the same steps.
type lookKey struct {
	scaleKey
	left, at, end int
}

type looked struct {
	Estimate
	out LeftOut
}

// Difference collects the evidence of one gate up to, not including, the step now.
func (c *Collector) Difference(spec Spec, alpha float64, now int) *Difference {
	x := &Difference{Margin: spec.Margin, Harm: spec.Harm, TwoSided: spec.TwoSided, Alpha: alpha, Beta: Beta, MinUnits: spec.MinUnits,
		Expect: spec.Expect, Control: ControlPast, Looks: len(c.Timing.Looks)}
	for _, s := range c.Strata {
		x.Strata = append(x.Strata, s.Name)
	}
	for i, m := range spec.measures() {
		d := Dimension{}
		if i < len(spec.Names) {
			d.Name = spec.Names[i]
		}
		for k, steps := range c.Timing.Looks {
			l := Look{Steps: steps}
			any := false
			for s := range c.Strata {
				key := scaleKey{m, s, k}
				among, alone, out := c.look(spec, key, now)
				l.Strata, l.Alone = append(l.Strata, among), append(l.Alone, alone)
				l.Scales = append(l.Scales, c.scale(spec, key))
				any = any || !among.empty() || !alone.empty()
				if i == 0 {
					x.LeftOut.add(out)
				}
				if !among.empty() {
					x.Control = ControlConcurrent
				}
			}
			if any {
				d.Looks = append(d.Looks, l)
			}
		}
		x.Measures = append(x.Measures, d)
	}
	return x
}

func (o *LeftOut) add(p LeftOut) {
	o.Off += p.Off
	o.NoPast += p.NoPast
	o.Few += p.Few
	o.NaN += p.NaN
	o.Short += p.Short
	o.Unscaled += p.Unscaled
}

// scale is what windows of a look's length say of a stratum, before the rollout.
func (c *Collector) scale(spec Spec, key scaleKey) Scale {
	if s, ok := c.scales[key]; ok {
		return s
	}
	t, steps := c.Timing, c.Timing.Looks[key.look]
	devices := c.Strata[key.stratum].Devices
	devices = devices[:min(len(devices), maxPlacebo)]
	var windows [][]placebo
	stride := max(t.Hour, steps/2)
	for at := c.Start - t.Placebo*t.Hour; at+steps <= c.Start; at += stride {
		var list []placebo
		var out LeftOut
		for _, d := range devices {
			if p, ok := c.change(spec, key.measure, d.Series, at, at, at+steps, &out); ok {
				list = append(list, p)
			}
		}
		windows = append(windows, cells(list, spec.MinCell, &out))
	}
	s := learn(windows)
	s.Floor = floor(spec)
	if c.scales == nil {
		c.scales = map[scaleKey]Scale{}
	}
	c.scales[key] = s
	return s
}

// change is how much a measure over the steps [at, end) differs from the past that
// ended at left.
func (c *Collector) change(spec Spec, m Measure, s Series, left, at, end int, out *LeftOut) (placebo, bool) {
	t := c.Timing
	from := left - t.Past
	if has, want := s.Presence(at, end); has == 0 || float64(has) < present*float64(want) {
		out.Off++
		return placebo{}, false
	}
	if has, _ := s.Presence(from, left); float64(has) < pastShare*float64(t.Past) {
		out.NoPast++
		return placebo{}, false
	}
	v, n := s.Value(m, at, end)
	past, np := s.Value(m, from, left)
	switch {
	case n <= spec.MinRequests || np <= spec.MinRequests:
		out.Few++
		return placebo{}, false
	case !finite(v) || !finite(past) || !finite(n):
		out.NaN++
		return placebo{}, false
	}
	p := placebo{unit: unit{n: n, c: v - past, devices: 1}}
	deviation := func(from, to int) float64 {
		if v, n := s.Value(m, from, to); n > spec.MinRequests && finite(v) {
			return v - past
		}
		return 0
	}
	// Yesterday's same minutes, as far as they belong to the same past.
	if y := at - t.Past; y >= from-t.Hour && y < left {
		p.yesterday = deviation(max(y, from), min(y+end-at, left))
	}
	p.before = deviation(left-t.Hour, left)
	return p, true
}

// cells merges neighbours until each cell has enough requests; what is left at the
// end is dropped.
func cells(list []placebo, least float64, out *LeftOut) []placebo {
	var done []placebo
	var cell placebo
	for _, p := range list {
		cell.devices += p.devices
		cell.n += p.n
		cell.c += p.n * p.c
		cell.yesterday += p.n * p.yesterday
		cell.before += p.n * p.before
		if cell.n >= least {
			cell.c, cell.yesterday, cell.before = cell.c/cell.n, cell.yesterday/cell.n, cell.before/cell.n
			done = append(done, cell)
			cell = placebo{}
		}
	}
	out.Short += cell.devices
	return done
}

// adjusted takes what the past foretells out of the changes.
func (s Scale) adjusted(list []placebo) []unit {
	out := make([]unit, len(list))
	for i, p := range list {
		out[i] = p.unit
		out[i].c -= s.Yesterday*p.yesterday + s.Before*p.before
	}
	return out
}

// look pools all groups of a stratum that have been on for a look's time: those among
// control, and those at times at which nobody was left to compare with.
func (c *Collector) look(spec Spec, key scaleKey, now int) (among, alone Estimate, out LeftOut) {
	scale := c.scale(spec, key)
	devices := c.Strata[key.stratum].Devices
	groups := map[lookKey][]int{}
	stages := map[int]int{}
	for i := range devices {
		d := &devices[i]
		if d.At == Never || d.At >= now {
			continue
		}
		if stages[d.Stage]++; stages[d.Stage] > maxTreated {
			continue
		}
		if !scale.Known() {
			out.Unscaled++
			continue
		}
		if end, ok := spanEnd(d.Series, d.At, c.Timing.Looks[key.look], now); ok {
			g := lookKey{key, d.Left, d.At, end}
			groups[g] = append(groups[g], i)
		}
	}
	var with, without []Estimate
	for _, g := range sorted(groups) {
		l, ok := c.looks[g]
		if !ok {
			l = c.group(spec, scale, g, groups[g])
			if c.looks == nil {
				c.looks = map[lookKey]looked{}
			}
			c.looks[g] = l
		}
		if l.Control >= minControl {
			with = append(with, l.Estimate)
		} else {
			without = append(without, l.Estimate)
		}
		out.add(l.out)
	}
	return together(with), together(without), out
}

// together pools groups whose control is the same devices again.
func together(list []Estimate) Estimate {
	out := Pool(list)
	out.Control, out.Held, out.Borrowed = 0, 0, 0
	for _, e := range list {
		out.Control, out.Held, out.Borrowed = max(out.Control, e.Control), max(out.Held, e.Held), max(out.Borrowed, e.Borrowed)
	}
	return out
}

func sorted(groups map[lookKey][]int) []lookKey {
	keys := make([]lookKey, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b lookKey) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.left, b.left), cmp.Compare(a.end, b.end))
	})
	return keys
}

// spanEnd is the first step before which a device that changed at at was to be on for
// as many steps; false: that is not over by now.
func spanEnd(s Series, at, steps, now int) (end int, ok bool) {
	end = at + steps
	for end <= now {
		_, expected := s.Presence(at, end)
		if expected >= steps {
			return end, true
		}
		end += steps - expected
	}
	return 0, false
}

// group compares treated devices with those of their stratum that are not changed
// before the end of the same steps.
func (c *Collector) group(spec Spec, scale Scale, key lookKey, treated []int) looked {
	var l looked
	devices := c.Strata[key.stratum].Devices
	units := func(list []int, out *LeftOut) []placebo {
		var ps []placebo
		for _, i := range list {
			if p, ok := c.change(spec, key.measure, devices[i].Series, key.left, key.at, key.end, out); ok {
				ps = append(ps, p)
			}
		}
		return cells(ps, spec.MinCell, out)
	}
	var held, waiting []int
	for i := len(devices) - 1; i >= 0 && len(held)+len(waiting) < maxControl; i-- {
		d := &devices[i]
		switch {
		case d.Left < key.end:
		case d.Held:
			held = append(held, i)
		default:
			waiting = append(waiting, i)
		}
	}
	var ignored LeftOut
	t, u := units(treated, &l.out), units(append(held, waiting...), &ignored)
	l.Estimate = estimate(scale.adjusted(t), scale.adjusted(u), scale, spec.Margin)
	if !l.empty() {
		l.Held, l.Borrowed = len(held), len(waiting)
	}
	return l
}
