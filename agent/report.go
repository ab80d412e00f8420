package agent

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/agent/tally"
	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// reporter tells the fleet: signed reports when something changed, events,
// samples of windows that are over. It is also what the link says hello with.
type reporter struct {
	a    *Agent
	wake chan struct{} // a report is due
	id   uint64        // of this start of the agent, not 0

	mu    sync.Mutex
	nonce []byte

	again *tally.Tally // refusals that were told
}

func newReporter(a *Agent) *reporter {
	return &reporter{a: a, wake: make(chan struct{}, 1), id: rand.Uint64N(math.MaxUint64) + 1, again: tally.New(update.EventRefused, update.EventBelieved, eventStick, eventStickBlob, eventImported, "capture.refused")}
}

// Changed implements update.Reporter.
func (r *reporter) Changed(string) {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Happened implements update.Reporter. Refusals that come again are counted.
func (r *reporter) Happened(e update.Event) { r.tell(r.again.Take(e, time.Now())) }

// tell queues what happened.
func (r *reporter) tell(es []tally.Told) {
	now, _ := r.a.clock.Now()
	for _, e := range es {
		r.append(r.a.queues.Event.Append, &wire.Event{Unix: now.Unix(), Type: e.Type, Model: e.Model, Path: e.Path, Code: e.Code, Detail: clip(e.Detail), Attrs: e.Attrs()})
	}
}

// append queues one record; a queue that cannot be written is logged, because
// nothing else can be done about it.
func (r *reporter) append(to func([]byte) (uint64, error), msg any) {
	b, err := wire.Encode(msg)
	if err == nil {
		_, err = to(b)
	}
	r.appended(err)
}

// appended has the link look at what was queued.
func (r *reporter) appended(err error) {
	if err != nil {
		r.a.log.Error("record is lost", "err", err)
		return
	}
	if r.a.link != nil {
		r.a.link.Flush()
	}
}

// look is how often windows are looked at.
const look = time.Second

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var lastHost time.Time
	for {
		select {
		case <-ctx.Done():
			r.samples(true)
			r.tell(r.again.Rest(time.Now()))
			return nil
		case <-r.wake:
			r.report()
		case <-tick.C:
			r.samples(false)
			r.tell(r.again.Due(time.Now()))
			now, _ := r.a.clock.Now()
			if start := alignedStart(now, r.a.watch.Window()); start.After(lastHost) {
				if !lastHost.IsZero() {
					r.append(r.a.queues.Sample.Append, &wire.Sample{Start: lastHost.Unix(), Seconds: int64(r.a.watch.Window() / time.Second), Host: hostMeasures(ctx, r.a.c.State)})
				}
				lastHost = start
			}
		}
	}
}

func (r *reporter) samples(all bool) {
	for _, s := range r.a.truth.Join(r.a.watch.Take(all), all) {
		r.append(r.a.queues.Sample.Append, &s)
	}
	if n := r.a.watch.Lost(); n > 0 {
		r.a.log.Warn("windows of measurement are lost", "windows", n)
	}
	for _, a := range r.a.watch.Alarms() {
		r.append(r.a.queues.Event.Append, a.Event())
	}
}

// report signs what the device runs now, queues it and returns the record, nil
// when there is none.
func (r *reporter) report() *wire.Record {
	all, err := r.a.update.Status()
	if err != nil {
		r.a.log.Error("status is not readable", "err", err)
		return nil
	}
	r.mu.Lock()
	rep := &wire.Report{Device: r.a.id.Device, Generation: r.a.update.Generation(), Nonce: r.nonce, Models: states(all, true), Clock: r.clock(), Posture: r.posture()}
	r.mu.Unlock()
	if note := r.a.note(); note != nil && (len(rep.Nonce) == 0 || !r.a.link.Connected()) {
		rep.Nonce = note.Nonce
	}
	// The epoch is signed and must be the record's: another may be drawn at any time.
	// The counter is its sequence, which rises whatever the clock does.
	rec := &wire.Record{}
	rec.Sequence, err = r.a.queues.Report.AppendOf(func(epoch, sequence uint64) ([]byte, error) {
		rep.Epoch, rec.Epoch, rep.Counter = epoch, epoch, sequence
		env, err := wire.Sign(r.a.id.Signer(), wire.ReportType, rep)
		if err != nil {
			return nil, err
		}
		rec.Payload, err = wire.Encode(env)
		return rec.Payload, err
	})
	r.appended(err)
	if err != nil {
		return nil
	}
	return rec
}

func (r *reporter) clock() wire.Clock {
	now, source := r.a.clock.Now()
	return wire.Clock{Unix: now.Unix(), Source: source}
}

