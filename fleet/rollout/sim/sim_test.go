package sim

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// many carries out seeds of a configuration and counts how they ended.
func many(seeds int, config func(seed uint64) Config) (halted, held int, all []Result) {
	all = Many(seeds, func(i int) Config { return config(uint64(i + 1)) })
	for _, r := range all {
		switch r.Status {
		case fleet.RolloutHalted:
			halted++
		case fleet.RolloutPaused:
			held++
		}
	}
	return halted, held, all
}

// TestGoodReleaseGoesThrough: the tables of docs/gates.md are made of more runs; of
// these few none may be halted, but for two devices that happen to fall silent.
func TestGoodReleaseGoesThrough(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"typical": func(*Config) {},
		"night":   func(c *Config) { c.Night, c.Dead = 0.5, 0.05 },
		"tunnel":  func(c *Config) { c.Tunnel = 1 },
		"low":     func(c *Config) { c.PerHour = 5 },
		"shock":   func(c *Config) { c.Shock = true },
	} {
		_, _, all := many(20, func(seed uint64) Config {
			c := Typical(seed, 60, []float64{0.7, 0.3})
			set(&c)
			return c
		})
		for i, r := range all {
			if r.Status != fleet.RolloutCompleted && r.Gate != "gate.silence" {
				t.Errorf("%s, seed %d: %+v", name, i+1, r)
			}
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	for _, f := range Faults {
		halted, held, all := many(10, func(seed uint64) Config {
			c := Typical(seed, 100, []float64{0.7, 0.3})
			c.Fault = f
			return c
		})
		if halted+held < 10 || halted < 8 {
			t.Errorf("%s: %d halted, %d held of 10: %+v", f.Name, halted, held, all)
		}
	}
}

func TestBadInstallsHitFew(t *testing.T) {
	for _, f := range []Fault{{Install: 1}, {Refuse: true}} {
		_, _, all := many(20, func(seed uint64) Config {
			c := Typical(seed, 100, []float64{0.7, 0.3})
			c.Fault = f
			return c
		})
		for _, r := range all {
			if r.Status != fleet.RolloutHalted || r.Hit > 2*2 {
				t.Errorf("%+v: %+v", f, r)
			}
		}
	}
}

// TestRunsRepeat: a seed says everything.
func TestRunsRepeat(t *testing.T) {
	c := Typical(3, 40, []float64{0.7, 0.3})
	c.Tunnel, c.Fault = 1, Faults[2]
	if diff := cmp.Diff(Run(c), Run(c)); diff != "" {
		t.Error(diff)
	}
}
