package infer

import (
	"context"
	"errors"
	"time"

	"github.com/dunlin-edge/dunlin/agent/observe"
)

// source is the key of a context's picture size.
type source struct{}

// WithSource returns a context whose request was a picture of that size before it
// was made fit for the model.
func WithSource(ctx context.Context, width, height int) context.Context {
	return context.WithValue(ctx, source{}, [2]int{width, height})
}

// Source is the size that WithSource put into a context, zero if none.
func Source(ctx context.Context) [2]int {
	size, _ := ctx.Value(source{}).([2]int)
	return size
}

// tell tells the monitor what a request that began then says about the model.
func (v *served) tell(ctx context.Context, began time.Time, inputs [][]byte, r result, err error) {
	// A caller who went away and a bad request say nothing about it.
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrInputs) {
		return
	}
	o := observe.Observation{Key: v.slot.Key, Took: r.took, Code: failureCode(err), Plan: v.plan, Inputs: inputs, Source: Source(ctx)}
	if err == nil {
		o.Wait = max(time.Since(began)-r.took, 0)
		v.plan.Answer(&o, r.outputs)
	}
	v.s.c.Monitor.Add(&o)
}

func failureCode(err error) string {
	var d *Death
	switch {
	case err == nil:
		return ""
	case errors.As(err, &d):
		return "worker." + d.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return "request.deadline"
	}
	return "worker.run"
}
