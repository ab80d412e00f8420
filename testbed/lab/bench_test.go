package lab_test

import (
	"testing"

	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// BenchmarkRefresh asks a real server for newer metadata when there is none, and
// counts what goes over the line, TLS and MQTT included.
func BenchmarkRefresh(b *testing.B) {
	s := lab.Start(b)
	model := catalogtest.Model(b, "reader", "1.0.0", []byte("a model"))
	s.Publish(catalogtest.Runtime(b, "arm64", "2.3.0", []byte("library")), model)
	d, p := s.Enrol("meter-1"), lab.NewProxy(b, s.MQTT)
	d.Start(p.Addr())
	s.Assign(model, "class=lab-meter-1")
	d.Refresh(1)
	source := link.Source{Link: d.Link}
	if _, err := d.Trust.Refresh(b.Context(), source); err != nil { // what was under way has arrived
		b.Fatal(err)
	}
	up, down, turns := p.Line()
	for b.Loop() {
		if _, err := d.Trust.Refresh(b.Context(), source); err != nil {
			b.Fatal(err)
		}
	}
	up2, down2, turns2 := p.Line()
	b.ReportMetric(float64(up2-up)/float64(b.N), "up-B")
	b.ReportMetric(float64(down2-down)/float64(b.N), "down-B")
	b.ReportMetric(float64(turns2-turns)/float64(b.N), "round-trips")
}
