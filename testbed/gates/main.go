// Command gates prints the tables of docs/gates.md: how often the gates halt a good
// release, and how soon a bad one, on the simulated fleets of fleet/rollout/sim.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/rollout/sim"
)

func main() {
	seeds := flag.Int("seeds", 500, "runs of each cell")
	only := flag.String("only", "", "cells whose name contains this")
	sizes := flag.String("sizes", "10,100,1000", "devices")
	first := flag.Uint64("first", 1, "seed of the first run")
	flag.Parse()
	p := printer{seeds: *seeds, only: *only, sizes: *sizes, first: *first}
	p.good()
	p.faults()
	p.installs()
}

type printer struct {
	seeds int
	only  string
	sizes string
	first uint64
}

// classes of a fleet by its size.
func classes(devices int) []float64 {
	switch {
	case devices >= 1000:
		return []float64{0.6, 0.3, 0.1}
	case devices >= 100:
		return []float64{0.7, 0.3}
	}
	return nil
}

func (p *printer) fleets() (out []int) {
	for _, n := range []int{10, 100, 1000, 10000} {
		if slices.Contains(strings.Split(p.sizes, ","), fmt.Sprint(n)) {
			out = append(out, n)
		}
	}
	return out
}

// runs carries out the seeds of one cell.
func (p *printer) runs(config func(seed uint64) sim.Config) []sim.Result {
	return sim.Many(p.seeds, func(i int) sim.Config { return config(p.first + uint64(i)) })
}

func (p *printer) skip(name string) bool { return !strings.Contains(name, p.only) }

// variant is a way in which a fleet is not like the typical one.
type variant struct {
	name string
	set  func(*sim.Config)
}

var variants = []variant{
	{"typical", func(*sim.Config) {}},
	{"half off at night, 5 % dead", func(c *sim.Config) { c.Night, c.Dead = 0.5, 0.05 }},
	{"tunnels of 6 h, one a day", func(c *sim.Config) { c.Tunnel = 1 }},
	{"5 requests an hour", func(c *sim.Config) { c.PerHour = 5 }},
	{"shock to every device", func(c *sim.Config) { c.Shock = true }},
	{"no control held back", func(c *sim.Config) { c.Control = 0 }},
	{"no control held back, shock", func(c *sim.Config) { c.Control, c.Shock = 0, true }},
}

func (p *printer) good() {
	fmt.Println("| devices | fleet | runs | halted | by | held | hours to the end | naive: errors z | PSI | p95 x1.5 |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, n := range p.fleets() {
		for _, v := range variants {
			if p.skip("good " + v.name) {
				continue
			}
			rs := p.runs(func(seed uint64) sim.Config {
				c := sim.Typical(seed, n, classes(n))
				v.set(&c)
				return c
			})
			s := sum(rs)
			fmt.Printf("| %d | %s | %d | %s | %s | %s | %.0f | %s | %s | %s |\n", n, v.name, len(rs), s.share(s.halted), s.gates(), s.share(s.held), median(s.hours),
				s.share(s.naive[0]), s.share(s.naive[1]), s.share(s.naive[2]))
		}
	}
	fmt.Println()
}

func (p *printer) faults() {
	fmt.Println("| fault | devices | halted | held | stage (median; 95 %) | devices changed (median; 95 %) | minutes (median) | by |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, f := range sim.Faults {
		for _, n := range p.fleets() {
			if p.skip("fault " + f.Name) {
				continue
			}
			rs := p.runs(func(seed uint64) sim.Config {
				c := sim.Typical(seed, n, classes(n))
				c.Fault = f
				return c
			})
			s := sum(rs)
			fmt.Printf("| %s | %d | %s | %s | %.0f; %.0f | %.0f; %.0f | %.0f | %s |\n", f.Name, n, s.share(s.halted), s.share(s.held),
				median(s.stages), high(s.stages), median(s.treated), high(s.treated), median(s.minutes), s.gates())
		}
	}
	fmt.Println()
}

func (p *printer) installs() {
	fmt.Println("| installs that fail | devices | halted | finished (median; 95 %) | hit (95 %; most) |")
	fmt.Println("|---|---|---|---|---|")
	cells := []struct {
		name  string
		fault sim.Fault
	}{{"refused by all", sim.Fault{Refuse: true}}, {"all", sim.Fault{Install: 1}}, {"20 %", sim.Fault{Install: 0.2}}, {"10 %", sim.Fault{Install: 0.1}}, {"5 %", sim.Fault{Install: 0.05}}}
	for _, x := range cells {
		for _, n := range p.fleets() {
			if p.skip("install " + x.name) {
				continue
			}
			rs := p.runs(func(seed uint64) sim.Config {
				c := sim.Typical(seed, n, classes(n))
				c.Fault = x.fault
				return c
			})
			s := sum(rs)
			fmt.Printf("| %s | %d | %s | %.0f; %.0f | %.0f; %.0f |\n", x.name, n, s.share(s.halted), median(s.finished), high(s.finished), high(s.hit), slices.Max(s.hit))
		}
	}
}

// summary of one cell.
type summary struct {
	runs, halted, held                             int
	naive                                          [3]int
	by                                             map[string]int
	hours, stages, treated, minutes, finished, hit []float64
}

func sum(rs []sim.Result) *summary {
	s := &summary{runs: len(rs), by: map[string]int{}}
	for _, r := range rs {
		s.finished, s.hit = append(s.finished, float64(r.Finished)), append(s.hit, float64(r.Hit))
		s.hours = append(s.hours, r.Took.Hours())
		switch r.Status {
		case fleet.RolloutHalted:
			s.halted++
			s.stages, s.treated, s.minutes = append(s.stages, float64(r.Stage+1)), append(s.treated, float64(r.Treated)), append(s.minutes, r.Took.Minutes())
		case fleet.RolloutPaused:
			s.held++
		case fleet.RolloutRunning:
			s.by["runs on"]++
		}
		if r.Gate != "" && r.Status == fleet.RolloutHalted {
			s.by[strings.TrimPrefix(r.Gate, "gate.")]++
		}
		for i, b := range []bool{r.Naive.Errors, r.Naive.PSI, r.Naive.Latency} {
			if b {
				s.naive[i]++
			}
		}
	}
	return s
}

func (s *summary) share(n int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%.3g %%", 100*float64(n)/float64(s.runs))
}

func (s *summary) gates() string {
	type pair struct {
		name string
		n    int
	}
	var list []pair
	for k, v := range s.by {
		list = append(list, pair{k, v})
	}
	slices.SortFunc(list, func(a, b pair) int { return cmp.Or(b.n-a.n, cmp.Compare(a.name, b.name)) })
	var out []string
	for _, x := range list {
		out = append(out, fmt.Sprintf("%s %d", x.name, x.n))
	}
	return strings.Join(out, ", ")
}

func at(list []float64, p float64) float64 {
	if len(list) == 0 {
		return 0
	}
	l := slices.Sorted(slices.Values(list))
	return l[int(p*float64(len(l)-1)+0.5)]
}

func median(list []float64) float64 { return at(list, 0.5) }
func high(list []float64) float64   { return at(list, 0.95) }
