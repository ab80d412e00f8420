// Package say is how dunlin writes values for people.
package say

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Age is a duration in at most two units.
func Age(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// Dash is the text, or a dash where there is none.
func Dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// Plain is fleet.Plain: everything that a device has told goes through it.
func Plain(s string) string { return fleet.Plain(s) }

// Pairs are labels or facts in order, plain.
func Pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return Dash(Plain(strings.Join(out, ",")))
}
