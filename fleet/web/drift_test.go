package web

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// TestDrift asks the API about a model whose bundle is not here: devices are
// grouped by a label, and nothing is said that no reference says.
func TestDrift(t *testing.T) {
	s := newServer(t)
	s.ceremony()
	s.ask(fleet.RoleViewer, "GET", "/v1/models/reader/drift", nil).refused(404, "model.unknown")
	s.release("reader", "1.0.0", 1)
	var got fleet.Drift
	s.ask(fleet.RoleViewer, "GET", "/v1/models/reader/drift", nil).ok(&got)
	if got.Groups == nil || len(got.Groups) != 0 || got.By != "version" || got.Since.Sub(day0.AddDate(0, 0, -1)).Abs() > time.Minute {
		t.Errorf("nothing measured: %+v", got)
	}
	s.enrol("meter-1", map[string]string{"site": "harbour"})
	h := sketch.NewHistogram(0, 1, 20)
	h.Add(0.9)
	x := fleet.Sample{Device: "meter-1", Epoch: 1, Sequence: 1, Sample: wire.Sample{Start: day0.Unix() - 3600, Seconds: 60, Model: "reader", Path: "dev/reader/1.0.0", Requests: 1, Score: &h}}
	if err := s.db.InsertSamples(t.Context(), []fleet.Sample{x}); err != nil {
		t.Fatal(err)
	}
	s.ask(fleet.RoleViewer, "GET", "/v1/models/reader/drift?by=site&since=7200", nil).ok(&got)
	want := []fleet.DriftGroup{{Group: "harbour", Path: "dev/reader/1.0.0", Version: "1.0.0", Devices: 1, Windows: 1, Requests: 1, Verdict: fleet.DriftUnknown, Measures: []fleet.DriftMeasure{
		{Measure: "score", Verdict: fleet.DriftUnknown, Live: 1, P: 1, Mean: h.Mean(), Says: "its contract says nothing of it"}}}}
	if d := cmp.Diff(want, got.Groups); d != "" {
		t.Error(d)
	}
	s.ask(fleet.RoleViewer, "GET", "/v1/models/reader/drift?since=3540", nil).ok(&got)
	if len(got.Groups) != 0 {
		t.Errorf("older than asked for: %+v", got.Groups)
	}
	s.ask(fleet.RoleViewer, "GET", "/v1/models/reader/drift?since=1", nil).refused(400, "request.malformed")
}
