package tally

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/update"
)

// TestRefusalsAreCounted tells the first refusal at once and the others by number.
func TestRefusalsAreCounted(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	refused := func(code string) update.Event { return update.Event{Type: update.EventRefused, Code: code} }
	said := func(es []Told) (out []string) {
		for _, e := range es {
			out = append(out, fmt.Sprintf("%s %s %d", e.Type, e.Code, e.Times))
		}
		return out
	}
	y := New(update.EventRefused, update.EventBelieved)
	var got []string
	take := func(e update.Event, d time.Duration) { got = append(got, said(y.Take(e, after(d)))...) }
	take(refused("a"), 0)
	for i := range 1000 {
		take(refused("a"), time.Duration(i)*time.Second)
		take(refused("b"), time.Duration(i)*time.Second)
	}
	take(update.Event{Type: "serve.failed"}, time.Hour-2)
	take(update.Event{Type: "serve.failed"}, time.Hour-2)
	got = append(got, said(y.Due(after(time.Hour-1)))...)
	got = append(got, said(y.Due(after(time.Hour)))...)
	take(refused("a"), time.Hour+time.Second)
	take(update.Event{Type: update.EventBelieved}, time.Hour+2*time.Second)
	for i := range 100 { // a server that does so and so
		take(refused("a"), time.Hour+time.Duration(3+i)*time.Second)
		take(update.Event{Type: update.EventBelieved}, time.Hour+time.Duration(3+i)*time.Second)
	}
	got = append(got, said(y.Rest(after(2*time.Hour)))...)
	got = append(got, said(y.Rest(after(2*time.Hour)))...)
	want := []string{
		"trust.refused a 1", "trust.refused b 1", "serve.failed  1", "serve.failed  1", "trust.refused a 1000", "trust.refused b 999",
		"trust.refused a 1", "trust.believed  1", "trust.refused a 100", "trust.believed  100",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	y.Due(after(5 * time.Hour))
	if len(y.runs) != 0 {
		t.Errorf("%d are remembered for ever", len(y.runs))
	}
	for i := range 10 * maxRuns {
		y.Take(refused(fmt.Sprint(i)), after(6*time.Hour))
	}
	if len(y.runs) > maxRuns {
		t.Errorf("%d are counted at a time", len(y.runs))
	}
}

// TestSticksAreCounted tells each lockbox that was taken in at once, and the same one
// that comes and goes by number.
func TestSticksAreCounted(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	y := New("usb.imported")
	told := map[string]int{}
	add := func(es []Told) {
		for _, e := range es {
			told[e.Detail] += e.Times
		}
	}
	lines := 0
	for i := range 1000 {
		for _, id := range []string{"lbx_1", "lbx_2"} {
			es := y.Take(update.Event{Type: "usb.imported", Detail: id}, start.Add(time.Duration(i)*2*time.Second))
			lines += len(es)
			add(es)
		}
	}
	if lines != 2 {
		t.Errorf("%d events for two sticks", lines)
	}
	add(y.Rest(start.Add(time.Hour)))
	if diff := cmp.Diff(map[string]int{"lbx_1": 1000, "lbx_2": 1000}, told); diff != "" {
		t.Error(diff)
	}
}
