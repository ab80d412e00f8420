// Package simulate holds 'dunlin rollout simulate': a rollout on a fleet in memory,
// before any device is asked.
package simulate

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout/sim"
)

// Commands is what the command takes from the program.
type Commands struct {
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// Read reads a specification from a file.
	Read func(spec *fleet.Spec, file string) error
}

// Ending is how some of the runs ended.
type Ending struct {
	Ended   string  `json:"ended"`           // completed, halted, paused, running
	Gate    string  `json:"gate,omitempty"`  // that stopped it
	Runs    int     `json:"runs"`            //
	Share   float64 `json:"share"`           // of all
	Stage   int     `json:"stage"`           // median, from 1
	Changed int     `json:"devices_changed"` // median
	Most    int     `json:"devices_changed_95"`
	Hours   float64 `json:"hours"` // median, from the first change
}

const maxSeeds, maxDevices = 10_000, 10_000

// Command returns it.
func (c *Commands) Command() *cobra.Command {
	conf := sim.Typical(0, 100, nil)
	var file, fault string
	var seeds int
	cmd := &cobra.Command{
		Use: "simulate", Short: "Try a rollout on a fleet in memory, many times", Args: cobra.NoArgs,
		Long: `Try a rollout on a fleet in memory, many times, with the engine and the gates that
run in the server. The devices wander, sleep, throttle and burst as docs/gates.md
tells; yours may do otherwise. Nothing is asked of a server.`,
		Example: "  dunlin rollout simulate --devices 200 --classes 0.7,0.3 --fault 'creep x1.3'\n  dunlin rollout simulate -f rollout.yaml --devices 50 --per-hour 30 --night 0.5",
		RunE: func(*cobra.Command, []string) error {
			if file != "" {
				if err := c.Read(&conf.Spec, file); err != nil {
					return err
				}
			}
			if err := check(&conf, fault, seeds); err != nil {
				return err
			}
			es := endings(sim.Many(seeds, func(i int) sim.Config { conf.Seed = uint64(i + 1); return conf }))
			return c.Print(es, func(w io.Writer) { table(w, es) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "YAML file with the specification; default the usual stages and gates")
	f.IntVar(&conf.Devices, "devices", conf.Devices, "devices of the fleet")
	f.Float64SliceVar(&conf.Classes, "classes", nil, "shares of hardware classes, like 0.7,0.3; default one class")
	f.Float64Var(&conf.PerHour, "per-hour", conf.PerHour, "mean requests of a device in an hour")
	f.Float64Var(&conf.Night, "night", 0, "share of devices that are off from 22 to 6 o'clock")
	f.Float64Var(&conf.Dead, "dead", 0, "share of devices that fall silent for good")
	f.Float64Var(&conf.Tunnel, "tunnel", 0, "outages of six hours of a device in a day")
	f.BoolVar(&conf.Shock, "shock", false, "something happens to every device in the first hours")
	f.StringVar(&fault, "fault", "", "what the release does wrong: "+strings.Join(names(), ", ")+"; default nothing")
	f.IntVar(&seeds, "runs", 100, "how many times")
	return cmd
}

func names() (out []string) {
	for _, f := range sim.Faults {
		out = append(out, f.Name)
	}
	return out
}

func check(c *sim.Config, fault string, seeds int) error {
	bad := func(format string, args ...any) error {
		return &fleet.Error{Code: "usage.simulate", Message: fmt.Sprintf(format, args...), Next: "run 'dunlin rollout simulate --help'"}
	}
	i := slices.IndexFunc(sim.Faults, func(f sim.Fault) bool { return f.Name == fault })
	sum := 0.0
	for _, s := range c.Classes {
		if s <= 0 {
			return bad("--classes: %v is no share", s)
		}
		sum += s
	}
	share := func(x float64) bool { return x >= 0 && x <= 1 }
	switch {
	case fault != "" && i < 0:
		return bad("--fault %q is none of %s", fault, strings.Join(names(), ", "))
	case c.Devices < 1 || c.Devices > maxDevices:
		return bad("--devices %d: 1 to %d wanted", c.Devices, maxDevices)
	case seeds < 1 || seeds > maxSeeds:
		return bad("--runs %d: 1 to %d wanted", seeds, maxSeeds)
	case len(c.Classes) > 0 && (sum < 0.99 || sum > 1.01):
		return bad("--classes: the shares add up to %v, not to 1", sum)
	case !(c.PerHour > 0) || c.PerHour > 1e6:
		return bad("--per-hour %v: more than 0, at most a million", c.PerHour)
	case !share(c.Night) || !share(c.Dead) || !(c.Tunnel >= 0 && c.Tunnel <= 4):
		return bad("--night, --dead: 0 to 1; --tunnel: 0 to 4")
	}
	if g := c.Spec.Gates; g != nil {
		for _, n := range g.Use {
			if !sim.Simulated(n) {
				return bad("gate %q has nothing to look at in a simulated fleet", n)
			}
		}
		if g.Look != 0 && g.Look != fleet.DefaultLook || g.Past != 0 && g.Past != fleet.DefaultPast {
			return bad("simulated devices are looked at after %s, against the past %s; leave look and past out", fleet.DefaultLook, fleet.DefaultPast)
		}
	}
	if i >= 0 {
		c.Fault = sim.Faults[i]
	}
	return nil
}

// endings counts runs that ended alike, the most frequent first.
func endings(rs []sim.Result) []Ending {
	type key struct{ status, gate string }
	by := map[key][]sim.Result{}
	for _, r := range rs {
		k := key{r.Status, r.Gate}
		by[k] = append(by[k], r)
	}
	var out []Ending
	for k, list := range by {
		at := func(p float64, of func(sim.Result) float64) float64 {
			var xs []float64
			for _, r := range list {
				xs = append(xs, of(r))
			}
			slices.Sort(xs)
			return xs[int(p*float64(len(xs)-1)+0.5)]
		}
		changed := func(r sim.Result) float64 { return float64(r.Treated) }
		out = append(out, Ending{Ended: k.status, Gate: k.gate, Runs: len(list), Share: float64(len(list)) / float64(len(rs)),
			Stage: int(at(0.5, func(r sim.Result) float64 { return float64(r.Stage + 1) })), Changed: int(at(0.5, changed)), Most: int(at(0.95, changed)),
			Hours: at(0.5, func(r sim.Result) float64 { return float64(r.Took) / float64(time.Hour) })})
	}
	slices.SortFunc(out, func(a, b Ending) int {
		return cmp.Or(b.Runs-a.Runs, cmp.Compare(a.Ended, b.Ended), cmp.Compare(a.Gate, b.Gate))
	})
	return out
}

func table(w io.Writer, es []Ending) {
	fmt.Fprintln(w, "ENDED\tBY\tRUNS\tSHARE\tSTAGE\tDEVICES CHANGED\tHOURS")
	for _, e := range es {
		ended := e.Ended
		if e.Gate == "gate.held" {
			ended = "held for a person"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.1f %%\t%d\t%d (95 %%: %d)\t%.1f\n", ended, cmp.Or(e.Gate, "–"), e.Runs, 100*e.Share, e.Stage, e.Changed, e.Most, e.Hours)
	}
}
