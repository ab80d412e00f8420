package devices

import (
	"strings"
	"testing"
)

// TestShowIsNotForged lets a device write no line of its own into what an operator
// compares fingerprints with, and nothing that a terminal acts on.
func TestShowIsNotForged(t *testing.T) {
	const evil = "x\x1b[2J\nkey\t0000 forged\r\u202e"
	slot := &slotView{Path: evil, Version: evil, Verdict: evil, Code: evil, Reason: evil}
	d := &deviceView{ID: "meter-1", Status: "pending", Class: evil, Agent: evil, Key: "true", Facts: map[string]string{"a": evil, evil: "b"},
		Alarms: []alarmView{{Kind: "k", Text: evil, Next: evil}}, Server: &serverView{Address: evil, Trouble: evil},
		Refusal: &eventView{Detail: evil, Code: evil, Next: evil}}
	d.Models = append(d.Models, struct {
		Model     string    `json:"model"`
		Active    *slotView `json:"active,omitempty"`
		Candidate *slotView `json:"candidate,omitempty"`
		Step      string    `json:"step,omitempty"`
		Rollout   string    `json:"rollout,omitempty"`
	}{Model: evil, Active: slot, Candidate: slot, Step: evil})
	var out strings.Builder
	d.show(&out)
	out.WriteString(d.runs())
	if strings.ContainsAny(out.String(), "\x1b\r\u202e") {
		t.Errorf("it acts on a terminal:\n%q", out.String())
	}
	keys := 0
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "key") {
			keys++
		}
		if strings.Contains(line, "forged") && strings.Count(line, "\t") > 1 {
			t.Errorf("a column is forged: %q", line)
		}
	}
	if keys != 1 {
		t.Errorf("%d lines tell a key:\n%s", keys, out.String())
	}
}
