package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSpecNamesTheFieldThatIsWrong(t *testing.T) {
	good := func() Spec { return Spec{Model: "meter-digits", Version: "1.1.0", Channel: "production"} }
	percent := func(n int) *int { return &n }
	for _, c := range []struct {
		name   string
		change func(*Spec)
		field  string // that the message names; empty: valid
	}{
		{"least", func(*Spec) {}, ""},
		{"everything", func(s *Spec) {
			s.Selector, s.Control, s.Bake, s.Silence, s.Attempt = "site in (a,b),!hold", percent(0), Duration(time.Hour), Duration(time.Minute), 3
			s.Stages = []StageSpec{{Count: 1}, {Count: 3, Percent: 1}, {Percent: 1}, {Count: 5}, {Percent: 100, Bake: Duration(time.Hour)}}
		}, ""},
		{"no model", func(s *Spec) { s.Model = "" }, "model"},
		{"a model that is a path", func(s *Spec) { s.Model = "../x" }, "model"},
		{"version that is none", func(s *Spec) { s.Version = "latest" }, "version"},
		{"unknown channel", func(s *Spec) { s.Channel = "prod" }, "channel"},
		{"malformed selector", func(s *Spec) { s.Selector = "site==" + strings.Repeat("x", 80) }, "selector"},
		{"endless selector", func(s *Spec) { s.Selector = strings.Repeat("a,", 5000) }, "selector"},
		{"more control than half", func(s *Spec) { s.Control = percent(51) }, "control_percent"},
		{"less control than none", func(s *Spec) { s.Control = percent(-1) }, "control_percent"},
		{"a bake of a year", func(s *Spec) { s.Bake = Duration(365 * 24 * time.Hour) }, "bake"},
		{"silence of a year", func(s *Spec) { s.Silence = Duration(365 * 24 * time.Hour) }, "silence"},
		{"negative attempt", func(s *Spec) { s.Attempt = -1 }, "attempt"},
		{"too many stages", func(s *Spec) { s.Stages = make([]StageSpec, 33) }, "stages"},
		{"a stage of nothing", func(s *Spec) { s.Stages = []StageSpec{{Count: 1}, {}} }, "stages[1]"},
		{"a negative count", func(s *Spec) { s.Stages = []StageSpec{{Count: -1, Percent: 5}} }, "stages[0]"},
		{"101 percent", func(s *Spec) { s.Stages = []StageSpec{{Percent: 101}} }, "stages[0]"},
		{"falling percentage", func(s *Spec) { s.Stages = []StageSpec{{Percent: 50}, {Percent: 10}} }, "stages[1]"},
		{"falling count", func(s *Spec) { s.Stages = []StageSpec{{Count: 5}, {Count: 4}} }, "stages[1]"},
		{"a stage's bake of a year", func(s *Spec) { s.Stages = []StageSpec{{Count: 1, Bake: Duration(365 * 24 * time.Hour)}} }, "stages[0]: bake"},
	} {
		s := good()
		c.change(&s)
		err := s.Validate()
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Next == "" || !strings.Contains(e.Message, c.field) {
			t.Errorf("%s: %v does not name %s", c.name, err, c.field)
		}
	}
}

func TestDurationIsText(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		b, err := d.MarshalText()
		var back Duration
		if err != nil || back.UnmarshalText(b) != nil || back != d {
			t.Errorf("%s comes back as %s", text, b)
		}
	}
	for _, text := range []string{"", "90", "-5s", "soon"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}
