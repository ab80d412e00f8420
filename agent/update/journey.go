package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// errSuperseded cancels a journey whose wish has changed.
var errSuperseded = errors.New("a newer wish replaces this one")

// errLost says that what was fetched or placed is damaged: a fault of this
// device's storage, not of the release.
var errLost = errors.New("files that were fetched are not whole any more")

// journey is one walk through the steps. It is owned by its model's goroutine.
type journey struct {
	e *Engine
	journal
	log *slog.Logger
	// answered is the last count that the judge told.
	answered uint64
}

func (j *journey) model() string { return j.Target.model() }

func (j *journey) pair() slots.Pair {
	return slots.Pair{Bundle: j.Target.Bundle, Runtime: j.Target.Runtime}
}

// walk runs the steps from the one that the journal names. It returns nil when
// the journey is over, well or not, and an error when a step could not be done
// now and is to be tried again.
func (j *journey) walk(ctx context.Context) error {
	switch {
	case j.Step == stepRollback:
		// The way back is walked to its end whatever is wished meanwhile.
		return j.rollback(context.WithoutCancel(ctx))
	case j.Blame: // judged before it was interrupted
		return j.giveUp()
	}
	for i := max(0, stepIndex(j.Step)); i < len(steps); i++ {
		if err := j.enter(steps[i].name); err != nil {
			return err
		}
		if err := j.do(ctx, i); err != nil {
			return j.failed(ctx, i, err)
		}
	}
	return j.finish(outcome{Verdict: slots.Good, Proven: true})
}

// do runs a step unless the journey is not to go on. A good candidate is reported
// in any case.
func (j *journey) do(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil && steps[i].name != "report" {
		return err
	}
	if i <= stepIndex("place") {
		j.e.blobs.RLock()
		defer j.e.blobs.RUnlock()
	} else if err := j.e.sweep(); err != nil {
		j.log.Warn("what is left of downloads stays", "err", err)
	}
	return steps[i].do(j, ctx)
}

// enter writes the step's name down before the step starts.
func (j *journey) enter(name string) error {
	if j.Step != name {
		j.log.Info("step", "step", name, "release", j.Target.Path)
	}
	j.Step = name
	if err := j.e.save(&j.journal); err != nil {
		return fmt.Errorf("journal %s: %w", name, err)
	}
	j.e.report.Changed(j.model())
	return nil
}

// failed turns a step's error into the way back, or into another try.
func (j *journey) failed(ctx context.Context, i int, err error) error {
	var refusal *Refusal
	superseded := errors.Is(context.Cause(ctx), errSuperseded)
	switch {
	case errors.As(err, &refusal):
		j.Code, j.Reason, j.Blame = refusal.Code, refusal.Reason, true
	case errors.Is(err, errLost) && j.Losses >= maxLosses:
		j.Code, j.Reason, j.Blame = "place.lost", err.Error(), true
	case errors.Is(err, errLost):
		return errors.Join(fmt.Errorf("%s %s: %w", steps[i].name, j.Target.Path, err), j.again(ctx))
	case superseded:
		j.Code, j.Reason, j.Blame = "update.superseded", errSuperseded.Error(), false
	default:
		if i > 0 && i <= stepIndex("place") {
			// What was fetched may be gone: fetching again is cheap when it is not.
			j.Step = steps[0].name
			err = errors.Join(err, j.e.save(&j.journal))
		}
		if ctx.Err() != nil {
			err = errors.Join(err, j.stopped(i))
		}
		return fmt.Errorf("%s %s: %w", steps[i].name, j.Target.Path, err)
	}
	j.log.Warn("step undone", "step", steps[i].name, "release", j.Target.Path, "code", j.Code, "reason", j.Reason)
	if i >= stepIndex("try") {
		if err := j.enter(stepRollback); err != nil {
			return err
		}
		// The way back is walked to its end even when the wish changes again.
		return j.rollback(context.WithoutCancel(ctx))
	}
	return j.giveUp()
}

// again begins the journey anew, with what served before serving.
func (j *journey) again(ctx context.Context) error {
	if err := j.e.back(context.WithoutCancel(ctx), j.model(), j.pair()); err != nil {
		return err
	}
	j.Step, j.Proven = steps[0].name, false
	j.Losses++
	return j.e.save(&j.journal)
}

// stopped writes down that the agent was told to stop during a step.
func (j *journey) stopped(i int) error {
	j.Stopped = true
	if steps[i].name == "probation" {
		j.Trials = max(0, j.Trials-1)
	}
	return j.e.save(&j.journal)
}

// giveUp ends a journey that never touched the pointer.
func (j *journey) giveUp() error {
	if !j.Blame {
		return j.e.drop(j.model())
	}
	if err := j.e.judge(j, slots.Bad); err != nil {
		return err
	}
	return j.finish(outcome{Verdict: slots.Bad, Code: j.Code, Reason: j.Reason, Proven: j.Proven})
}

// finish stores the outcome and ends the journey.
func (j *journey) finish(o outcome) error {
	t := &j.Target
	o.Path, o.Bundle, o.Runtime = t.Path, t.Bundle, t.Runtime
	o.Attempt, o.Answered = t.Custom.Assign.Attempt, j.answered
	if err := j.e.conclude(j, o); err != nil {
		return err
	}
	typ := "update.committed"
	if o.Verdict == slots.Bad {
		typ = "update.refused"
		if j.Step == stepRollback {
			typ = "update.rolled_back"
		}
	}
	j.e.report.Happened(Event{Type: typ, Model: j.model(), Path: t.Path, Code: o.Code, Detail: o.Reason})
	j.e.report.Changed(j.model())
	j.log.Info("journey over", "release", t.Path, "verdict", o.Verdict, "code", o.Code, "took", time.Since(j.Began).Round(time.Millisecond))
	return nil
}

// resumed counts a restart that found the journey under way.
func (j *journey) resumed() {
	if j.Stopped {
		j.Stopped = false
		return
	}
	j.Starts++
	if j.Starts <= maxStarts {
		return
	}
	j.Code, j.Blame = "update.restarts", true
	j.Reason = fmt.Sprintf("the device restarted %d times during this update", j.Starts)
	if i := stepIndex(j.Step); i >= stepIndex("try") {
		j.Step = stepRollback
	}
}
