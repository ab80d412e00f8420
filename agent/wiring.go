package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/agent/bond"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/serving"
	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// repository gives the update its trust over the link and over sticks, see
// route.
type repository struct{ a *Agent }

func (r repository) Wish() trust.Wish { return r.a.trust.Wish() }

func (r repository) Have(digest string) (string, bool) { return r.a.trust.Have(digest) }

func (r repository) Forget(digest string) error { return r.a.trust.Forget(digest) }

func (r repository) Sweep(keep map[string]bool) error { return r.a.trust.Sweep(keep) }

// prover gives the update its inference.
type prover struct{ a *Agent }

func keyOf(c *update.Candidate) observe.Key {
	return observe.Key{Model: c.Model, Path: c.Path, Bundle: c.Bundle, Runtime: c.Runtime, Rollout: c.Rollout, Arm: c.Arm}
}

func slotOf(c *update.Candidate) infer.Slot {
	s := infer.Slot{Key: keyOf(c), Version: c.Version, Dir: c.Dir, Library: c.Library, Contract: c.Contract}
	if p := c.Proof; p != nil {
		s.Setup = infer.Setup{Kernels: p.Kernels, Workers: p.Workers, Threads: p.Threads}
	}
	return s
}

func (p *prover) Prove(ctx context.Context, c *update.Candidate) (*bundle.Proof, error) {
	proof, err := p.a.kinds.Prove(ctx, slotOf(c))
	if err == nil {
		p.a.log.Info("proven", "release", c.Path, "golden", proof.Cases, "p95_us", proof.Cost.P95US, "start_us", proof.Cost.Start, "peak_kb", proof.Cost.PeakKB, "kernels", proof.Kernels, "workers", proof.Workers, "threads", proof.Threads)
	}
	return proof, refusal(err)
}

// Shadow implements update.Shadower.
func (p *prover) Shadow(ctx context.Context, c *update.Candidate) (*bundle.Shade, error) {
	seen, err := p.a.infer.Shadow(ctx, slotOf(c))
	return seen, refusal(err)
}

// refusal is what the update takes for one.
func refusal(err error) error {
	var r *infer.Refusal
	if errors.As(err, &r) {
		return &update.Refusal{Code: r.Code, Reason: r.Reason}
	}
	return err
}

func (p *prover) Serve(ctx context.Context, model string, c *update.Candidate) error {
	if c == nil {
		p.a.kinds.Deactivate(model)
		return nil
	}
	if s, ok := p.a.kinds.Serving(model); ok && s.Key == keyOf(c) && s.Dir == c.Dir {
		return nil
	}
	p.a.watch.Begin(keyOf(c))
	return p.a.kinds.Activate(ctx, slotOf(c))
}

func (p *prover) Judge(c *update.Candidate, since time.Duration) update.Judgement {
	if serving.KindOf(c.Contract) == serving.File {
		return p.judgeFile(c, since)
	}
	v := p.a.watch.Judge(keyOf(c), p.expect(c), since)
	j := update.Judgement{Verdict: update.NotYet, Code: v.Code, Reason: v.Reason, Answered: v.Answered}
	switch {
	case v.Failed:
		j.Verdict = update.Fail
	case v.Passed:
		j.Verdict = update.Pass
	}
	if j.Verdict != update.NotYet {
		p.a.watch.End(keyOf(c))
	}
	if j.Verdict == update.Pass && serving.KindOf(c.Contract) == serving.External {
		p.a.kinds.Engines.Settle(slotOf(c))
	}
	return j
}

// judgeFile goes by what the application says.
func (p *prover) judgeFile(c *update.Candidate, since time.Duration) update.Judgement {
	v := p.a.kinds.Files.Judge(c.Model, c.Version, c.Contract.Probation.Minutes, c.Contract.Probation.Requests, since)
	j := update.Judgement{Verdict: update.NotYet, Code: v.Code, Reason: v.Reason, Answered: v.Requests}
	switch {
	case v.Failed:
		j.Verdict = update.Fail
	case v.Passed:
		j.Verdict = update.Pass
	}
	return j
}

// unwell tells the server what an application says of a model that it runs.
func (a *Agent) unwell(s infer.Slot, reason string) {
	a.report.Happened(update.Event{Type: "serve.unhealthy", Model: s.Key.Model, Path: s.Key.Path, Code: "serve.unhealthy", Detail: clip(reason), Next: "look at the application; 'dunlin-agent rollback " + s.Key.Model + "' returns to the release before"})
}

