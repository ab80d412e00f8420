package watching

import (
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

func TestTable(t *testing.T) {
	d := &fleet.Drift{
		Model: "m", Groups: []fleet.DriftGroup{
			{Group: "har\x1b[2Jbour", Version: "1.0.0", Devices: 4, Requests: 2000, Measures: []fleet.DriftMeasure{
				{Measure: "score", Verdict: fleet.DriftDrifts, Live: 1990, PSI: 1.25, Threshold: 0.02, JS: 0.2, P: 1e-9, Says: "mean 0.7, 0.9 in the reference"},
				{Measure: "input", Verdict: fleet.DriftUnknown, Live: 1990, P: 1, Says: "its contract says nothing of it"},
			}},
			{Version: "2.0.0", Verdict: fleet.DriftUnknown},
		},
		Outliers: []fleet.DriftOutlier{{Device: "meter-7", Path: "dev/m/1.0.0", Measure: "input", Distance: 0.8, Usual: 0.1}}, LeftOut: 2,
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	table(w, d)
	w.Flush()
	got := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"har [2Jbour 1.0.0 4 2000 score 1990 1.250 0.020 0.200 <1e-6 drifts mean 0.7, 0.9 in the reference input 1990 – – – – no reference its contract",
		"– 2.0.0 0 0 – no reference nothing is watched", "odd one out: meter-7 (dev/m/1.0.0), input is 0.80 from the others, usual is 0.10", "left out: 2 windows",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	b.Reset()
	table(&b, &fleet.Drift{Model: "m", Since: time.Unix(0, 0).UTC()})
	if b.String() != "no measurements of m since 1970-01-01T00:00:00Z\n" {
		t.Errorf("%q", b.String())
	}
}
