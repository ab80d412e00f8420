package update

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dunlin-edge/dunlin/agent/slots"
)

// prove runs the candidate in its place while the active model serves. The place
// is hashed again first: what was written is what was signed.
func (j *journey) prove(ctx context.Context) error {
	c, err := j.e.candidate(j)
	if err != nil {
		return err
	}
	j.e.proving.Lock()
	defer j.e.proving.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := j.e.verify(j); err != nil {
		return err
	}
	p, err := j.e.prover.Prove(ctx, c)
	if err := errors.Join(err, j.e.keepProof(j.model(), j.pair(), p)); err != nil {
		return err
	}
	j.Proven = true
	return j.e.judge(j, slots.Unknown)
}

// shadow runs the candidate on copies of live requests, where its contract asks for
// that.
func (j *journey) shadow(ctx context.Context) error {
	c, err := j.e.candidate(j)
	if err != nil || c.Contract.Shadow == nil || j.e.shadow == nil {
		return err
	}
	seen, err := j.e.shadow.Shadow(ctx, c)
	if seen == nil || c.Proof == nil {
		return err
	}
	p := *c.Proof
	p.Shadow = seen
	return errors.Join(err, j.e.keepProof(j.model(), j.pair(), &p))
}

// try writes the way back, moves the pointer and lets the candidate serve.
func (j *journey) try(ctx context.Context) error {
	c, err := j.e.candidate(j)
	if err != nil {
		return err
	}
	if err := j.e.switchTo(j); err != nil {
		return err
	}
	if err := j.e.serve(ctx, j.model(), c); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &Refusal{"try.serve", "the candidate does not serve: " + err.Error()}
	}
	return nil
}

// probationLook is the pause between two judgements.
const probationLook = 250 * time.Millisecond

// probation watches live requests until the judge has decided. A restart begins
// the watch anew, at most maxTrials times.
func (j *journey) probation(ctx context.Context) error {
	j.Trials++
	if j.Trials > maxTrials {
		return &Refusal{"probation.restarts", fmt.Sprintf("the device restarted %d times while the candidate was on trial", j.Trials-1)}
	}
	if err := j.e.save(&j.journal); err != nil {
		return err
	}
	c, err := j.e.candidate(j)
	if err != nil {
		return err
	}
	began := time.Now()
	tick := time.NewTicker(probationLook)
	defer tick.Stop()
	for {
		v := j.e.prover.Judge(c, time.Since(began))
		j.answered = v.Answered
		switch v.Verdict {
		case Pass:
			return nil
		case Fail:
			return &Refusal{v.Code, v.Reason}
		}
		select {
		case <-ctx.Done():
			var r *reversal
			if errors.As(context.Cause(ctx), &r) && r.means(&j.Target) {
				return &r.Refusal
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// commit is the explicit act that makes the candidate good.
func (j *journey) commit(context.Context) error { return j.e.judge(j, slots.Good) }

// report makes the signed statement due; the queue keeps it until it is
// acknowledged.
func (j *journey) report(context.Context) error {
	j.e.report.Changed(j.model())
	return nil
}