// expect is what the contract says of behaviour on this device.
func (p *prover) expect(c *update.Candidate) observe.Expect {
	e := observe.Expect{
		Duration: time.Duration(c.Contract.Probation.Minutes * float64(time.Minute)), Requests: c.Contract.Probation.Requests,
		P95: time.Duration(c.Contract.BudgetFor(p.a.c.Facts()["class"]).LatencyP95US) * time.Microsecond,
	}
	if r := c.Contract.Reference; r != nil {
		e.Score, e.Classes = &r.Score, r.Classes
	}
	return e
}

// looping hands a slot over to condemn.
func (a *Agent) looping(s infer.Slot, last *infer.Death) {
	a.log.Error("crash loop", "model", s.Key.Model, "version", s.Version, "last", last)
	select {
	case a.loops <- s:
	default: // more slots than anybody serves: they wait already
	}
}

// condemn sends models whose workers crash again and again back to what served
// before, however long ago they were committed.
func (a *Agent) condemn(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-a.loops:
			why := update.Refusal{Code: "rollback.crash_loop", Reason: "its worker died five times within ten minutes"}
			err := a.update.Condemn(ctx, s.Key.Model, s.Key.Bundle, why)
			if err == nil || ctx.Err() != nil {
				continue
			}
			a.log.Warn("crash loop without a way back", "model", s.Key.Model, "err", err)
			a.report.Happened(update.Event{Type: "serve.crash_loop", Model: s.Key.Model, Path: s.Key.Path, Code: why.Code, Detail: why.Reason + ", and " + err.Error(), Next: "roll out a release that works here, or look at 'dunlin-agent status' for the worker's last words"})
		}
	}
}

// counted is a queue whose acknowledgements are believed only as far as this
// device has said something.
type counted struct {
	a *Agent
	*queue.Queue
}

// Ack draws a new epoch when the server knows more than this device: its disk was
// set back, and numbers would come twice.
func (q counted) Ack(epoch, sequence uint64) error {
	err := q.Queue.Ack(epoch, sequence)
	if !errors.Is(err, queue.ErrAhead) {
		return err
	}
	q.a.log.Warn("a new epoch of numbers begins", "err", err)
	q.a.report.Happened(update.Event{Type: "queue.renewed", Code: "queue.ahead", Detail: err.Error()})
	err = q.a.queues.Renew()
	q.a.link.Poke()
	return err
}

// states are the models as hellos carry them, and with their proofs reports.
func states(all []update.Status, proofs bool) []wire.ModelState {
	out := make([]wire.ModelState, 0, len(all))
	for _, s := range all {
		out = append(out, wire.ModelState{
			Model: s.Model, Active: slotState(s.Active, proofs), Candidate: slotState(s.Candidate, proofs), Step: s.Step,
			Generation: s.Generation, Attempt: s.Attempt, Rollout: s.Rollout, Answered: s.Answered,
		})
	}
	return out
}

// maxReason is how much of a reason travels.
const maxReason = 512

func slotState(s *update.SlotStatus, proofs bool) *wire.SlotState {
	if s == nil {
		return nil
	}
	w := &wire.SlotState{Path: s.Path, Bundle: s.Bundle, Runtime: s.Runtime, Verdict: string(s.Verdict), Code: s.Code, Reason: clip(s.Reason), Proven: s.Proven}
	if proofs && s.Proof != nil {
		p := *s.Proof
		p.Tried = slices.Clone(p.Tried)
		for i := range p.Tried {
			p.Tried[i].Why = clip(p.Tried[i].Why)
		}
		w.Proof = &p
	}
	return w
}

func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "")
}

// bond makes what keeps device and server known to each other.
func (a *Agent) bond() {
	s := bond.Surroundings{
		Now:       func() time.Time { t, _ := a.clock.Now(); return t },
		Trusted:   a.clock.Trusted,
		Connected: a.link.Connected,
		Drained:   func() bool { return a.queues.Report.State().Last == a.queues.Report.Acked() },
		Reconnect: a.link.Reconnect,
		Hello:     a.link.Poke,
		Happened: func(typ, code, detail string) {
			a.report.Happened(update.Event{Type: typ, Code: code, Detail: detail})
		},
		Log: a.log.With("part", "identity"),
	}
	a.renew = bond.NewRenewer(a.id, s)
	a.moves = bond.NewMover(a.id, s, a.renew.Look)
}