func (r *reporter) posture() []wire.Posture {
	var out []wire.Posture
	for _, l := range r.a.infer.Posture() {
		out = append(out, wire.Posture{Layer: l.Name, Have: l.Have, Detail: l.Detail})
	}
	return out
}

// Hello implements link.Device.
func (r *reporter) Hello() *wire.Hello {
	all, err := r.a.update.Status()
	if err != nil {
		r.a.log.Error("status is not readable", "err", err)
	}
	return &wire.Hello{
		Protocols: []int{wire.Protocol}, Agent: Version, Epoch: r.a.queues.Epoch(), Channel: r.a.id.Channel, Held: *link.Held(r.a.trust.Held()),
		Generation: r.a.update.Generation(), Facts: r.a.c.Facts(), Models: states(all, false), Clock: r.clock(),
		Queues: []wire.QueueState{r.a.queues.Report.State(), r.a.queues.Sample.State(), r.a.queues.Event.State(), r.a.queues.Capture.State()}, Signpost: r.a.id.Held(), Run: r.id,
		Capture: r.a.shots.Held(),
	}
}

// Welcomed implements link.Device.
func (r *reporter) Welcomed(w *wire.Welcome) {
	r.mu.Lock()
	r.nonce = w.Nonce
	r.mu.Unlock()
	renewed, from := r.a.id.Welcomed()
	if renewed {
		r.a.renew.Look()
	}
	r.a.moves.Welcomed(w.Signpost, from)
	if w.Capture != nil {
		if err := r.a.shots.Take(w.Capture); err != nil {
			r.a.log.Warn("captures stay as they are", "err", err)
			r.Happened(update.Event{Type: "capture.refused", Code: "capture.refused", Detail: err.Error(), Next: "look at 'dunlin-agent status'; tell the server's operator"})
		}
	}
	r.a.watch.SetWindow(time.Duration(w.Window) * time.Second)
	if w.Metadata || w.Generation != r.a.update.Generation() {
		r.a.update.Refresh()
	}
	// The nonce is new: what is said from now on can be proven.
	r.Changed("")
}

// Asked implements link.Device.
func (r *reporter) Asked(a *wire.Ask) string {
	switch a.Verb {
	case "hello":
		r.a.link.Poke()
	case "report":
		r.Changed("")
	default:
		return "ask.unknown"
	}
	return ""
}

// Status is what the local API tells.
func (a *Agent) Status() Status {
	now, source := a.clock.Now()
	s := Status{Device: a.id.Device, Agent: Version, Channel: a.id.Channel, Server: a.id.Way().Server, Trouble: a.moves.Trouble(), Connected: a.link.Connected(), Clock: source, Now: now,
		Generation: a.update.Generation(), Listen: a.c.Listen, Damage: a.damage, Models: []ModelStatus{}, Certificate: a.renew.Status(), Capture: a.shots.Status()}
	all, err := a.update.Status()
	if err != nil {
		s.Damage = append(s.Damage, err.Error())
	}
	served := map[string]int{}
	live := a.kinds.Status()
	for i, l := range live {
		served[l.Model] = i
	}
	for _, u := range all {
		m := ModelStatus{Model: u.Model, Active: localSlot(u.Active), Candidate: localSlot(u.Candidate), Previous: localSlot(u.Previous), Step: u.Step, Rollout: u.Rollout}
		if i, ok := served[u.Model]; ok {
			m.PID, m.Restarts, m.LastWords, m.Answered = live[i].PID, live[i].Restarts, live[i].LastWords, live[i].Answered
		}
		s.Models = append(s.Models, m)
	}
	for _, q := range []interface {
		State() wire.QueueState
		Acked() uint64
	}{a.queues.Report, a.queues.Sample, a.queues.Event, a.queues.Capture} {
		st := q.State()
		s.Queues = append(s.Queues, QueueStatus{Kind: string(st.Kind), Last: st.Last, Acked: q.Acked(), Dropped: st.Dropped})
	}
	for _, l := range a.infer.Posture() {
		s.Posture = append(s.Posture, LayerStatus{Layer: l.Name, Have: l.Have, Detail: l.Detail})
	}
	return s
}

func localSlot(s *update.SlotStatus) *SlotStatus {
	if s == nil {
		return nil
	}
	return &SlotStatus{Place: string(s.Place), Path: s.Path, Version: s.Path[strings.LastIndexByte(s.Path, '/')+1:], Bundle: s.Bundle, Runtime: s.Runtime, Verdict: string(s.Verdict), Code: s.Code, Reason: s.Reason, Proof: s.Proof}
}
