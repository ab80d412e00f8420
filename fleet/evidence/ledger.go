package evidence

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/gate"
)

// ledger is the samples of one rollout's devices, added up in steps.
type ledger struct {
	mu      sync.Mutex
	set     fleet.GatesSpec
	path    string // of the release
	step    time.Duration
	origin  time.Time // of step 0
	start   int       // step in which the rollout began
	devices map[string]*track
	collect *gate.Collector
	place   map[string][2]int // stratum and index in the collector, by device

	seen   map[int]uint64 // of classes, before the rollout
	watch  []int          // classes, the most frequent first; the rest is one more
	column map[int]int    // of watch, by class
	judged bool           // applications say what is right
}

// Bounds of what is kept.
const (
	maxWatch   = 20   // classes
	leastWatch = 0.01 // share of a class that is watched
	maxSteps   = 60 * 24 * 12
)

func newLedger(r *fleet.Rollout, members []fleet.Member) *ledger {
	g := settings(&r.Spec)
	step, timing := gate.Every(time.Duration(g.Look), time.Duration(g.Past), parts)
	hour := time.Duration(timing.Hour) * step
	began := r.Created.Truncate(hour)
	l := &ledger{set: g, path: r.Spec.Path(), step: step, origin: began.Add(-2 * time.Duration(timing.Past) * step), start: 2 * timing.Past,
		devices: map[string]*track{}, place: map[string][2]int{}, seen: map[int]uint64{}, column: map[int]int{}}
	l.collect = &gate.Collector{Timing: timing, Start: l.start}
	strata := map[string]int{}
	sorted := slices.Clone(members)
	slices.SortStableFunc(sorted, func(a, b fleet.Member) int { return cmp.Compare(a.Order, b.Order) })
	for _, m := range sorted {
		i, ok := strata[m.Stratum]
		if !ok {
			i = len(l.collect.Strata)
			strata[m.Stratum] = i
			l.collect.Strata = append(l.collect.Strata, gate.Stratum{Name: m.Stratum})
		}
		s := &l.collect.Strata[i]
		if len(s.Devices) >= maxMembers && !m.Control {
			continue
		}
		t := &track{l: l, at: gate.Never, hours: m.Hours, last: map[uint64]uint64{}}
		l.devices[m.Device] = t
		l.place[m.Device] = [2]int{i, len(s.Devices)}
		s.Devices = append(s.Devices, gate.Device{Series: t, Left: gate.Never, At: gate.Never})
	}
	return l
}

func (l *ledger) names() []string {
	out := make([]string, 0, len(l.devices))
	for d := range l.devices {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

func (l *ledger) stepOf(t time.Time) int { return int(t.Sub(l.origin) / l.step) }

// survey looks at what there is before anything is added up.
func (l *ledger) survey(x *fleet.Sample) {
	if l.stepOf(time.Unix(x.Sample.Start, 0)) >= l.start {
		return
	}
	for c, n := range x.Sample.Classes {
		if n > 0 {
			l.seen[c] += n
		}
	}
	l.judged = l.judged || x.Sample.Truth != nil
}

// choose says which classes are watched.
func (l *ledger) choose() {
	var sum uint64
	for _, n := range l.seen {
		sum += n
	}
	for c, n := range l.seen {
		if float64(n) >= leastWatch*float64(sum) {
			l.watch = append(l.watch, c)
		}
	}
	slices.SortFunc(l.watch, func(a, b int) int { return cmp.Or(cmp.Compare(l.seen[b], l.seen[a]), cmp.Compare(a, b)) })
	l.watch = l.watch[:min(len(l.watch), maxWatch)]
	for i, c := range l.watch {
		l.column[c] = i
	}
	l.seen = nil
}

// add counts a sample once; stored ones are all different.
func (l *ledger) add(x *fleet.Sample, stored bool) {
	t := l.devices[x.Device]
	if t == nil {
		return
	}
	w := &x.Sample
	from := l.stepOf(time.Unix(w.Start, 0))
	if time.Unix(w.Start, 0).Before(l.origin) || from >= maxSteps {
		return
	}
	if !t.first(x.Epoch, x.Sequence, stored) {
		return
	}
	end := l.stepOf(time.Unix(w.Start+w.Seconds, 0).Add(l.step - 1))
	t.grow(min(max(end, from+1), maxSteps))
	for s := from; s < end && s < len(t.steps); s++ {
		t.steps[s].present = true
	}
	if w.Model != "" {
		t.steps[from].add(l, w)
	}
}

// members takes in how far the devices have come.
func (l *ledger) members(ms []fleet.Member) {
	for _, m := range ms {
		p, ok := l.place[m.Device]
		if !ok {
			continue
		}
		t, d := l.devices[m.Device], &l.collect.Strata[p[0]].Devices[p[1]]
		t.hours = m.Hours
		d.Stage, d.Held = m.Stage, m.Control
		if m.Assigned.IsZero() {
			continue
		}
		d.Left = l.stepOf(m.Assigned)
		d.At = gate.Never
		if m.Outcome == fleet.OutcomeGood && m.Undone.IsZero() {
			d.At = t.changed(d.Left)
		}
		t.at = d.At
	}
}

// crashes counts placebo-long hours of changed devices, and those in which one of
// their workers died.
func (l *ledger) crashes(now int) (hours, crashed int) {
	per := l.collect.Timing.Hour
	for _, s := range l.collect.Strata {
		for _, d := range s.Devices {
			if d.At == gate.Never {
				continue
			}
			t := d.Series.(*track)
			for from := d.At; from+per <= now; from += per {
				if on, _ := t.Presence(from, from+per); on == 0 {
					continue
				}
				hours++
				if t.crashed(from, from+per) {
					crashed++
				}
			}
		}
	}
	return hours, crashed
}

// nanBound is the share of a device's answers that may have a value that is not
// finite.
const nanBound = 0.001

// nan looks for changed devices whose answers are not finite.
func (l *ledger) nan(now int) *gate.Limit {
	x := &gate.Limit{Bound: nanBound, Least: 2}
	for name, t := range l.devices {
		if t.at == gate.Never {
			continue
		}
		n, bad := t.notFinite(t.at, now)
		if n < 20 {
			continue
		}
		x.Devices++
		if share := bad / n; share > nanBound {
			x.Over++
			if share > x.Worst || share == x.Worst && name < x.Device {
				x.Worst, x.Device = share, name
			}
		}
	}
	return x
}
