package agent

import (
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestStates: reports carry what slots showed, bounded; hellos, which come again and
// again, do not.
func TestStates(t *testing.T) {
	p := &bundle.Proof{Cases: 8, Held: 8, Tried: []bundle.Tried{{Kernels: "gpu", Why: strings.Repeat("x", 10*maxReason)}}}
	all := []update.Status{{Model: "m", Active: &update.SlotStatus{Path: "dev/m/1.0.0", Proof: p}}}
	if got := states(all, false)[0].Active; got.Proof != nil {
		t.Errorf("a hello carries %+v", got.Proof)
	}
	got := states(all, true)[0].Active.Proof
	if got == nil || got.Held != 8 || len(got.Tried[0].Why) != maxReason {
		t.Errorf("a report carries %+v", got)
	}
	if len(p.Tried[0].Why) != 10*maxReason {
		t.Error("what the device holds was cut")
	}
}
