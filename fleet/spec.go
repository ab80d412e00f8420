package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Channels in the order of promotion.
var Channels = []string{"dev", "staging", "production"}

// ValidChannel tells whether c is a channel.
func ValidChannel(c string) bool { return slices.Contains(Channels, c) }

const (
	maxStages = 32
	maxBake   = Duration(30 * 24 * time.Hour)
)

// Validate checks every field; the error's message names the one that is wrong.
func (s *Spec) Validate() error {
	switch {
	case !bundle.ValidName(s.Model):
		return invalid("model: %q is no name of a model", s.Model)
	case !bundle.ValidVersion(s.Version):
		return invalid("version: %q is no semantic version", s.Version)
	case !ValidChannel(s.Channel):
		return invalid("channel: %q is none of %v", s.Channel, Channels)
	case len(s.Stages) > maxStages:
		return invalid("stages: %d, at most %d", len(s.Stages), maxStages)
	case s.Control != nil && (*s.Control < 0 || *s.Control > 50):
		return invalid("control_percent: %d, 0 to 50 wanted", *s.Control)
	case s.Bake > maxBake || s.Silence > maxBake || s.Longest > maxBake:
		return invalid("bake, silence, longest_wait: at most 30 days")
	case !slices.Contains([]string{"", OnFailPause, OnFailAbort, OnFailRevert}, s.OnFail):
		return invalid("on_fail: %q is none of %s, %s and %s", s.OnFail, OnFailPause, OnFailAbort, OnFailRevert)
	case s.Attempt < 0:
		return invalid("attempt: %d, a positive number wanted", s.Attempt)
	}
	if _, err := bundle.ParseSelector(s.Selector); err != nil {
		return ErrSelector.With("selector: %v", err)
	}
	return validStages(s.Stages)
}

// validStages wants each stage to reach at least as far as the one before, as far
// as that can be told without knowing the devices.
func validStages(stages []StageSpec) error {
	count, percent := 0, 0
	for i, st := range stages {
		at := fmt.Sprintf("stages[%d]", i)
		switch {
		case st.Count < 0 || st.Percent < 0 || st.Percent > 100 || st.Count == 0 && st.Percent == 0:
			return invalid("%s: a count above 0 or a percentage of 1 to 100 wanted", at)
		case st.Percent > 0 && st.Percent < percent || st.Percent == 0 && st.Count < count:
			return invalid("%s: stages are cumulative, this one is smaller than one before", at)
		case st.Bake > maxBake:
			return invalid("%s: bake: at most 30 days", at)
		}
		count, percent = max(count, st.Count), max(percent, st.Percent)
	}
	return nil
}

func invalid(format string, args ...any) error { return ErrRolloutInvalid.With(format, args...) }
