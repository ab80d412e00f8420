package simulate

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
)

// simulated runs the command with a specification.
func simulated(t *testing.T, spec fleet.Spec, args ...string) (string, []Ending, error) {
	t.Helper()
	var text bytes.Buffer
	var es []Ending
	c := &Commands{
		Print: func(v any, table func(io.Writer)) error {
			table(&text)
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			return json.Unmarshal(b, &es)
		},
		Read: func(s *fleet.Spec, _ string) error { *s = spec; return nil },
	}
	cmd := c.Command()
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.Execute()
	return text.String(), es, err
}

func TestSimulate(t *testing.T) {
	_, es, err := simulated(t, fleet.Spec{}, "--devices", "60", "--runs", "5", "--fault", "score collapse")
	if err != nil || len(es) != 1 || es[0].Gate != "gate.score" || es[0].Runs != 5 {
		t.Fatalf("%+v, %v", es, err)
	}
	// A specification without that gate lets it through.
	_, es, err = simulated(t, fleet.Spec{Gates: &fleet.GatesSpec{Use: []string{"errors"}}}, "-f", "x.yaml", "--devices", "60", "--runs", "5", "--fault", "score collapse")
	if err != nil || len(es) != 1 || es[0].Ended != fleet.RolloutCompleted {
		t.Fatalf("%+v, %v", es, err)
	}
}

func TestSimulateRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"is none of":    {"--fault", "bad luck"},
		"--devices 0":   {"--devices", "0"},
		"add up to":     {"--classes", "0.5,0.2"},
		"is no share":   {"--classes", "1.5,-0.5"},
		"--runs":        {"--runs", "0"},
		"--per-hour":    {"--per-hour", "0"},
		"--night":       {"--night", "2"},
		"nothing to lo": {"-f", "x"},
	} {
		_, _, err := simulated(t, fleet.Spec{Gates: &fleet.GatesSpec{Use: []string{"truth"}}}, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	_, _, err := simulated(t, fleet.Spec{Gates: &fleet.GatesSpec{Look: 1}}, "-f", "x")
	if err == nil || !strings.Contains(err.Error(), "leave look and past out") {
		t.Error(err)
	}
}
