package observe

import (
	"fmt"
	"strconv"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Types of events about answers that are no longer as they were.
const (
	EventDrift     = "drift.alarm"
	EventDriftOver = "drift.over"
)

// Event says which measure moved, how far and since when.
func (a *Alarm) Event() *wire.Event {
	e := &wire.Event{Unix: a.At.Unix(), Type: EventDrift, Model: a.Key.Model, Path: a.Key.Path, Code: "drift." + a.Measure}
	if a.Over {
		e.Type = EventDriftOver
		e.Detail = "the " + measured(a.Measure) + " is as usual again"
		return e
	}
	against := "in the reference"
	switch {
	case a.Measure == MeasureErrors:
		against = "are tolerated"
	case a.Learnt:
		against = "in the requests before"
	}
	e.Detail = fmt.Sprintf("the %s is %.3f over the %d requests since %s, %.3f %s", measured(a.Measure), a.Mean, a.Requests, a.Since.UTC().Format(time.RFC3339), a.Usual, against)
	e.Attrs = map[string]string{
		"measure": a.Measure, "mean": strconv.FormatFloat(a.Mean, 'g', 4, 64), "usual": strconv.FormatFloat(a.Usual, 'g', 4, 64), "since": a.Since.UTC().Format(time.RFC3339),
		wire.AttrNext: "see what the device sees; 'dunlin model drift " + a.Key.Model + " --by device' tells whether others have it",
	}
	if a.Times > 1 {
		e.Attrs[wire.AttrTimes] = strconv.Itoa(a.Times)
	}
	return e
}

func measured(measure string) string {
	if measure == MeasureErrors {
		return "share of failed requests"
	}
	return "mean " + measure
}
