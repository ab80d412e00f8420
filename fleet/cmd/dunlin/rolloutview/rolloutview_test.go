package rolloutview

import (
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// TestDraw wants all that a person looks for on one screen, and nothing of a device's
// own that a terminal would act on.
func TestDraw(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	r := &View{ID: "rol_1", Spec: fleet.Spec{Model: "digits", Version: "1.2.0", Channel: "production"}, Status: fleet.RolloutPaused, Reason: "a \x1b[2J gate", Stage: 1, Devices: 20, Created: now.Add(-time.Hour),
		Stages: []Stage{{Index: 0, Target: 2, Good: 2, Started: &now, Passed: &now}, {Index: 1, Target: 10, Good: 5, Started: &now, Baking: &now, Held: &now}, {Index: 2, Control: true, Target: 20}},
		Gates: []fleet.GateReading{{Gate: "errors", Verdict: fleet.GatePass, Decidable: true, Says: "no more errors"}, {Gate: "score", Verdict: fleet.GateFail, Harm: 2000, FailsAt: 1400, Says: "score moved"},
			{Gate: "memory", Verdict: fleet.GateNotYet, Why: "too few"}, {Gate: "classes", Verdict: fleet.GateNotYet}},
	}
	var b strings.Builder
	r.Draw(&b, now)
	got := b.String()
	for _, want := range []string{"digits@1.2.0  paused", "for 60 min", "stage 1  ####################  2 of 2 good   passed", "stage 2  ##########..........  5 of 10 good  held", "control", "score    fail", "too few", "not decidable yet"} {
		if !strings.Contains(strings.ReplaceAll(got, "1 h 0 min", "60 min"), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("an escape gets through: %q", got)
	}
	if strings.Index(got, "score  ") > strings.Index(got, "errors  ") {
		t.Error("what failed is not first")
	}
}
