package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// summary is build/demo/summary.json.
type summary struct {
	SetupSeconds float64          `json:"setup_seconds"`
	BuildSeconds float64          `json:"build_seconds"`
	DemoSeconds  float64          `json:"demo_seconds"`
	Devices      int              `json:"devices"`
	PowerCut     powerCut         `json:"power_cut"`
	Stick        stickSummary     `json:"stick"`
	Releases     []releaseSummary `json:"releases"`
	Behaviour    []releaseSummary `json:"behaviour"`
	Lost         uint64           `json:"requests_lost"` // over all switches, rollbacks and deaths of workers
	DarkRequests uint64           `json:"requests_to_devices_without_power"`
	Held         bool             `json:"all_claims_held"`
	Broken       []string         `json:"claims_broken,omitempty"`
}

type powerCut struct {
	Device    string `json:"device"`
	Step      string `json:"step"`
	Recovered bool   `json:"recovered"`
}

type releaseSummary struct {
	Release       string  `json:"release"`
	Outcome       string  `json:"outcome"` // "completed" or "halted"
	Reason        string  `json:"reason"`
	DevicesProven int     `json:"devices_proven"`
	DevicesHit    int     `json:"devices_hit"`
	Requests      uint64  `json:"requests"`
	Lost          uint64  `json:"lost"`
	Correct       uint64  `json:"correct"`
	Seconds       float64 `json:"seconds"`
	ToProven      float64 `json:"create_to_proven_seconds,omitempty"` // on every device
	Unharmed      int     `json:"devices_still_on_1.1.0,omitempty"`   // proven there after the bad release

	Gate    string   `json:"gate,omitempty"`    // that stopped it
	Gates   []string `json:"gates,omitempty"`   // what those on behaviour saw
	Changed []string `json:"changed,omitempty"` // devices that answered with it
	Window  string   `json:"window,omitempty"`  // of measurement
}

func (s *summary) write(path string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// print shows the table and what it claims.
func (s *summary) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "RELEASE\tOUTCOME\tPROVEN ON\tDEVICES HIT\tANSWERS\tRIGHT\tLOST\tWHY")
	for _, r := range slices.Concat(s.Releases, s.Behaviour) {
		right := "–"
		if r.Requests > 0 {
			right = fmt.Sprintf("%.1f %%", 100*float64(r.Correct)/float64(r.Requests))
		}
		fmt.Fprintf(tw, "%s\t%s\t%d of %d\t%d\t%d\t%s\t%d\t%s\n", r.Release, r.Outcome, r.DevicesProven, s.Devices, r.DevicesHit, r.Requests, right, r.Lost, short(r.Reason, 70))
	}
	tw.Flush()
	fmt.Fprintf(w, "\nrequests lost over everything: %d; sent to the device without power: %d\n", s.Lost, s.DarkRequests)
	fmt.Fprintf(w, "power cut: %s killed in step %s, recovered: %v\n", s.PowerCut.Device, s.PowerCut.Step, s.PowerCut.Recovered)
	fmt.Fprintf(w, "stick: %s, without a network, proven on %s: %v; %d of %d answers right, %d lost\n", s.Stick.Device, s.Stick.Release, s.Stick.Proven, s.Stick.Correct, s.Stick.Requests, s.Stick.Lost)
	fmt.Fprintf(w, "set-up %.0f s, build %.0f s, demo %.0f s\n", s.SetupSeconds, s.BuildSeconds, s.DemoSeconds)
	if s.Held {
		fmt.Fprintln(w, "every claim of this table held")
		return
	}
	for _, b := range s.Broken {
		fmt.Fprintf(w, "CLAIM BROKEN: %s\n", b)
	}
}

func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
